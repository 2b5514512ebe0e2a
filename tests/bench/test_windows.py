"""The benchmark's machinery: what is counted is right, what is wrong is not counted."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apiguard.policy.compile import compile_policy
from loadtests.bench import procfs, traffic
from loadtests.bench.cases.case import Case, Row
from loadtests.bench.certificates import issue
from loadtests.bench.generator.connection import Answers, Connection
from loadtests.bench.generator.spec import WrongAnswerError
from loadtests.bench.generator.streams import Dechunker, EventChecker
from loadtests.bench.interleave import CaseError, Plan, Surroundings, measure
from loadtests.bench.peers.direct import DIRECT
from loadtests.bench.peers.guard import policy
from loadtests.bench.peers.identities import CERTIFICATE, IDENTITY_GUARD, JWT, OPAQUE
from loadtests.bench.peers.python_proxies import FLOOR
from loadtests.bench.processes import Cpus, Fleet, StartError, free_port
from loadtests.bench.profiling import shares


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    return Surroundings(tmp_path, issue(tmp_path / "tls"), Cpus(), lambda _: None)


@pytest.fixture
def connection() -> Iterator[Connection]:
    with socket.socket() as sock:
        yield Connection(sock)


BRIEF = Plan(runs=2, seconds=0.2)


def row(mode: str, kind: str, connections: int = 4) -> Row:
    return Row(FLOOR, mode, kind, connections, warmup=0.1)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("closed", "common"), ("closed", "distinct"), ("watch", "watches"), ("handshakes", "common")],
)
def test_a_window_counts_units_and_cpu_of_the_proxy(
    around: Surroundings, mode: str, kind: str
) -> None:
    case = Case("smoke", "", "unit", (row(mode, kind),))
    (found, again) = measure(case, BRIEF, around)["floor"]
    assert found["units"] > 0
    assert again["cpu_us"] > 0


def test_closed_loops_take_turns_and_each_counts_its_own_answers(around: Surroundings) -> None:
    """The longer window goes on alone; nobody's answers or CPU are charged to the other."""
    rows = (row("closed", "common"), replace(row("closed", "distinct"), label="long", seconds=2.0))
    found = measure(Case("smoke", "", "unit", rows), Plan(1, 0.3), around)
    (brief,), (long,) = found["floor"], found["long"]
    assert 0.3 <= brief["seconds"] < long["seconds"]
    assert long["seconds"] >= 0.6
    assert 0 < brief["cpu_seconds"] < brief["seconds"]
    assert 0 < brief["units"] < long["units"] * 5, "five times headroom: both went on as they could"


def test_lists_arrive_with_the_bytes_they_left_with(around: Surroundings) -> None:
    """The first connection's lists are checksummed; a second is given for one to end."""
    case = Case("smoke", "", "MiB", (row("lists", "lists", 1),), secure=False)
    (found,) = measure(case, Plan(1, 1.0), around)["floor"]
    assert found["units"] > 0


def test_an_open_loop_never_exceeds_its_rate(around: Surroundings) -> None:
    """Both are offered the same; on a busy machine the proxy may take less of it."""
    rows = (row("open", "common"), replace(row("open", "common"), peer=DIRECT))
    case = Case("smoke", "", "request", rows, half_load_of="floor")
    found = measure(case, Plan(1, 0.3), around)
    assert 0 < found["floor"][0]["units"] <= 1.5 * found["direct"][0]["units"]
    assert 0 < found["direct"][0]["p50_ms"] <= found["direct"][0]["p99_ms"]


def test_refusals_are_expected_where_the_traffic_says_so(around: Surroundings) -> None:
    case = Case("smoke", "", "answer", (row("waves", "refused", 8),), secure=False)
    assert measure(case, BRIEF, around)["floor"][0]["units"] == 32


def test_a_proxy_that_answers_otherwise_fails_its_case(around: Surroundings) -> None:
    """Upstream itself refuses nobody: 200 where 429 is expected must not be counted."""
    case = Case("smoke", "", "answer", (replace(row("waves", "refused"), peer=DIRECT),))
    with pytest.raises(CaseError, match="status 200, not 429"):
        measure(case, BRIEF, around)


def test_nothing_is_left_running(around: Surroundings) -> None:
    before = set(procfs.tree(os.getpid()))
    measure(Case("smoke", "", "unit", (row("closed", "common"),)), BRIEF, around)
    assert set(procfs.tree(os.getpid())) <= before


