"""What a request means to Kubernetes: derived from method and target as kube-apiserver does.

Source: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go over Go's ``net/url``.

Some targets have two readings: a program that does not decode ``%2F``, one that merges ``//`` or
resolves ``..`` splits them otherwise than kube-apiserver, which decodes once and cleans nothing.
Where the difference could reach namespace, resource, name or subresource the request is refused
with 400 and nothing is forwarded. What follows ``proxy/`` is another server's path and never
judged. The target itself is always forwarded byte for byte.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, ParamSpec, TypeVar

from apiguard.errors import WireError
from apiguard.kube.neturl import MAX_PARAMETERS, first_values, percent_decode
from apiguard.kube.selectors import (
    SelectorError,
    parse_field_selector,
    parse_int64,
    parse_label_selector,
)


class ListShape(enum.Flag):
    """What a LIST or watch-list lacks that would make it cheap; NONE for everything else.

    A watch-list is a WATCH that asks for the objects there are before their changes
    (``sendInitialEvents=true``): kube-apiserver's fair queues count it as a LIST, and no other
    watch (``k8s.io/apiserver/pkg/util/flowcontrol/request/list_work_estimator.go``).
    """

    NONE = 0
    UNPAGED = 1
    """Neither a limit above zero nor a continue token; so is every watch-list."""
    NO_RESOURCE_VERSION = 2
    """resourceVersion unset or empty: a consistent read."""
    NO_SELECTOR = 4
    """Neither label nor field selector."""


@dataclass(frozen=True, slots=True, eq=False)
class RequestInfo:
    """One classified request; compared and hashed by identity, so that it can key a memo.

    ``is_resource``     whether the path names an API resource
    ``path``            decoded path, without the query; bytes that are no UTF-8 are U+FFFD
    ``verb``            Kubernetes verb; the lower-cased method for a non-resource path; "" for a
                        method that has none
    ``parts``           path segments from the resource on
    ``field_selector``, ``label_selector``
                        as in the query, for list, watch and deletecollection; never under the
                        deprecated ``/watch/`` prefix
    ``long_running``    has no request deadline: watch, exec, attach, log, port-forward, proxy
    ``mutating``        any verb but get, list and watch
    ``collection``      reads a whole collection upstream: a list, or a watch-list; neither if
                        they ask for one object by its name
    ``qualified``       ``resource[.group][/subresource]``: ``pods/log``,
                        ``leases.coordination.k8s.io``, ``deployments.apps/scale``; "" for a
                        non-resource path
    """

    is_resource: bool
    path: str
    verb: str
    api_prefix: str
    api_group: str
    api_version: str
    namespace: str
    resource: str
    subresource: str
    name: str
    parts: tuple[str, ...]
    field_selector: str
    label_selector: str
    long_running: bool
    mutating: bool
    shape: ListShape
    collection: bool
    qualified: str


_NO_SHAPE = ListShape.NONE  # a member off its Enum costs 40 ns a look on Python 3.11, a global 10


def reads_collection(verb: str, name: str, shape: ListShape) -> bool:
    """What ``RequestInfo.collection`` is: a watch has a shape only if it is a watch-list."""
    return not name and (verb == "list" or shape is not _NO_SHAPE)


P = ParamSpec("P")
T = TypeVar("T")


def _unfrozen_constructor(frozen: Callable[P, T]) -> Callable[P, T]:
    """A constructor of the frozen, slotted dataclass ``frozen`` that skips its ``__init__``.

    That one calls ``object.__setattr__`` per field: 2.4 µs for the 18 fields of ``RequestInfo``
    (CPython 3.11). Filling a mutable twin with the same slots and giving it its class last takes
    0.6 µs and yields the same object.
    """
    fields = [(f.name, object) for f in dataclasses.fields(frozen)]  # type: ignore[arg-type]  # a class here, though typed by its call
    twin: Any = dataclasses.make_dataclass("Twin", fields, slots=True, eq=False)

    def construct(*args: P.args, **kwargs: P.kwargs) -> T:
        value = twin(*args, **kwargs)
        value.__class__ = frozen
        return value  # type: ignore[no-any-return]  # it has become one

    return construct


_request_info = _unfrozen_constructor(RequestInfo)


def parse_request(method: str, target: str) -> RequestInfo:
    """Classify a request line's method and target.

    ``target`` is the latin-1 view of the bytes received, in origin form. Raises ``WireError`` 400
    BadRequest: with ``close`` where the target is no origin form at all, without it where only its
    meaning is in doubt.

    Costs 2.6 µs for a named object or a bare LIST, 6 µs for an informer's watch with six
    parameters, 10 µs once the path holds an escape, 17 µs with a metadata.name selector (CPython
    3.11, best of five, quiet machine): whoever calls this per request remembers the answer per
    method and target.
    """
    if not (target.isascii() and target.isprintable()) or " " in target:
        _check_bytes(target)
    if not target.startswith("/"):
        raise WireError(400, "BadRequest", "the request target is not in origin form")
    path, _, query = target.partition("?")
    if "%" in path or "//" in path or "/." in path or "#" in path or not path.isascii():
        path, parts = _vetted(path)
    else:
        parts = path.split("/")
        del parts[0]
        if not parts[-1]:
            del parts[-1]
    anchor = _resource_index(parts)
    if anchor:
        return _resource_request(method, path, parts, anchor, query)
    return _other_request(method, path, parts)


# --- the path -------------------------------------------------------------------------------

_PREFIX_VERBS = frozenset({"proxy", "watch"})
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


def _resource_index(parts: list[str]) -> int:
    """Where in ``parts`` the resource stands, 0 when the path names none.

    Raises for ``/api/v1/watch``: kube-apiserver cannot classify that either (it answers 500).
    """
    if not parts or parts[0] not in ("api", "apis"):
        return 0
    at = 2 if parts[0] == "api" else 3
    if len(parts) <= at:
        return 0
    if parts[at] in _PREFIX_VERBS:
        at += 1
        if len(parts) == at:
            _refuse("the path ends where its resource should stand")
    if (
        parts[at] == "namespaces"
        and len(parts) > at + 2
        and parts[at + 2] not in _NAMESPACE_SUBRESOURCES
    ):
        return at + 2
    return at


def _vetted(raw: str) -> tuple[str, list[str]]:
    """Decoded path and its parts as kube-apiserver splits it; refuses what has two readings.

    If the raw segments that count are each free of what readers disagree about, every reader gets
    the same leading segments, whatever comes behind them.
    """
    path = percent_decode(raw)
    if path is None:
        _refuse("the path holds a malformed percent escape")
    trimmed = path.strip("/")
    parts = trimmed.split("/") if trimmed else []
    segments = raw.split("/")[1:]
    if not segments[-1]:
        del segments[-1]
    anchor = _resource_index(parts)
    decoded = [percent_decode(segment) or "" for segment in segments]
    doubtful = [s for s in decoded[: _opaque_index(parts, anchor)] if _DOUBTFUL.search(s)]
    if any(_UNPRINTABLE.search(segment) for segment in doubtful):
        _refuse("the path holds an encoded control character")
    # A path that is none of a resource stays so in every reading unless some reader can drop what
    # precedes an "api" or "apis".
    if doubtful and (anchor or "api" in parts or "apis" in parts):
        _refuse(
            "the path can be split in two ways: it holds an empty segment, a dot segment, "
            "an encoded slash or delimiter, or bytes that are no UTF-8"
        )
    return path, parts


_DOUBTFUL = re.compile(r"\A\.{0,2}\Z|[/?#\x00-\x1f\x7f\ufffd]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def _opaque_index(parts: list[str], anchor: int) -> int | None:
    """How many leading segments count; None for all. Those behind ``proxy`` do not."""
    if not anchor:
        return None
    if parts[2 if parts[0] == "api" else 3] == "proxy":  # the deprecated prefix: name, then path
        return anchor + 2
    if parts[anchor + 2 : anchor + 3] == ["proxy"]:
        return anchor + 3
    return None


_NO_TARGET = re.compile(r"[\x00-\x20\x7f]|[^\x00-\xff]")


def _check_bytes(target: str) -> None:
    """Raise for what no request target may hold; bytes above 0x7f pass, as they do in Go."""
    if _NO_TARGET.search(target):
        raise WireError(400, "BadRequest", "the request target holds a blank or control character")


def _refuse(message: str) -> NoReturn:
    raise WireError(400, "BadRequest", message, close=False)


# --- the verb -------------------------------------------------------------------------------

_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_READING_VERBS = frozenset({"get", "list", "watch"})
_LONG_RUNNING_VERBS = frozenset({"watch", "proxy"})
_LONG_RUNNING_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})


def _other_request(method: str, path: str, parts: list[str]) -> RequestInfo:
    """A request for no resource: discovery, health, metrics, anything else."""
    verb = method.lower()
    return _request_info(
        is_resource=False,
        path=path,
        verb=verb,
        api_prefix="apis" if len(parts) == 3 and parts[0] == "apis" else "",
        api_group="",
        api_version="",
        namespace="",
        resource="",
        subresource="",
        name="",
        parts=(),
        field_selector="",
        label_selector="",
        long_running=verb in _LONG_RUNNING_VERBS or path.startswith("/debug/pprof/"),
        mutating=verb not in _READING_VERBS,
        shape=ListShape.NONE,
        collection=False,
        qualified="",
    )


# --- list options ---------------------------------------------------------------------------


class _Options(NamedTuple):
    """What the query adds to a request for a collection."""

    verb: str
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""
    shape: ListShape = ListShape.NONE


_NO_OPTIONS = _Options("")
_BARE_LIST = _Options("list", shape=ListShape(7))
_BARE_DELETION = _Options("deletecollection")
_COLLECTION_VERBS = frozenset({"get", "delete"})
_LIST_PARAMETERS = frozenset(
    {
        "continue",
        "fieldSelector",
        "labelSelector",
        "limit",
        "resourceVersion",
        "sendInitialEvents",
        "timeoutSeconds",
        "watch",
    }
)
_SHAPES = tuple(ListShape(bits) for bits in range(8))  # ListShape(n) costs 0.3 µs, an index 0.03


def _list_options(verb: str, query: str) -> _Options:
    """Read the query of a nameless ``get`` (a list or watch) or ``delete`` (a deletecollection)."""
    if not query:
        return _BARE_LIST if verb == "get" else _BARE_DELETION
    if query.count("&") >= MAX_PARAMETERS:
        _refuse(f"the query has more than {MAX_PARAMETERS} parameters")
    values = first_values(query, _LIST_PARAMETERS)
    field_selector = values.get("fieldSelector", "")
    label_selector = values.get("labelSelector", "")
    if verb == "delete":
        return _Options("deletecollection", "", field_selector, label_selector)
    verb, name = _verb_and_name(values)
    if verb == "list":
        shape = _SHAPES[_lacks(values)]
    elif "sendInitialEvents" in values:
        shape = _watch_list_shape(values)
    else:
        shape = ListShape.NONE
    return _Options(verb, name, field_selector, label_selector, shape)


def _prefixed_watch_shape(query: str) -> ListShape:
    """Under the deprecated ``/watch/`` prefix kube-apiserver reads the same options."""
    if query.count("&") >= MAX_PARAMETERS:
        _refuse(f"the query has more than {MAX_PARAMETERS} parameters")
    return _watch_list_shape(first_values(query, _LIST_PARAMETERS))


def _verb_and_name(values: dict[str, str]) -> tuple[str, str]:
    """``list`` or ``watch``, and the name an exact ``metadata.name`` selector gives.

    Options of which one cannot be parsed give no name, and spell "false" by ``ToLower`` rather
    than ``EqualFold``: the only two differences, so parsing waits until one of them can show.
    """
    watch = values.get("watch", "0")
    fields = values.get("fieldSelector", "")
    if "metadata.name" not in fields and watch.isascii():
        return ("list" if watch == "0" or watch.lower() == "false" else "watch"), ""
    name = _selected_name(values)
    if name is None:
        return ("list" if watch == "0" or watch.lower() == "false" else "watch"), ""
    return ("list" if watch == "0" or _equal_fold_false(watch) else "watch"), name


def _equal_fold_false(text: str) -> bool:
    """Go's ``EqualFold(text, "false")``; its one non-ASCII spelling has U+017F for ``s``."""
    return text.lower().replace("\u017f", "s") == "false"


