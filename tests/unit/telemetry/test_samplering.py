"""The last minutes in bounded memory: thinned evenly, and honest about it."""

from __future__ import annotations

import random

import msgspec
import pytest

from apiguard.telemetry.sample import GROUPS, LONGEST_GROUP, Sample
from apiguard.telemetry.samplering import SampleRing


def sample(at: float, decision: str = "forwarded", weight: float = 3.0, **more: object) -> Sample:
    plain = Sample(
        at, weight, decision, 200, "r", "", "list", True, False, "", "pods", "", "ns", "", "", 0,
        "verified", "alice", ("devs",), "kubectl/v1.36", "192.0.2.1", "", None,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **more)


def filled(duration: int, per_report: int, **bounds: float) -> SampleRing:
    ring = SampleRing(random.Random(4), **bounds)  # type: ignore[arg-type]  # ints and floats as named
    for report in range(duration * 5):
        now = report / 5
        half = per_report // 2
        ring.add([sample(now)] * half + [sample(now, "refused", 9.0)] * (per_report - half), now)
    return ring


def test_samples_come_back_as_they_were_in_order_of_time() -> None:
    ring = SampleRing(random.Random(1))
    ring.add([sample(7.2), sample(7.1)], 7.3)
    ring.add([sample(7.0)], 7.4)
    recent = ring.recent(8.0)
    assert recent.samples == (sample(7.0), sample(7.1), sample(7.2))
    assert (recent.represented, recent.since, recent.thinned) == (9.0, 7.3, 1)
    assert "10 admitted and 10 refused" in recent.how


def test_a_full_ring_stands_for_as_many_requests_of_each_kind_and_second_as_came() -> None:
    ring = filled(60, 100, most=4_000)
    recent = ring.recent(60.0)
    assert 2_000 < len(ring) == len(recent.samples) <= 4_000
    assert recent.thinned >= 8
    assert "one in" in recent.how
    admitted = sum(s.weight for s in recent.samples if s.admitted)
    refused = sum(s.weight for s in recent.samples if not s.admitted)
    assert admitted == pytest.approx(60 * 5 * 50 * 3, rel=0.03)
    assert refused == pytest.approx(60 * 5 * 50 * 9, rel=0.03)
    early = sum(s.weight for s in recent.samples if s.at < 30)
    assert early == pytest.approx(recent.represented / 2, rel=0.03)


def test_a_quiet_second_among_busy_ones_stays_whole() -> None:
    ring = SampleRing(random.Random(4), most=500)
    ring.add([sample(0.0)] * 5, 0.0)
    for second in range(1, 20):
        ring.add([sample(float(second))] * 200, float(second))
    assert [s.weight for s in ring.recent(20.0).samples if s.at == 0.0] == [3.0] * 5


def test_hostile_samples_are_bounded_by_bytes_too() -> None:
    fat = sample(0.0, groups=("g" * LONGEST_GROUP,) * GROUPS, name="n" * 256)
    represented = []
    for seed in range(20):
        ring = SampleRing(random.Random(seed), most_bytes=1 << 20)
        for report in range(100):
            ring.add([fat] * 20, report / 5)
        recent = ring.recent(20.0)
        assert sum(len(msgspec.msgpack.encode(s)) for s in recent.samples) <= 1 << 20
        represented.append(recent.represented)
    assert sum(represented) / 20 == pytest.approx(100 * 20 * 3, rel=0.05)


def test_what_is_older_than_asked_for_is_left_out_and_at_last_forgotten() -> None:
    ring = filled(20, 10, seconds=10.0)
    assert len(ring) <= 11 * 50
    assert min(s.at for s in ring.recent(20.0, 5.0).samples) >= 15
    ring.add([], 100.0)
    assert len(ring) == 0
    assert ring.recent(100.0).samples == ()
