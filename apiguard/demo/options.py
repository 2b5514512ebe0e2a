"""List and watch parameters -> what to read, or the refusal kube-apiserver gives.

Sources: apimachinery/pkg/apis/meta/internalversion/validation/validation.go,
apiserver/pkg/storage/{continue.go,cacher/delegator/interface.go}.
"""

from __future__ import annotations

import base64
import binascii
import enum
from dataclasses import dataclass

from apiguard.demo import problems
from apiguard.demo.encoding import NotJsonError, decode, encode
from apiguard.demo.resources import Resource
from apiguard.demo.target import Query
from apiguard.kube.selectors import (
    FieldSelector,
    LabelSelector,
    SelectorError,
    parse_field_selector,
    parse_int64,
    parse_label_selector,
)

TOKEN_VERSION = "meta.k8s.io/v1"  # noqa: S105 - a format version, not a secret


class Match(enum.Enum):
    """Which state a list must show."""

    RECENT = "most recent"
    NOT_OLDER = "not older than the revision"
    EXACT = "exactly the revision"


@dataclass(frozen=True, slots=True)
class Selectors:
    """Both selectors of a request; ``text`` identifies them among requests."""

    labels: LabelSelector
    fields: FieldSelector
    text: tuple[str, str]

    @property
    def empty(self) -> bool:
        return self.labels.empty and self.fields.empty

    def named(self, name: str) -> Selectors:
        """The same, of one object only."""
        labels, fields = self.text
        text = f"{fields},metadata.name={name}" if fields else f"metadata.name={name}"
        return Selectors(self.labels, parse_field_selector(text), (labels, text))


@dataclass(frozen=True, slots=True)
class ListOptions:
    """``revision`` 0 with NOT_OLDER is "any"; ``start`` is the first key of a continued page."""

    selectors: Selectors
    match: Match
    revision: int
    limit: int
    start: str
    continued: bool


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """``revision`` None means "from now"; ``initial`` asks for synthetic ADDED events first.

    ``timeout`` in seconds, 0 when the client names none. ``waits_for`` is the revision the
    initial events must have reached.
    """

    selectors: Selectors
    revision: int | None
    initial: bool
    bookmarks: bool
    end_bookmark: bool
    timeout: int
    waits_for: int


def parse_selectors(resource: Resource, query: Query) -> Selectors:
    """Both selectors; raises ``ApiError`` 400 in kube-apiserver's words."""
    label_text, field_text = query.get("labelSelector"), query.get("fieldSelector")
    try:
        labels, fields = parse_label_selector(label_text), parse_field_selector(field_text)
    except SelectorError as error:
        raise problems.bad_request(error.message) from None
    for requirement in fields.requirements:
        if not resource.accepts_field(requirement.field):
            raise problems.bad_request(_unknown_field(resource, requirement.field))
    return Selectors(labels, fields, (label_text, field_text))


def _unknown_field(resource: Resource, label: str) -> str:
    if resource.has_conversion or resource.custom:
        return f"field label not supported: {label}"
    return f'"{label}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def parse_list_options(resource: Resource, query: Query) -> ListOptions:
    """Raises ``ApiError`` 400 or 422."""
    limit = max(_integer(query, "limit"), 0)
    _integer(query, "timeoutSeconds")
    selectors = parse_selectors(resource, query)
    match, text, token = (
        query.get("resourceVersionMatch"),
        query.get("resourceVersion"),
        query.get("continue"),
    )
    _refuse(_list_problems(match, text, token, initial="sendInitialEvents" in query))
    if token:
        if text not in ("", "0"):
            raise problems.bad_request(
                "specifying resource version is not allowed when using continue"
            )
        revision, start = decode_token(token)
        found = Match.RECENT if revision < 0 else Match.EXACT
        return ListOptions(selectors, found, max(revision, 0), limit, start, continued=True)
    if not text:
        return ListOptions(selectors, Match.RECENT, 0, limit, "", continued=False)
    revision = _revision(text)
    legacy_exact = not match and revision > 0 and limit > 0
    found = Match.EXACT if match == "Exact" or legacy_exact else Match.NOT_OLDER
    if found is Match.NOT_OLDER and revision == 0 and resource.cached:
        limit = 0  # the watch cache ignores limits at revision 0
    return ListOptions(selectors, found, revision, limit, "", continued=False)


_MATCH = "resourceVersionMatch"
_WITH_CONTINUE = (_MATCH, f"{_MATCH} is forbidden when continue is provided")
_Problem = tuple[str, str, str]  # reason, message, field: a cause of 422


def _forbidden(field: str, why: str) -> _Problem:
    return "FieldValueForbidden", f"Forbidden: {why}", field


def _unsupported(match: str, *supported: str) -> _Problem:
    listed = ", ".join(f'"{value}"' for value in supported)
    message = f'Unsupported value: "{match}": supported values: {listed}'
    return "FieldValueNotSupported", message, _MATCH


def _refuse(found: list[_Problem]) -> None:
    if found:
        raise problems.invalid("ListOptions", "meta.k8s.io", "", found)


