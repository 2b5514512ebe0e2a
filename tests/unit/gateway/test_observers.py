"""Every request is told of once, with its bytes and time; a stream as it goes."""

from __future__ import annotations

import random

import pytest

from apiguard.gateway.exchange import CREDIT_SECONDS, SLOW_SECONDS
from apiguard.gateway.observers import Observers
from apiguard.telemetry.activity import Activity, ActivityRow
from apiguard.telemetry.sample import Sample, Sampler
from tests.unit.gateway.building import Guard, gateway_of
from tests.unit.gateway.test_session import BANNED, OK, head

WATCH = b"/api/v1/pods?watch=true"
CHUNKED = b"HTTP/1.1 200 OK\r\nAudit-Id: a-1\r\nTransfer-Encoding: chunked\r\n\r\n"
ALICE = b"Authorization: Bearer token-alice"


class Observed(Guard):
    """A guard whose observers can be asked what they were told."""

    def __init__(self, *, activity: bool = True, sampler: bool = True, held: bool = False) -> None:
        self.activity = Activity()
        self.sampler = Sampler(random.Random(1))
        gateway = gateway_of(BANNED)
        gateway.observers = Observers(
            self.activity if activity else None, self.sampler if sampler else None
        )
        super().__init__(gateway, held=held)

    def row(self) -> ActivityRow:
        (row,) = self.activity.take()
        return row

    def sample(self) -> Sample:
        (sample,) = self.sampler.take()
        return sample


def test_an_answered_request_is_told_of_with_its_bytes_and_time() -> None:
    guard = Observed(held=True)
    guard.send(head(b"GET", ALICE, b"User-Agent: agent/1"))
    guard.clock.now += 0.5
    upstream = guard.dispatcher.assign()
    guard.clock.now += 0.25
    upstream.answer(CHUNKED + b"5\r\nhello\r\n")
    assert guard.activity.take() == ()
    guard.clock.now += 1.0
    upstream.answer(b"3\r\nyou\r\n0\r\n\r\n")
    assert guard.row() == ActivityRow(
        "agent", "alice", guard.peer.source, "list", "pods", 1, 0, 8, 1.25, 1, 1
    )
    sample = guard.sample()
    assert (sample.decision, sample.code, sample.bytes_out) == ("forwarded", 200, 8)
    assert (sample.guard_seconds, sample.upstream_seconds) == (0.5, 1.25)
    assert (sample.audit_id, sample.user, sample.groups[0]) == ("a-1", "alice", "devs")


def test_a_refused_request_is_told_of_with_the_limit_that_refused_it() -> None:
    guard = Observed()
    guard.send(head(b"GET", b"User-Agent: bad/1", ALICE))
    row, sample = guard.row(), guard.sample()
    assert (row.user_agent, row.user, row.requests, row.refused) == ("bad", "alice", 1, 1)
    assert (sample.decision, sample.code, sample.rule) == ("refused", 429, "banned")
    assert sample.limit.startswith("banned/")


def test_what_a_shadow_rule_would_refuse_is_told_of_as_admitted() -> None:
    guard = Observed()
    guard.send(head(b"GET", b"User-Agent: shadow/1"))
    guard.upstream.answer(OK)
    assert (guard.row().refused, guard.sample().decision) == (0, "would_refuse")


def test_a_watch_is_told_of_when_it_begins_and_its_bytes_as_they_come() -> None:
    guard = Observed()
    guard.send(head(b"GET", ALICE, target=WATCH))
    guard.clock.now += 0.25
    guard.upstream.answer(CHUNKED)
    row = guard.row()
    assert (row.verb, row.requests, row.bytes_out, row.upstream_seconds) == ("watch", 1, 0, 0.25)
    assert guard.sample().long_running
    exchange = guard.session.exchange
    assert exchange is not None
    guard.upstream.answer(b"5\r\nhello\r\n")
    exchange.credit(guard.clock.now + CREDIT_SECONDS - 0.1)
    assert guard.activity.take() == (), "not due"
    exchange.credit(guard.clock.now + CREDIT_SECONDS)
    row = guard.row()
    assert (row.requests, row.bytes_out, row.upstream_seconds) == (0, 5, 0.0)
    exchange.credit(guard.clock.now + 2 * CREDIT_SECONDS)
    assert guard.activity.take() == (), "nothing new"
    guard.clock.now += 3_600
    guard.upstream.answer(b"3\r\nyou\r\n0\r\n\r\n")
    row = guard.row()
    assert (row.requests, row.bytes_out, row.upstream_seconds) == (0, 3, 0.0)
    assert guard.sampler.take() == ()


def test_the_end_of_a_cut_watch_is_credited_too() -> None:
    guard = Observed()
    guard.send(head(b"GET", ALICE, target=WATCH))
    guard.upstream.answer(CHUNKED + b"5\r\nhello\r\n")
    guard.server.receive_eof()
    row = guard.row()
    assert (row.requests, row.bytes_out) == (1, 5)


