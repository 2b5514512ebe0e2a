"""The collection that relays are measured with: 10,000 pods of 4 KB and their changes.

Every pod has the same length whatever happens to it, so that lists and events have, too. The
server's clock stands in each change (``STAMP``): on one machine, ``CLOCK_MONOTONIC`` is one clock,
and a client knows how old the event is that it was handed.
"""

from __future__ import annotations

import time

PODS = 10_000
POD_BYTES = 4096
NODES = 5_000
NAMESPACES = 50
TIERS = 7

EVENT_MARK = b"~"
"""Occurs once in every event and nowhere in chunk framing: counting it counts events."""
STAMP = EVENT_MARK + b"t="
STAMP_DIGITS = 20

FIRST_REVISION = 100_000_000
"""Of the first pod; so many that no revision within a run has another number of digits."""

PATH = "/api/v1/pods"

_VARIABLE = b'{"name":"SETTING_%03d","value":"value-%03d.of.some.length"},'
_LAST_VARIABLE = b'{"name":"PADDING","value":"%b"}'


def node(number: int) -> str:
    """The node of pod ``number``."""
    return f"node-{number % NODES:05d}"


def pod(number: int, revision: int, stamp: int = 0) -> bytes:
    """An item of a list: a pod as kube-apiserver writes one there, ``POD_BYTES`` long.

    ``stamp`` in nanoseconds of the monotonic clock. In order of their numbers pods are in order of
    their keys, too, as API servers list them.
    """
    namespace = number * NAMESPACES // PODS
    start = (
        b'{"metadata":{"name":"web-%05d","namespace":"team-%02d",'
        b'"uid":"0f8a2b7e-1111-4222-8333-%012d","resourceVersion":"%d",'
        b'"creationTimestamp":"2026-11-23T00:00:00Z",'
        b'"labels":{"app":"app-%02d","tier":"tier-%d"},"annotations":{"changed":"%b%020d"}},'
        b'"spec":{"containers":[{"name":"web","image":"registry.example/web:1.0","env":['
        % (number, namespace, number, revision, number % 40, number % TIERS, STAMP, stamp)
    )
    end = (
        b']}],"restartPolicy":"Always","nodeName":"%b","serviceAccountName":"default"},'
        b'"status":{"phase":"Running","podIP":"10.0.0.1","qosClass":"BestEffort"}}'
        % node(number).encode()
    )
    return start + _variables(POD_BYTES - len(start) - len(end)) + end


def _variables(room: int) -> bytes:
    """Environment variables that fill ``room`` bytes exactly."""
    length = len(_VARIABLE % (0, 0))
    least = len(_LAST_VARIABLE % b"")
    whole = (room - least) // length
    filled = b"".join([_VARIABLE % (at, at) for at in range(whole)])
    return filled + _LAST_VARIABLE % (b"x" * (room - least - len(filled)))


_EVENT_HEAD = b'{"type":"MODIFIED","object":{"kind":"Pod","apiVersion":"v1",'


def event(number: int, revision: int) -> bytes:
    """MODIFIED of pod ``number``, stamped with now, as a line of a watch."""
    return _EVENT_HEAD + pod(number, revision, time.monotonic_ns())[1:] + b"}\n"


def pod_in(change: bytes) -> bytes:
    """The item of a list that an event leads to."""
    return b"{" + change[len(_EVENT_HEAD) : -2]


def listing(revision: int, items: list[bytes]) -> bytes:
    """A PodList."""
    head = b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":['
    return head % revision + b",".join(items) + b"]}\n"


LIST_BYTES = len(listing(FIRST_REVISION, [])) + PODS * (POD_BYTES + 1) - 1


def first_items() -> list[bytes]:
    """All pods as they are before anything changes, each at a revision of its own."""
    return [pod(number, FIRST_REVISION + number) for number in range(PODS)]


def a_list() -> bytes:
    """The list of ``first_items``."""
    return listing(FIRST_REVISION + PODS, first_items())
