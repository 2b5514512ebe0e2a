"""All rules at once: a request or a caller becomes a bit mask of the rules that accept it.

Trying rules in turn costs time per rule; here it costs time per *field*. Each field of all rules
is one table from a value to a mask of rules (bit i: rule i accepts the value, or does not ask).
The rules that match are the intersection over fields, and since integers are intersected whole,
1,000 rules cost little more than 10.

The fields fall into two halves that change at different pace: what is known of the caller, the
same for all requests of a connection, and what is asked for.

Bits stand in reverse order, the first rule at the top, so that the first match is the highest
bit and ``int.bit_length`` finds it in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from apiguard.kube.identity import Standing
from apiguard.kube.requestinfo import ListShape

from .patterns import Pattern, PatternTable
from .resources import ResourceTable
from .schema import (
    ANY_VERB,
    METHOD_VERBS,
    RESOURCE_FIELDS,
    RESOURCE_VERBS,
    ListShapeMatch,
    Match,
)
from .sources import SourceTable

if TYPE_CHECKING:
    from apiguard.kube.identity import Caller, Identity
    from apiguard.kube.requestinfo import RequestInfo

    from .policy import Rule

K = TypeVar("K")
T = TypeVar("T")

MEMO = 8_192  # values kept per generation, two generations
LONGEST_REMEMBERED = 512  # characters; longer values are judged each time, not kept

_SERVICE_ACCOUNT = "system:serviceaccount:"


class Memo(Generic[K]):
    """Remembers masks in two generations: what was not used in the last ``MEMO`` misses goes.

    Bounded whatever clients invent, with no book-keeping on a hit. ``young`` is read directly by
    whoever cannot afford the call.
    """

    __slots__ = ("_old", "young")

    def __init__(self) -> None:
        self.young: dict[K, int] = {}
        self._old: dict[K, int] = {}

    def recall(self, key: K) -> int | None:
        """The mask of ``key`` from the older generation, promoted; None if it was dropped."""
        mask = self._old.get(key)
        if mask is not None:
            self.keep(key, mask)
        return mask

    def keep(self, key: K, mask: int) -> None:
        """Remember ``mask``; retires a generation when this one is complete."""
        if len(self.young) >= MEMO:
            self._old = self.young
            self.young = {}
        self.young[key] = mask


class Table(Protocol):
    """Maps a value to the rules that name it."""

    def mask(self, value: str, /) -> int: ...


class Field:
    """One textual field of all rules: ``mask(value)`` is the rules that accept the value.

    ``otherwise`` is the rules that do not ask for this field.
    """

    __slots__ = ("_memo", "_table", "otherwise")

    def __init__(self, table: Table, otherwise: int) -> None:
        self._table = table
        self.otherwise = otherwise
        self._memo: Memo[str] = Memo()

    def mask(self, value: str) -> int:
        memo = self._memo
        mask = memo.young.get(value)
        if mask is None:
            mask = memo.recall(value)
        if mask is None:
            mask = self.otherwise | self._table.mask(value)
            if len(value) <= LONGEST_REMEMBERED:
                memo.keep(value, mask)
        return mask

    def any_of(self, values: Iterable[str]) -> int:
        """The rules that accept at least one of ``values``."""
        mask = self.otherwise
        for value in values:
            mask |= self.mask(value)
        return mask


class Bits:
    """Which bit stands for which rule."""

    __slots__ = ("all", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        top = len(rules) - 1
        self.rules = [(rule, 1 << (top - i)) for i, rule in enumerate(rules)]
        self.all = (1 << len(rules)) - 1

    def where(self, accept: Callable[[Match], bool]) -> int:
        """The rules whose match satisfies ``accept``."""
        return sum(bit for rule, bit in self.rules if accept(rule.match))

    def asking(self, field: Callable[[Match], tuple[T, ...] | None]) -> list[tuple[T, int]]:
        """Every value of one field with the rule that names it."""
        return [(value, bit) for rule, bit in self.rules for value in field(rule.match) or ()]

    def field(self, field: Callable[[Match], tuple[Pattern, ...] | None]) -> Field | None:
        """The table of one field, or None when no rule has it: then it costs nothing."""
        asking = self.asking(field)
        if not asking:
            return None
        return Field(PatternTable(asking), self.where(lambda match: field(match) is None))


def service_account(user: str) -> str:
    """``namespace/name`` of a service account's user name; "" for any other user."""
    if not user.startswith(_SERVICE_ACCOUNT):
        return ""
    namespace, colon, name = user[len(_SERVICE_ACCOUNT) :].partition(":")
    return f"{namespace}/{name}" if colon and namespace and name and ":" not in name else ""


