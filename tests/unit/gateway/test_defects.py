"""A defect of the guard's own costs one request, says an id and nothing else."""

from __future__ import annotations

import json

import pytest

from apiguard.gateway.decision import Decision
from apiguard.gateway.session import Session
from apiguard.wire.messages import HeaderBlock, RequestLine
from tests.unit.gateway.building import Guard

GET = b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-alice\r\n\r\n"


def test_a_defect_is_answered_by_an_id_that_the_log_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guard = Guard()
    written: list[Exception] = []

    def write_down(defect: Exception) -> str:
        written.append(defect)
        return "c0ffee00"

    def decide(line: RequestLine, block: HeaderBlock, *_: object) -> Decision:
        raise KeyError("token-alice")

    session = Session(guard.gateway, guard.peer, guard.dispatcher, guard.clock, write_down)
    guard.server._handler = session
    monkeypatch.setattr(guard.gateway, "decide", decide)
    guard.send(GET)
    head, _, body = guard.answered.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    status = json.loads(body)
    assert (status["reason"], status["code"]) == ("InternalError", 500)
    assert "c0ffee00" in status["message"]
    assert b"token-alice" not in guard.answered, "a secret of the defect reached the client"
    assert [str(defect) for defect in written] == ["'token-alice'"]
    assert guard.server.should_close