def _selected_name(values: dict[str, str]) -> str | None:
    """The name demanded by the field selector ("" for none); None for unparsable options."""
    for parameter in ("limit", "timeoutSeconds"):
        if parameter in values and parse_int64(values[parameter]) is None:
            return None
    try:
        parse_label_selector(values.get("labelSelector", ""))
        name = parse_field_selector(values.get("fieldSelector", "")).exact("metadata.name")
    except SelectorError:
        return None
    if not name or name in (".", "..") or "/" in name or "%" in name:
        return ""
    return name


def _watch_list_shape(values: dict[str, str]) -> ListShape:
    """Of a watch; booleans as Go converts them, where also an empty text is true."""
    if values.get("sendInitialEvents", "0").lower() in ("0", "false"):
        return ListShape.NONE
    return _SHAPES[_lacks(values) | 1]  # a watch has no pages


def _lacks(values: dict[str, str]) -> int:
    """Bits of a shape. An unparsable limit counts as none: such a LIST is answered 400."""
    lacks = 0
    if not values.get("continue") and (parse_int64(values.get("limit", "")) or 0) <= 0:
        lacks |= 1
    if not values.get("resourceVersion"):
        lacks |= 2
    if not values.get("fieldSelector") and not values.get("labelSelector"):
        lacks |= 4
    return lacks


