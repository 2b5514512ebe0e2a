"""Names without end, measured on a fresh process: texts, tables and free lists included.

A short form runs by default: every table is full and turning over well before 200,000 names.
``MANY_NAMES=1000000`` in the environment runs as many as that.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

MANY = """
import random
import sys
import msgspec
from apiguard.telemetry.activity import ActivityRow
from apiguard.telemetry.firstseen import FirstSeen
from apiguard.telemetry.sample import Sample
from apiguard.telemetry.samplering import SampleRing
from apiguard.telemetry.toptalkers import OVER, TopTalkers

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

rng = random.Random(2)
rows_of = msgspec.msgpack.Decoder(tuple[ActivityRow, ...])

def report(count, name_of):
    # Decoded, so that every report has texts of its own, as in life.
    rows = [ActivityRow("agent-" + name, "system:serviceaccount:ns-" + name, name[:15], "get",
                        "pods", 1, 0, rng.randrange(2_000), rng.random() * 0.02)
            for name in map(name_of, range(count))]
    rows.append(ActivityRow("kubectl", "alice", "192.0.2.1", "list", "pods", count // 80, 0,
                            count // 80 * 1_000, count / 80 * 0.01))
    return rows_of.decode(msgspec.msgpack.encode(rows))

def samples_of(rows):
    return [Sample(now, 1.0, "forwarded", 200, "r", "", "get", True, False, "", "pods", "", "ns",
                   "n" * 60, "", 0, "verified", r.user, ("system:authenticated",) * 8,
                   r.user_agent * 8, r.source, "", None) for r in rows]

top, first, ring, now = TopTalkers(), FirstSeen(0.0), SampleRing(rng), 1_000.0
report(2_000, str)
before = resident()
for at in range(40):  # known by the second time
    for _ in range(2):
        first.add(report(1_000, lambda i: f"{at}-{i}"), now)
        now += 2
rounds = int(sys.argv[1]) // 2_000
for at in range(rounds):
    rows = report(2_000, lambda i: f"{rng.randrange(10**15)}-{at}-{i}")
    top.add(rows, now)
    first.add(rows, now)
    ring.add(samples_of(rows[:100]), now)
    now += 0.2
answer = top.top("userAgent,user", "1m", "requests", 1, now)
for at in range(rounds * 3 // 5):  # too many to keep, each too busy to be dropped with its slot
    rows = report(500, lambda i: f"{rng.randrange(10**15)}-{at}-{i}")
    top.add(rows, now)
    now += 2
for over in OVER:
    top.top("user,source", over, "bytes", 20, now)
ring.recent(now)
(talker,) = answer.rows
print(resident() - before, talker.key["user"], talker.sums.requests / answer.totals.requests)
"""


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_many_names_take_little_memory_and_hide_nobody() -> None:
    """Sketches, first sightings and samples together; the worst a flood can do to each."""
    done = subprocess.run(
        [sys.executable, "-c", MANY, os.environ.get("MANY_NAMES", "200000")],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, user, share = done.stdout.split()
    assert int(grown) < 44 << 20
    assert user == "alice"
    assert float(share) == pytest.approx(25 / 2_025, rel=0.1)