class CallerMatcher:
    """The caller's half: user-agent, identity, whom it asks to act as, source, and who may be
    exempt at all."""

    __slots__ = (
        "_all",
        "_groups",
        "_identities",
        "_impersonated",
        "_nobody",
        "_not_exempt",
        "_service_accounts",
        "_sources",
        "_user_agents",
        "_users",
    )

    def __init__(self, bits: Bits) -> None:
        self._user_agents = bits.field(lambda m: m.user_agents)
        self._users = bits.field(lambda m: m.users)
        self._groups = bits.field(lambda m: m.groups)
        self._service_accounts = bits.field(lambda m: m.service_accounts)
        self._impersonated = bits.field(lambda m: m.impersonated_users)
        self._sources = _source_field(bits)
        self._all = bits.all
        self._not_exempt = sum(bit for rule, bit in bits.rules if not rule.flow.exempt)
        self._nobody = bits.where(
            lambda m: m.users is None and m.groups is None and m.service_accounts is None
        )
        self._identities: Memo[tuple[str, tuple[str, ...]]] = Memo()

    def mask(self, caller: Caller) -> int:
        """The rules whose caller fields all accept ``caller``."""
        identity = caller.identity
        mask = self._nobody if identity is None else self._identity(identity)
        if caller.standing is not Standing.VERIFIED:
            mask &= self._not_exempt
        if self._user_agents is not None:
            mask &= self._user_agents.mask(caller.user_agent)
        if self._impersonated is not None:
            asked = caller.impersonated
            impersonated = self._impersonated
            mask &= impersonated.otherwise if asked is None else impersonated.mask(asked)
        if self._sources is not None:
            mask &= self._sources.mask(caller.source)
        return mask

    def _identity(self, identity: Identity) -> int:
        key = (identity.user, identity.groups)
        mask = self._identities.young.get(key)
        if mask is None:
            mask = self._identities.recall(key)
        if mask is None:
            mask = self._identity_mask(identity)
            self._identities.keep(key, mask)
        return mask

    def _identity_mask(self, identity: Identity) -> int:
        mask = self._all
        if self._users is not None:
            mask &= self._users.mask(identity.user)
        if self._service_accounts is not None:
            account = service_account(identity.user)
            accounts = self._service_accounts
            mask &= accounts.mask(account) if account else accounts.otherwise
        if self._groups is not None:
            mask &= self._groups.any_of(identity.groups)
        return mask


def _source_field(bits: Bits) -> Field | None:
    asking = bits.asking(lambda m: m.sources)
    return Field(SourceTable(asking), bits.where(lambda m: m.sources is None)) if asking else None


class ResourceField:
    """The ``resources`` of all rules, by resource, group and subresource."""

    __slots__ = ("_memo", "_otherwise", "_table")

    def __init__(self, table: ResourceTable, otherwise: int) -> None:
        self._table = table
        self._otherwise = otherwise
        self._memo: Memo[tuple[str, str, str]] = Memo()

    def mask(self, info: RequestInfo) -> int:
        key = (info.resource, info.api_group, info.subresource)
        memo = self._memo
        mask = memo.young.get(key)
        if mask is None:
            mask = memo.recall(key)
        if mask is None:
            mask = self._otherwise | self._table.mask(*key)
            if len(info.path) <= LONGEST_REMEMBERED:
                memo.keep(key, mask)
        return mask


