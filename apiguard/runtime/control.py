"""Messages between supervisor and workers, and their frames.

A worker reads hostile input all day, so what it says is validated on receipt like any input:
typed MessagePack with bounds on every text and frame, never pickle. The supervisor is trusted by
its workers, yet the same codec reads both directions.

A frame is four bytes of big-endian length and one MessagePack value. ``PROTOCOL`` names this
module's shapes: a successor started after the package was upgraded on disk refuses a supervisor
of another version instead of misreading it.

Times are ``CLOCK_MONOTONIC`` seconds, which all processes of one machine share.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final

import msgspec

from apiguard.limiter.shares import Share
from apiguard.limiter.table import BucketView
from apiguard.runtime.files import File
from apiguard.runtime.relayreport import MAX_CACHES, CacheStandouts, RelayReport
from apiguard.runtime.statestore import StoredOverride
from apiguard.telemetry.activity import FOLDED_ROWS, ROWS, ActivityRow
from apiguard.telemetry.counters import Delta
from apiguard.telemetry.sample import ADMITTED_PER_INTERVAL, REFUSED_PER_INTERVAL, Sample

PROTOCOL: Final = 5

MAX_COMMAND: Final = 64 << 20
"""Bytes of one frame to a worker: a full bucket table with long keys fits ``Start``."""

MAX_REPORT: Final = 16 << 20
"""Bytes of one frame from a worker."""

BUCKETS_PER_REPORT: Final = 4_000
"""Changed buckets one report carries: a full table is mirrored within five reports."""

MAX_TEXT: Final = 1_024
MAX_ROWS: Final = ROWS + FOLDED_ROWS
MAX_SAMPLES: Final = ADMITTED_PER_INTERVAL + REFUSED_PER_INTERVAL

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Endpoint(msgspec.Struct, frozen=True, array_like=True):
    """One upstream server as a worker sees it; ``open`` is requests under way on it."""

    server: Text
    state: Name
    open: Count = 0
    detail: Text = ""


class Upstream(msgspec.Struct, frozen=True, array_like=True):
    """What probes and operator say of one upstream server; see ``upstream.health.Verdict``."""

    fit: bool
    condition: int
    detail: Text = ""
    drained: bool = False


class Traffic(msgspec.Struct, frozen=True, array_like=True):
    """What a worker holds open."""

    connections: Count = 0
    exchanges: Count = 0
    watches: Count = 0
    endpoints: Annotated[tuple[Endpoint, ...], msgspec.Meta(max_length=64)] = ()


class Question(msgspec.Struct, frozen=True):
    """A request to explain: what a client would send, and who it would be.

    ``user`` with ``groups`` is a verified identity; without a user the caller is anonymous, or
    one whose token nobody could verify when ``unverified``.
    """

    method: Name
    target: Annotated[str, msgspec.Meta(max_length=65_536)]
    user_agent: Text = ""
    user: Text = ""
    groups: Annotated[tuple[Text, ...], msgspec.Meta(max_length=256)] = ()
    source: Name = "127.0.0.1"
    unverified: bool = False


# Supervisor to worker.


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Everything a worker needs to serve; the first message it gets.

    ``first_start`` says that this machine never ran the guard before: buckets begin full.
    Otherwise an unknown bucket begins with what one second refills, and goes on refilling since
    ``guard_started``. ``buckets`` and ``shares`` are what the predecessor had. ``files`` are the
    contents of configured files, ``upstreams`` one entry per configured server, in order.
    """

    protocol: int
    worker: int
    workers: int
    config: str
    config_name: str
    policy: str
    policy_name: str
    generation: int
    enforcement: str
    files: dict[str, File] = {}
    upstreams: tuple[Upstream, ...] = ()
    first_start: bool = False
    guard_started: float = 0.0
    buckets: tuple[BucketView, ...] = ()
    shares: tuple[Share, ...] = ()
    overrides: tuple[StoredOverride, ...] = ()


class ApplyPolicy(msgspec.Struct, frozen=True, tag="policy"):
    """Judge new requests by this policy; answered by ``Done`` carrying its digest."""

    id: int
    text: str
    name: str
    generation: int


class SetEnforcement(msgspec.Struct, frozen=True, tag="enforcement"):
    """Answered by ``Done``."""

    id: int
    enforcement: str


class SetOverrides(msgspec.Struct, frozen=True, tag="overrides"):
    """These overrides are in force, in the order they were added; answered by ``Done``."""

    id: int
    overrides: tuple[StoredOverride, ...]


class EndStreams(msgspec.Struct, frozen=True, tag="end-streams"):
    """End what the override with id ``override`` matches of open watches, streams and tunnels,
    spread over ``seconds``; answered by ``Done`` when that has begun."""

    id: int
    override: str
    seconds: float


