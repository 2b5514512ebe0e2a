"""An answer to ``GET /readyz?verbose`` -> Condition.

kube-apiserver lists one check per line, ``[+]etcd ok`` or ``[-]etcd failed: reason withheld``, and
answers 500 when one failed (k8s.io/apiserver/pkg/server/healthz/healthz.go). Distributions leave
checks out, so a check counts only where it is named.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

LONGEST_BODY = 65_536
"""Bytes of an answer that are read; kube-apiserver's own is 3 KiB."""

LONGEST_DETAIL = 256
"""Characters of a detail: it is shown, logged and reported."""

_FAILED = re.compile(rb"^\[-\]([\x21-\x7e]{1,100}) ", re.MULTILINE)
_SHUTDOWN = "shutdown"


class Condition(enum.IntEnum):
    """What a probe found, from best to worst: of servers that all fail the least bad is asked."""

    READY = 0
    UNJUDGED = 1  # it answers, and does not say how it is
    NOT_READY = 2
    LEAVING = 3  # it shuts down
    STORAGE = 4  # its etcd fails: reads may still work, writes do not
    SILENT = 5  # no answer, or none that could be read

    @property
    def passes(self) -> bool:
        return self <= Condition.UNJUDGED


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe of one server; ``detail`` is one line for the operator, "" when it is ready."""

    condition: Condition
    detail: str = ""


def read_answer(status: int, body: bytes) -> Finding:
    """The finding in an answer; ``body`` may be cut at ``LONGEST_BODY``.

    4xx is no failure: a server that refuses to say how it is (no permission, no such path, too
    busy for it) still serves others, and excluding every one of them for a missing role would be
    an outage made here.
    """
    if status == 200:
        return Finding(Condition.READY)
    if 400 <= status < 500:
        return Finding(Condition.UNJUDGED, f"/readyz answers {status}")
    failed = [name.decode("ascii") for name in _FAILED.findall(body[:LONGEST_BODY])]
    if not failed:
        return Finding(Condition.NOT_READY, f"/readyz answers {status}")
    detail = f"failing checks: {', '.join(failed)}"
    return Finding(_condition(failed), detail[:LONGEST_DETAIL])


def _condition(failed: list[str]) -> Condition:
    """``etcd``, ``etcd-readiness`` and ``etcd-override-readiness-N`` are checks of storage."""
    if any(name == "etcd" or name.startswith("etcd-") for name in failed):
        return Condition.STORAGE
    return Condition.LEAVING if _SHUTDOWN in failed else Condition.NOT_READY