def _list_problems(match: str, revision: str, token: str, *, initial: bool) -> list[_Problem]:
    found: list[_Problem] = []
    if match and not revision:
        found.append(
            _forbidden(_MATCH, f"{_MATCH} is forbidden unless resourceVersion is provided")
        )
    if match and token:
        found.append(_forbidden(*_WITH_CONTINUE))
    if match not in ("", "Exact", "NotOlderThan"):
        found.append(_unsupported(match, "Exact", "NotOlderThan", ""))
    if match == "Exact" and revision == "0":
        why = f'{_MATCH} "exact" is forbidden for resourceVersion "0"'
        found.append(_forbidden(_MATCH, why))
    if initial:
        found.append(_forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return found


def _revision(text: str) -> int:
    why = revision_problem(text)
    if why:
        raise problems.bad_request(f"invalid resource version: {why}")
    return int(text)


def revision_problem(text: str) -> str:
    """Why ``text`` is no resourceVersion, in the words of Go; "" when it is one."""
    if not (text.isascii() and text.isdigit()):
        return problems.unparsable_revision(text, "invalid syntax")
    return "" if int(text) < 1 << 64 else problems.unparsable_revision(text, "value out of range")


def _integer(query: Query, name: str) -> int:
    if name not in query:
        return 0
    text = query.get(name)
    value = parse_int64(text)
    if value is None:
        digits = text[1:] if text[:1] in ("+", "-") else text
        why = "value out of range" if digits.isascii() and digits.isdigit() else "invalid syntax"
        raise problems.bad_request(f'strconv.ParseInt: parsing "{text}": {why}')
    return value


def parse_watch_options(
    resource: Resource, query: Query, prefix: bool, name: str = ""
) -> WatchOptions:
    """Raises ``ApiError`` 400, 422 or (an unparsable revision) 500.

    ``prefix``: the deprecated path form, which never defaults to initial events by option but
    behaves as revision 0 does, and may hold the ``name`` of one object.
    """
    timeout = max(_integer(query, "timeoutSeconds"), 0)
    selectors = parse_selectors(resource, query)
    if prefix and name:
        selectors = selectors.named(name)
    text, match = query.get("resourceVersion"), query.get("resourceVersionMatch")
    bookmarks = query.flag("allowWatchBookmarks")
    explicit = "sendInitialEvents" in query
    _refuse(_watch_problems(match, query.get("continue"), explicit=explicit))
    why = revision_problem(text) if text else ""
    if why:
        raise problems.ApiError(500, "", why)
    revision = int(text) if text else 0
    initial = query.flag("sendInitialEvents") if explicit else revision == 0
    start = None if initial or not text or revision == 0 else revision
    return WatchOptions(
        selectors,
        start,
        initial,
        bookmarks,
        end_bookmark=bookmarks and initial and not prefix,
        timeout=timeout,
        waits_for=revision if initial else 0,
    )


def _watch_problems(match: str, token: str, *, explicit: bool) -> list[_Problem]:
    found: list[_Problem] = []
    if explicit and match != "NotOlderThan":
        why = f"sendInitialEvents requires setting {_MATCH} to NotOlderThan"
        found.append(_forbidden(_MATCH, why))
    if match and not explicit:
        why = f"{_MATCH} is forbidden for watch unless sendInitialEvents is provided"
        found.append(_forbidden(_MATCH, why))
    if match not in ("", "NotOlderThan"):
        found.append(_unsupported(match, "NotOlderThan"))
    if match and token:
        found.append(_forbidden(*_WITH_CONTINUE))
    return found


def encode_token(revision: int, last_key: str, scope: str, *, cached: bool = True) -> str:
    """The continue token after ``last_key``; ``scope`` is the namespace listed, "" for all.

    ``cached``: a watch cache writes it, whose keys begin with a slash.
    """
    relative = last_key[len(scope) + 1 :] if scope else last_key
    start = f"/{relative}\0" if cached else f"{relative}\0"
    document = encode({"v": TOKEN_VERSION, "rv": revision, "start": start})
    return base64.urlsafe_b64encode(document).rstrip(b"=").decode()


def decode_token(token: str) -> tuple[int, str]:
    """Revision (-1 = latest) and relative start key; raises ``ApiError`` 400."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        found = decode(raw)
    except (binascii.Error, NotJsonError, ValueError) as error:
        why = (
            str(error) if isinstance(error, NotJsonError) else "illegal base64 data at input byte 0"
        )
        raise _bad_token(why) from None
    document = found if isinstance(found, dict) else {}
    version, revision, start = (
        document.get("v", ""),
        document.get("rv", 0),
        document.get("start", ""),
    )
    if not isinstance(revision, int):
        raise _bad_token(
            "json: cannot unmarshal string into Go struct field continueToken.rv of type int64"
        )
    if version != TOKEN_VERSION:
        raise _bad_token(f"server does not recognize this encoded version {version}")
    if revision == 0:
        raise _bad_token("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    if not isinstance(start, str) or not start:
        raise _bad_token("encoded start key empty (version meta.k8s.io/v1)")
    start = start.removeprefix("/")
    if start.startswith("../") or "/../" in start:
        raise _bad_token(f"{start}")
    return revision, start


def _bad_token(why: str) -> problems.ApiError:
    return problems.bad_request(f"invalid continue token: continue key is not valid: {why}")