class SetFiles(msgspec.Struct, frozen=True, tag="files"):
    """These files have new content; answered by ``Done``."""

    id: int
    files: dict[str, File]


class SetUpstreams(msgspec.Struct, frozen=True, tag="upstreams"):
    """What is now known of every upstream server, in order; answered by ``Done``."""

    id: int
    upstreams: tuple[Upstream, ...]


class SetShares(msgspec.Struct, frozen=True, tag="shares"):
    """This worker's parts of budgets, from now on; answered by ``Done``."""

    id: int
    shares: tuple[Share, ...]


class Explain(msgspec.Struct, frozen=True, tag="explain"):
    """Answered by ``Explained``."""

    id: int
    question: Question


class FindStandouts(msgspec.Struct, frozen=True, tag="find-standouts"):
    """Asks for the objects that stand out in the relay's caches of one resource; answered by
    ``Standouts``."""

    id: int
    group: Name
    resource: Name


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Stop accepting, finish within ``seconds``, then exit with code 0; watches are ended over
    ``watch_seconds``."""

    seconds: float
    watch_seconds: float


# Worker to supervisor.


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker accepts connections under this policy digest."""

    digest: Name


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker cannot serve and exits; the reason is one line for the operator."""

    reason: Text


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Answer to the command ``id``; ``problem`` is "" when it was carried out."""

    id: int
    digest: Name = ""
    problem: Text = ""


class Explained(msgspec.Struct, frozen=True, tag="explained"):
    """``answer`` is the explanation as plain values, None with a ``problem``."""

    id: int
    answer: dict[str, object] | None = None
    problem: Text = ""


class Standouts(msgspec.Struct, frozen=True, tag="standouts"):
    """Answer to ``FindStandouts``; ``problem`` is "" when all of it is there."""

    id: int
    caches: Annotated[tuple[CacheStandouts, ...], msgspec.Meta(max_length=MAX_CACHES)] = ()
    problem: Text = ""


class Report(msgspec.Struct, frozen=True, tag="report"):
    """Sent every 200 ms: the worker's sign of life and everything admin answers from.

    ``loop_lag`` is by how many seconds the report came late, ``resident`` is bytes, ``cpu`` the
    process' CPU seconds so far, ``remembered`` the number of buckets in the worker's table.
    ``activity`` is who asked for what since the last report, ``samples`` some of the requests.
    ``memory_limit`` is bytes, 0 for none; ``memory_level`` as in ``gateway.pressure.Level``.
    """

    delta: Delta
    buckets: tuple[BucketView, ...]
    traffic: Traffic
    loop_lag: float = 0.0
    resident: Count = 0
    cpu: float = 0.0
    remembered: Count = 0
    activity: Annotated[tuple[ActivityRow, ...], msgspec.Meta(max_length=MAX_ROWS)] = ()
    samples: Annotated[tuple[Sample, ...], msgspec.Meta(max_length=MAX_SAMPLES)] = ()
    relay: RelayReport | None = None
    memory_limit: Count = 0
    memory_level: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0


class Line(msgspec.Struct, frozen=True, tag="line"):
    """A line for the log, written by the supervisor so that one process owns stderr."""

    level: Name
    message: Text
    fields: dict[Name, str | int | float | bool | None]


Command = (
    Start
    | ApplyPolicy
    | SetEnforcement
    | SetOverrides
    | EndStreams
    | SetFiles
    | SetUpstreams
    | SetShares
    | Explain
    | FindStandouts
    | Drain
)
Event = Ready | Failed | Done | Explained | Standouts | Report | Line
Answer = Done | Explained | Standouts

_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


class ControlError(ValueError):
    """The other process sent something that is no message; the channel cannot be used again."""


def frame(message: Command | Event) -> bytes:
    """``message`` with its length in front."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts received bytes into frames; holds at most one unfinished frame of ``limit`` bytes."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def receive_data(self, data: bytes) -> list[bytes]:
        """Every frame now complete, without its length. Raises ControlError above the limit."""
        self._buffer += data
        complete = []
        begin = 0
        while len(self._buffer) - begin >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, begin)
            if length > self._limit:
                raise ControlError(f"frame of {length} bytes where {self._limit} are allowed")
            end = begin + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            complete.append(bytes(self._buffer[begin + _LENGTH.size : end]))
            begin = end
        del self._buffer[:begin]
        return complete


def read_command(body: bytes) -> Command:
    """Raises ControlError when ``body`` is no command."""
    try:
        return _commands.decode(body)
    except msgspec.MsgspecError as error:
        raise ControlError(str(error)) from error


def read_event(body: bytes) -> Event:
    """Raises ControlError when ``body`` is no event."""
    try:
        return _events.decode(body)
    except msgspec.MsgspecError as error:
        raise ControlError(str(error)) from error