def test_bytes_of_a_tunnel_are_counted() -> None:
    guard = Observed()
    upgrade = (b"Connection: Upgrade", b"Upgrade: SPDY/3.1")
    guard.send(head(b"POST", ALICE, *upgrade, target=b"/api/v1/namespaces/a/pods/b/exec"))
    guard.upstream.answer(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    )
    guard.upstream.answer(b"0123456789")
    guard.server.receive_eof()
    row = guard.row()
    assert (row.resource, row.requests, row.bytes_out) == ("pods/exec", 1, 10)


def test_a_slow_list_is_told_of_before_it_ends_and_counted_once() -> None:
    guard = Observed(held=True)
    guard.send(head(b"GET", ALICE))
    exchange = guard.session.exchange
    assert exchange is not None
    exchange.credit(guard.clock.now + SLOW_SECONDS - 0.1)
    assert guard.activity.take() == (), "not yet slow"
    guard.clock.now += SLOW_SECONDS
    exchange.credit(guard.clock.now)
    row = guard.row()
    assert (row.requests, row.upstream_seconds) == (1, 0.0), "it waits for a connection"
    guard.clock.now += 3
    upstream = guard.dispatcher.assign()
    guard.clock.now += CREDIT_SECONDS
    exchange.credit(guard.clock.now)
    row = guard.row()
    assert (row.requests, row.upstream_seconds) == (0, CREDIT_SECONDS)
    assert guard.sampler.take() == (), "its code is not known yet"
    guard.clock.now += 1.5
    upstream.answer(OK)
    row, sample = guard.row(), guard.sample()
    assert (row.requests, row.upstream_seconds) == (0, 1.5)
    assert row.bytes_out == sample.bytes_out > 0
    assert (sample.code, sample.upstream_seconds) == (200, CREDIT_SECONDS + 1.5)


def test_a_slow_watch_is_counted_once_and_sampled_at_its_end() -> None:
    guard = Observed()
    guard.send(head(b"GET", ALICE, target=WATCH))
    exchange = guard.session.exchange
    assert exchange is not None
    guard.clock.now += SLOW_SECONDS
    exchange.credit(guard.clock.now)
    guard.upstream.answer(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")
    row = guard.row()
    assert (row.requests, row.bytes_out) == (1, 5)
    assert guard.sample().code == 200


def test_a_request_nobody_answered_costs_upstream_the_time_it_waited() -> None:
    guard = Observed()
    guard.send(head(b"GET", ALICE))
    guard.clock.now += 60
    exchange = guard.session.exchange
    assert exchange is not None
    exchange.silent()
    sample = guard.sample()
    assert (guard.row().upstream_seconds, sample.decision) == (60, "failed")
    assert (sample.code, sample.audit_id) == (504, "")


def test_a_request_that_got_no_connection_cost_upstream_nothing() -> None:
    guard = Observed(held=True)
    guard.send(head(b"GET", ALICE))
    guard.clock.now += 5
    guard.server.receive_eof()
    row, sample = guard.row(), guard.sample()
    assert (row.requests, row.upstream_seconds, sample.code) == (1, 0.0, 0)


def test_what_is_no_request_is_nobodys() -> None:
    guard = Observed()
    guard.send(head(b"GET", target=b"/api/v1/pods%2"))
    guard.send(b"nonsense\r\n\r\n")
    assert guard.activity.take() == ()
    assert guard.sampler.take() == ()


@pytest.mark.parametrize(("activity", "sampler"), [(True, False), (False, True), (False, False)])
def test_either_may_be_absent(activity: bool, sampler: bool) -> None:
    guard = Observed(activity=activity, sampler=sampler)
    guard.send(head(b"GET", b"User-Agent: bad/1"), head(b"GET", ALICE))
    guard.upstream.answer(OK)
    guard.send(head(b"GET", ALICE, target=WATCH))
    guard.upstream.answer(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")
    assert sum(row.requests for row in guard.activity.take()) == (3 if activity else 0)
    assert len(guard.sampler.take()) == (3 if sampler else 0)


def test_every_request_is_told_of_once() -> None:
    guard = Observed()
    for i in range(500):
        agent = b"User-Agent: " + (b"bad/1" if i % 3 else b"good/1")
        guard.send(head(b"GET", agent, ALICE))
        if not i % 3:
            guard.upstream.answer(OK)
        else:
            guard.session.quiet_until = 0.0
            guard.server.release_requests()
    assert sum(row.requests for row in guard.activity.take()) == 500
    samples = guard.sampler.take()
    assert sum(s.weight for s in samples) == pytest.approx(500)
    assert sum(s.weight for s in samples if s.admitted) == pytest.approx(167)
