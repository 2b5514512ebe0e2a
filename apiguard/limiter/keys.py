"""Which bucket of a limit a request belongs to.

A key is the value itself for one ``per`` field and a tuple of values for several. Fields fall into
two kinds: those somebody vouches for (user, source, namespace, verb, resource) and those the
client chooses freely (user-agents). The second kind is rationed per *owner*, who is the verified
user or, when there is none, the source address: see ``table``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from apiguard.kube.identity import Standing

from .flow import Per

if TYPE_CHECKING:
    from apiguard.kube.identity import Caller
    from apiguard.kube.requestinfo import RequestInfo

Key = str | tuple[str, ...]
KeyOf = Callable[["RequestInfo", "Caller"], Key]

CHOSEN_BY_CLIENT = frozenset({Per.USER_AGENT, Per.USER_AGENT_FAMILY})

# Control characters never get through authentication, so no user name begins with this one.
BY_SOURCE = "\x00source "

# Longer values share the bucket of their beginning: 20,000 keys of 64 KiB would be 1.3 GB.
LONGEST_VALUE = 256


def owner_of(caller: Caller) -> str:
    """Who answers for the values this caller chooses: the verified user, else the source."""
    identity = caller.identity
    if identity is not None and caller.standing is Standing.VERIFIED:
        return identity.user
    return BY_SOURCE + caller.source_key


def _user(info: RequestInfo, caller: Caller) -> str:
    """The proven user, ``system:anonymous``, or one value per source for the unproven."""
    identity = caller.identity
    return BY_SOURCE + caller.source_key if identity is None else identity.user


def _user_agent(info: RequestInfo, caller: Caller) -> str:
    value = caller.user_agent
    return value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE]


def _family(info: RequestInfo, caller: Caller) -> str:
    return caller.family


def _source(info: RequestInfo, caller: Caller) -> str:
    return caller.source_key


def _namespace(info: RequestInfo, caller: Caller) -> str:
    return info.namespace[:LONGEST_VALUE]


def _verb(info: RequestInfo, caller: Caller) -> str:
    return info.verb


def _resource(info: RequestInfo, caller: Caller) -> str:
    return info.qualified[:LONGEST_VALUE]


_FIELDS: dict[Per, Callable[[RequestInfo, Caller], str]] = {
    Per.USER: _user,
    Per.USER_AGENT: _user_agent,
    Per.USER_AGENT_FAMILY: _family,
    Per.SOURCE: _source,
    Per.NAMESPACE: _namespace,
    Per.VERB: _verb,
    Per.RESOURCE: _resource,
}


def key_of(per: tuple[Per, ...]) -> KeyOf:
    """The function from a request to its key under ``per``, which is not empty."""
    fields = tuple(_FIELDS[field] for field in per)
    if len(fields) == 1:
        return fields[0]
    if len(fields) == 2:
        # Unrolled: a generator expression over two functions takes 0.44 µs, this 0.11.
        first, second = fields
        return lambda info, caller: (first(info, caller), second(info, caller))
    return lambda info, caller: tuple([field(info, caller) for field in fields])


def values_of(key: Key) -> tuple[str, ...]:
    """A key as the tuple of its values."""
    return (key,) if isinstance(key, str) else key


def key_from(values: tuple[str, ...]) -> Key:
    """The key with these values: inverse of ``values_of``."""
    return values[0] if len(values) == 1 else values