# --- the resource ---------------------------------------------------------------------------


def _resource_request(
    method: str, path: str, parts: list[str], anchor: int, query: str
) -> RequestInfo:
    prefix = parts[0]
    group, at = ("", 1) if prefix == "api" else (parts[1], 2)
    first = at + 1
    verb = parts[first] if parts[first] in _PREFIX_VERBS else _VERBS.get(method, "")
    if parts[first] in _PREFIX_VERBS:
        first += 1
    namespace = ""
    if parts[first] == "namespaces" and len(parts) > first + 1:
        namespace = parts[first + 1]
    own = parts[anchor:]
    resource = own[0]
    name = own[1] if len(own) > 1 else ""
    subresource = own[2] if len(own) > 2 and verb != "proxy" else ""
    options = _NO_OPTIONS
    if not name and verb in _COLLECTION_VERBS:
        options = _list_options(verb, query)
        verb, name = options.verb, options.name
    elif query and verb == "watch" and not name:
        options = _Options(verb, shape=_prefixed_watch_shape(query))
    qualified = f"{resource}.{group}" if group else resource
    return _request_info(
        True,
        path,
        verb,
        prefix,
        group,
        parts[at],
        namespace,
        resource,
        subresource,
        name,
        tuple(own),
        options.field_selector,
        options.label_selector,
        verb in _LONG_RUNNING_VERBS or subresource in _LONG_RUNNING_SUBRESOURCES,
        verb not in _READING_VERBS,
        options.shape,
        reads_collection(verb, name, options.shape),
        f"{qualified}/{subresource}" if subresource else qualified,
    )