class RequestMatcher:
    """The request's half: verb, and resource fields or path."""

    __slots__ = (
        "_api_groups",
        "_methods",
        "_names",
        "_namespaces",
        "_other_methods",
        "_other_verbs",
        "_paths",
        "_resources",
        "_shapes",
        "_unlisted",
        "_verbs",
    )

    def __init__(self, bits: Bits) -> None:
        on_resources = bits.where(lambda m: m.paths is None)
        elsewhere = bits.where(lambda m: RESOURCE_FIELDS.isdisjoint(m.given))
        self._verbs, self._other_verbs = _verb_masks(bits, RESOURCE_VERBS, on_resources)
        self._methods, self._other_methods = _verb_masks(bits, METHOD_VERBS, elsewhere)
        self._api_groups = bits.field(lambda m: m.api_groups)
        self._namespaces = bits.field(lambda m: m.namespaces)
        self._names = bits.field(lambda m: m.names)
        self._paths = bits.field(lambda m: m.paths)
        self._resources = _resource_field(bits)
        self._unlisted = bits.where(lambda m: m.list_shape is None)
        self._shapes = _shape_masks(bits) if self._unlisted != bits.all else None

    def mask(self, info: RequestInfo) -> int:
        """The rules whose request fields all accept ``info``."""
        if not info.is_resource:
            mask = self._methods.get(info.verb, self._other_methods)
            return mask if self._paths is None else mask & self._paths.mask(info.path)
        mask = self._verbs.get(info.verb, self._other_verbs)
        if self._resources is not None:
            mask &= self._resources.mask(info)
        if self._namespaces is not None:
            mask &= self._namespaces.mask(info.namespace)
        if self._api_groups is not None:
            mask &= self._api_groups.mask(info.api_group)
        if self._names is not None:
            mask &= self._names.mask(info.name)
        if self._shapes is not None:
            shape = info.shape._value_  # 0 for what is neither list nor watch-list
            listed = shape or info.verb == "list"
            mask &= self._shapes[shape] if listed else self._unlisted
        return mask


def _verb_masks(bits: Bits, verbs: Iterable[str], among: int) -> tuple[dict[str, int], int]:
    """Per verb the rules of ``among`` that accept it, and those that accept any verb at all."""
    any_verb = among & bits.where(lambda m: m.verbs is None or ANY_VERB in m.verbs)
    named = {
        verb: any_verb | among & bits.where(lambda m, v=verb: v in (m.verbs or ()))  # type: ignore[misc]  # mypy cannot type a lambda's default
        for verb in verbs
    }
    return named, any_verb


def _resource_field(bits: Bits) -> ResourceField | None:
    asking = bits.asking(lambda m: m.resources)
    if not asking:
        return None
    return ResourceField(ResourceTable(asking), bits.where(lambda m: m.resources is None))


def _shape_masks(bits: Bits) -> list[int]:
    """For each of the eight shapes, by the flag's value, the rules that accept it."""
    masks = []
    for value in range(8):
        shape = ListShape(value)
        masks.append(bits.where(lambda m, s=shape: shape_accepts(m.list_shape, s)))  # type: ignore[misc]  # as above
    return masks


def shape_accepts(match: ListShapeMatch | None, shape: ListShape) -> bool:
    """Whether a LIST or watch-list of this shape satisfies ``match``."""
    if match is None:
        return True
    asked = (
        (match.unpaged, ListShape.UNPAGED),
        (match.without_resource_version, ListShape.NO_RESOURCE_VERSION),
        (match.without_selector, ListShape.NO_SELECTOR),
    )
    return all(want is None or want == (flag in shape) for want, flag in asked)
