"""Messages between supervisor and workers survive the wire, and nothing else does."""

from __future__ import annotations

import random
import struct

import msgspec
import pytest

from apiguard.limiter.shares import Share
from apiguard.limiter.table import BucketView
from apiguard.runtime.control import (
    ApplyPolicy,
    Command,
    ControlError,
    Done,
    Drain,
    Endpoint,
    EndStreams,
    Event,
    Explain,
    Explained,
    Failed,
    FindStandouts,
    Frames,
    Line,
    Question,
    Ready,
    Report,
    SetEnforcement,
    SetFiles,
    SetOverrides,
    SetShares,
    SetUpstreams,
    Standouts,
    Start,
    Traffic,
    Upstream,
    frame,
    read_command,
    read_event,
)
from apiguard.runtime.files import File
from apiguard.runtime.relayreport import (
    CacheName,
    CacheReport,
    CacheStandouts,
    CacheState,
    Kind,
    RelayReport,
    ReviewReport,
)
from apiguard.runtime.statestore import StoredOverride
from apiguard.telemetry.activity import ActivityRow
from apiguard.telemetry.counters import Counters, RefusalSample

VIEW = BucketView("rule/user", ("alice",), 1.5, 10.0, 1, 2, 3, 9.5, "alice")


OVERRIDE = StoredOverride("a1b2c3d4", "{}", "INC-7", "alice", 1.5, 2.5, 1.0, None)
ROW = ActivityRow("telemetry", "", "::1", "list", "pods", 1, 0, 10, 0.5, 1, 1)

NAME = CacheName("apps", "v1", "deployments", "protobuf")
CACHE = CacheReport(NAME, CacheState.STALE, "upstream", 7, 2, 100, counts={(Kind.LISTS, "any"): 1})


def _delta() -> Counters:
    counters = Counters()
    counters.count("rule", "refused", "list", 429)
    counters.sample(RefusalSample("rule", "l", "list", "/api\x1b", "u", "a/1", "::1", 1))
    counters.guard_seconds.observe(0.1)
    return counters


COMMANDS: list[Command] = [
    Start(
        1, 0, 2, "c", "c.yaml", "p", "p.yaml", 7, "enforce", buckets=(VIEW,), overrides=(OVERRIDE,)
    ),
    ApplyPolicy(1, "text", "name", 2),
    SetEnforcement(2, "shadow"),
    SetOverrides(2, (OVERRIDE,)),
    EndStreams(3, "a1b2c3d4", 10.0),
    SetFiles(3, {"identity.staticTokensFile": File("/tokens.csv", b"t,u,1")}),
    SetUpstreams(4, (Upstream(False, 4, "failing checks: etcd", True),)),
    SetShares(4, (Share("rule/user", ("alice",), 0.25),)),
    Explain(5, Question("GET", "/api", groups=("a",))),
    FindStandouts(6, "apps", "deployments"),
    Drain(1.5, 0.5),
]
EVENTS: list[Event] = [
    Ready("digest"),
    Failed("reason"),
    Done(1, "digest"),
    Explained(2, {"rule": "x", "limits": [1, "a"]}),
    Report(
        _delta().take_delta(),
        (VIEW,),
        Traffic(1, 2, 3, (Endpoint("https://a", "fit"),)),
        activity=(ROW,),
        relay=RelayReport((CACHE,), 3, {(Kind.BYPASSES, "table"): 4}, ReviewReport(1, 25.0)),
    ),
    Standouts(3, (CacheStandouts(NAME, 60.0, ((9_000, "a/x"),), ((12, "a/y"),)),)),
    Line("info", "message", {"a": 1, "b": None}),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: type(c).__name__)
def test_a_command_arrives_as_it_was_sent(command: Command) -> None:
    (body,) = Frames(1 << 20).receive_data(frame(command))
    assert read_command(body) == command


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_an_event_arrives_as_it_was_sent(event: Event) -> None:
    (body,) = Frames(1 << 20).receive_data(frame(event))
    assert read_event(body) == event


@pytest.mark.parametrize("seed", range(8))
def test_frames_are_found_however_the_bytes_are_cut(seed: int) -> None:
    cuts = random.Random(seed)
    stream = b"".join(frame(event) for event in EVENTS)
    frames, found = Frames(1 << 20), []
    while stream:
        size = cuts.randint(1, 40)
        found += frames.receive_data(stream[:size])
        stream = stream[size:]
    assert [read_event(body) for body in found] == EVENTS


def test_a_frame_above_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(ControlError, match="100 are allowed"):
        Frames(100).receive_data(struct.pack(">I", 101))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "unheard-of"}),
        msgspec.msgpack.encode({"type": "done", "id": "one"}),
        msgspec.msgpack.encode({"type": "failed", "reason": "x" * 2_000}),
        msgspec.msgpack.encode({"type": "start"}),
        frame(Ready("d" * 300))[4:],
    ],
)
def test_what_is_no_event_of_the_right_shape_is_refused(body: bytes) -> None:
    with pytest.raises(ControlError):
        read_event(body)
