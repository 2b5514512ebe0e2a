"""Answers are whole or they are none."""

from __future__ import annotations

import pytest

from apiguard.ctl.errors import UnreachableError
from apiguard.ctl.guard import said_by
from apiguard.ctl.wire import escaped, parse_reply


def test_an_answer_has_code_headers_and_body() -> None:
    reply = parse_reply(b'HTTP/1.1 201 Created\r\nETag: "3"\r\nContent-Length: 2\r\n\r\n{}')
    assert (reply.code, reply.headers["etag"], reply.body) == (201, '"3"', b"{}")


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        (b"", "not HTTP"),
        (b"\x15\x03\x01\x00\x02", "not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "cut off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}", "cut off"),
    ],
)
def test_anything_less_is_no_answer(received: bytes, reason: str) -> None:
    with pytest.raises(UnreachableError, match=reason):
        parse_reply(received)


def test_nothing_in_a_target_can_end_the_request_line() -> None:
    assert escaped("/a b?c#d\r\né%") == "/a%20b%3Fc%23d%0D%0A%C3%A9%25"


def test_a_refusal_is_one_line_with_its_causes() -> None:
    causes = [{"field": "match.verbs", "message": "is no verb"}, {"message": "second"}]
    status = {"message": "a\nb", "details": {"causes": causes}}
    assert said_by(status) == "match.verbs: is no verb; second"
    assert said_by({"message": "a\n  b"}) == "a b"
