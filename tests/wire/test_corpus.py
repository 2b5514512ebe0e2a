"""Every byte stream of the corpus gets its verdict, however it is cut into reads."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from apiguard.policy.config import RequestBounds
from apiguard.wire.http1 import State
from tests.unit.gateway.building import Guard
from tests.wire.corpus import CUTS, Case, cases, cut
from tests.wire.reading import Accepted, Outcome, Reader, Refused
from tests.wire.reference import read_requests, read_responses

REQUESTS = cases("request")
RESPONSES = cases("response")
AFTER = b"GET /after HTTP/1.1\r\nHost: guard\r\n\r\n"


def _bounds(case: Case) -> RequestBounds:
    return dataclasses.replace(RequestBounds(), **case.verdict.get("bounds", {}))


def _read(case: Case, how: str, then: bytes = b"") -> Reader:
    reader = Reader(_bounds(case))
    for piece in cut(case.data, how):
        reader.server.receive_data(piece)
    if then:
        reader.server.receive_data(then)
    return reader


# --- requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("case", REQUESTS, ids=str)
def test_each_request_gets_its_verdict(case: Case, how: str) -> None:
    reader = _read(case, how)
    expected = [e for e in case.expect if e["verdict"] != "incomplete"]
    assert len(reader.outcomes) == len(expected), reader.outcomes
    for outcome, verdict in zip(reader.outcomes, expected, strict=True):
        _check_request(outcome, verdict, _bounds(case))
    incomplete = len(expected) < len(case.expect)
    assert reader.unfinished == incomplete
    if case.expect[-1].get("close"):
        assert reader.server.should_close
        assert reader.server.state is State.CLOSED


def _check_request(outcome: Outcome, verdict: dict[str, Any], bounds: RequestBounds) -> None:
    if verdict["verdict"] == "refuse":
        assert isinstance(outcome, Refused)
        wanted = (verdict["code"], verdict["reason"], verdict["close"])
        assert (outcome.code, outcome.reason, outcome.close) == wanted
        if "stage" in verdict:
            assert outcome.stage == verdict["stage"]
        return
    assert isinstance(outcome, Accepted)
    line, forward = outcome.line, outcome.forward
    facts = {
        "method": line.method,
        "target": line.target,
        "target_length": len(line.target),
        "body": outcome.body.decode("latin-1"),
        "body_length": len(outcome.body),
        "close": outcome.block.close,
        "upgrade": forward.upgrade.decode("latin-1"),
    }
    for fact in facts.keys() & verdict.keys():
        assert facts[fact] == verdict[fact], fact
    for fact, value in verdict.get("request_info", {}).items():
        assert getattr(forward.info, fact) == value, fact
    (travelling,) = read_requests(line.http1 + outcome.block.forward + b"\r\n")
    _check_fields(travelling.fields, verdict)


def _check_fields(fields: list[tuple[bytes, bytes]], verdict: dict[str, Any]) -> None:
    names = {name.lower().decode("latin-1") for name, _ in fields}
    for name in verdict.get("headers_absent", []):
        assert name.lower() not in names
    for name, value in verdict.get("headers_present", {}).items():
        first = next((v for n, v in fields if n.lower().decode("latin-1") == name), None)
        assert first == value.encode("latin-1")


@pytest.mark.parametrize("case", [c for c in REQUESTS if c.expect[-1].get("close")], ids=str)
def test_nothing_is_read_after_a_refusal_or_request_that_closes(case: Case) -> None:
    reader = _read(case, "whole", then=AFTER)
    assert len(reader.outcomes) == len(case.expect)
    assert not reader.unfinished


def _repeatable(case: Case) -> bool:
    return (
        not case.verdict.get("bounds")
        and len(case.data) < 100_000
        and all(
            e["verdict"] == "accept" and not e.get("close") and not e.get("upgrade")
            for e in case.expect
        )
    )


@pytest.mark.parametrize("seed", range(100))
def test_accepted_requests_in_one_stream_keep_their_verdicts(seed: int) -> None:
    """Pipelining: every request is read as if it came alone, whatever came before it."""
    rng = random.Random(seed)
    chosen = rng.choices([c for c in REQUESTS if _repeatable(c)], k=rng.randint(2, 12))
    together = Case("+".join(c.name for c in chosen), b"".join(c.data for c in chosen), {})
    reader = _read(together, rng.choice(["whole", "random-1", "random-2", "bytewise"]))
    expected = [verdict for case in chosen for verdict in case.expect]
    assert len(reader.outcomes) == len(expected), reader.outcomes
    for outcome, verdict in zip(reader.outcomes, expected, strict=True):
        _check_request(outcome, verdict, RequestBounds())
    assert not reader.unfinished
    answers = read_responses(
        reader.server.data_to_send(),
        *(o.line.method for o in reader.outcomes if isinstance(o, Accepted)),
    )
    assert [a.status for a in answers] == [200] * len(expected)


# --- responses --------------------------------------------------------------------------------


def _request(verdict: dict[str, Any]) -> bytes:
    method, upgrade = verdict["request_method"], verdict.get("request_upgrade")
    head = f"{method} /api/v1/namespaces/d/pods/p HTTP/1.1\r\nHost: guard\r\n"
    if upgrade:
        head += f"Connection: Upgrade\r\nUpgrade: {upgrade}\r\n"
    if not verdict.get("request_complete", True):
        head += "Content-Length: 5\r\n"
    return head.encode() + b"\r\n"


def _answer(case: Case, how: str) -> Guard:
    guard = Guard()
    guard.send(_request(case.verdict))
    for piece in cut(case.data, how):
        guard.upstream.answer(piece)
    if case.verdict["eof"]:
        guard.upstream.codec.receive_eof()
    return guard


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("case", RESPONSES, ids=str)
def test_each_response_gets_its_verdict(case: Case, how: str) -> None:
    (verdict,) = case.expect
    guard = _answer(case, how)
    exchange_over = guard.session.exchange is None
    relayed = guard.answered
    if verdict["verdict"] == "broken":
        _check_broken(guard, relayed)
        return
    assert not guard.server.broken
    if verdict["verdict"] == "incomplete" and not relayed:
        assert not exchange_over
        assert "status" not in verdict
        return
    answers = read_responses(relayed, case.verdict["request_method"])
    if not answers:
        assert verdict["verdict"] == "incomplete"
        return
    (answer,) = answers
    assert answer.status == verdict["status"]
    assert answer.body == verdict["body"].encode("latin-1")
    assert [i.status for i in answer.interim] == verdict.get("interim", [])
    # A body without length is framed by chunks towards the client, whatever framed it before.
    end_to_end = [f for f in answer.fields if f[0] != b"Transfer-Encoding"]
    _check_fields(end_to_end, verdict)
    if verdict["verdict"] == "accept":
        assert answer.ended
        assert exchange_over
        assert guard.upstream.codec.reusable == verdict["reusable"]
        if "declared" in verdict:
            assert answer.get(b"content-length") == b"%d" % verdict["declared"]
    elif verdict["verdict"] == "tunnel":
        assert answer.get(b"upgrade") == verdict["upgrade"].encode()
        assert not guard.upstream.codec.reusable
    else:
        assert not answer.ended
        assert not exchange_over


def _check_broken(guard: Guard, relayed: bytes) -> None:
    """Either nothing of it was relayed, and the guard answers itself, or the answer is aborted."""
    assert guard.session.exchange is None
    assert not guard.upstream.codec.reusable
    assert guard.upstream.codec.should_close
    if not guard.server.broken:
        own = read_responses(relayed, "GET")
        assert all(b'"kind":"Status"' in answer.body for answer in own)
        assert [answer.status for answer in own] in ([503], [504])
