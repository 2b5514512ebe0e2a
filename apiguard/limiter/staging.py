"""Which keys a rule already refuses on while it is rolled out to some percent of them.

A key is chosen by its own hash: every worker, every restart and every rebuilt policy chooses the
same ones without telling each other, and raising ``percent`` only ever adds keys. The rule's name
goes into the hash, so that several staged rules do not all begin with the same unlucky clients.

What is hashed are the values of all ``per`` fields of the rule's limits, as the buckets are keyed;
where no limit has any, the caller: the verified user, else the source address. A client that may
choose a value (its user-agent) may thereby choose to stay outside: a rollout is a matter of care,
not of defence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from .flow import Flow, Per
from .keys import KeyOf, key_of, owner_of

if TYPE_CHECKING:
    from apiguard.kube.identity import Caller
    from apiguard.kube.requestinfo import RequestInfo


class Stage:
    """The chosen share of one flow's keys.

    Nothing is remembered per key: hashing a user's name anew takes 0.4 µs, looking it up in a
    bounded memo 0.2 (3.11, 2-core VM), and that would be one more thing clients can fill.
    """

    __slots__ = ("_key_of", "_percent", "_seed")

    def __init__(self, flow: Flow) -> None:
        self._key_of = _staged_by(flow)
        self._percent = flow.percent
        self._seed = crc32(flow.name.encode("utf-8", "surrogatepass") + b"\0")

    def chosen(self, info: RequestInfo, caller: Caller) -> bool:
        """Whether the flow refuses on this request's key."""
        key = self._key_of(info, caller)
        text = key if isinstance(key, str) else "\0".join(key)
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = text.encode("utf-8", "surrogatepass")
        return crc32(data, self._seed) % 100 < self._percent


def _staged_by(flow: Flow) -> KeyOf:
    named = {field for limit in flow.limits for field in limit.per}
    per = tuple(field for field in Per if field in named)
    return key_of(per) if per else lambda info, caller: owner_of(caller)