def test_a_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such setting')"]
    with Fleet(tmp_path) as fleet, pytest.raises(StartError, match="no such setting"):
        fleet.start("broken", command, cpus=Cpus().proxy, ports=[free_port()])


def test_cpu_of_a_tree_includes_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\ninput()"
    shell = ["sh", "-c", '"$0" -c "$1" & wait', sys.executable, burn]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, start_new_session=True) as process:
        while procfs.cpu_seconds(process.pid) < 0.1:
            assert process.poll() is None
        assert len(procfs.tree(process.pid)) >= 2


@pytest.mark.parametrize("cut", range(1, 300, 7))
def test_an_answer_in_two_pieces_is_one_answer(connection: Connection, cut: int) -> None:
    answers, whole = Answers(traffic.common()), traffic.object_answer()
    assert not answers.complete(connection, whole[:cut])
    assert answers.complete(connection, whole[cut:])


def test_a_wrong_byte_is_not_counted(connection: Connection) -> None:
    whole = traffic.object_answer()
    with pytest.raises(WrongAnswerError, match="wrong body"):
        Answers(traffic.common()).complete(connection, whole[:-1] + b"!")


def test_surplus_bytes_are_not_counted(connection: Connection) -> None:
    with pytest.raises(WrongAnswerError, match="after the answer"):
        Answers(traffic.common()).complete(connection, traffic.object_answer() + b"x")


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_chunks_are_decoded_however_they_arrive(step: int) -> None:
    stream = traffic.watch_head() + traffic.chunk(b"one") + traffic.chunk(b"two") + b"0\r\n\r\n"
    decoder = Dechunker()
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    assert b"".join(map(decoder.feed, pieces)) == b"onetwo"
    assert decoder.ended


def test_a_missing_event_is_noticed(connection: Connection) -> None:
    checker = EventChecker()
    checker.feed(connection, traffic.watch_head() + traffic.chunk(traffic.event(7)), b"")
    with pytest.raises(WrongAnswerError, match="not event 8"):
        checker.feed(connection, traffic.chunk(traffic.event(9)), b"")


def test_events_and_objects_have_the_size_they_are_named_for() -> None:
    assert len(traffic.an_object()) == traffic.OBJECT_BYTES
    assert len(traffic.a_list()) == traffic.LIST_BYTES
    assert len(traffic.event(1)) == traffic.EVENT_BYTES
    assert traffic.event(1).count(traffic.EVENT_MARK) == 1


def test_distinct_requests_are_distinct() -> None:
    assert len(set(traffic.distinct().requests)) == traffic.DISTINCT


@pytest.mark.parametrize(
    ("bearer", "fields"), [("x.y.z", [b"Authorization: Bearer x.y.z"]), ("", [])]
)
def test_another_caller_sends_the_same_requests(bearer: str, fields: list[bytes]) -> None:
    def split(one: traffic.Traffic) -> tuple[list[bytes], list[bytes]]:
        lines = one.requests[0].split(b"\r\n")
        tokens = [line for line in lines if line.startswith(b"Authorization")]
        return tokens, [line for line in lines if line not in tokens]

    own, theirs = traffic.common(), traffic.common().presenting(bearer)
    assert split(theirs) == (fields, split(own)[1])


def test_callers_are_who_they_should_be_before_they_are_measured(around: Surroundings) -> None:
    """A guard whose callers were mistaken would not start: see ``peers.identities``."""
    rows = tuple(
        Row(IDENTITY_GUARD, label=caller, caller=caller, warmup=0.1, connections=4)
        for caller in (OPAQUE, JWT, CERTIFICATE)
    )
    found = measure(Case("smoke", "", "request", rows), Plan(1, 0.2), around)
    assert all(found[row.name][0]["units"] > 0 for row in rows)


def test_the_shares_of_a_profile_add_up() -> None:
    lines = shares("main;read 1\nmain;write 3\n")
    assert " 75.0%  write" in lines
    assert "100.0%  main" in lines


@pytest.mark.parametrize("rules", [10, 20, 1000])
def test_the_guard_is_measured_with_a_policy_it_accepts(rules: int) -> None:
    assert len(compile_policy(policy(rules)).rules) == rules
