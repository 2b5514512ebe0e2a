"""One request from a client to upstream and back, over two in-memory connections."""

from __future__ import annotations

import pytest

from apiguard.gateway import replies
from apiguard.gateway.gateway import Gateway
from apiguard.wire.http1 import State
from apiguard.wire.http1_client import Http1Client
from apiguard.wire.http1_server import SKIP_LIMIT, Http1Server
from tests.unit.gateway.building import Guard, gateway_of
from tests.wire.reference import Message, read_requests, read_responses

PODS = b"/api/v1/namespaces/default/pods"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def head(method: bytes, target: bytes = PODS, *lines: bytes) -> bytes:
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: guard", *lines, b"", b""])


def upgrade(protocol: bytes, method: bytes = b"GET") -> bytes:
    target = PODS + b"/p/exec?command=sh"
    return head(method, target, b"Connection: Upgrade", b"Upgrade: " + protocol)


def sent(guard: Guard) -> Message:
    """The one request on the latest upstream connection."""
    (request,) = read_requests(guard.upstream.sent)
    return request


def answer(guard: Guard, method: str = "GET") -> Message:
    """The one answer the client has."""
    (got,) = read_responses(guard.answered, method)
    return got


def held_back(codec: Http1Server | Http1Client) -> bool:
    return codec.reading_paused


def gateway_code(gateway: Gateway) -> list[tuple[str, int]]:
    """(decision, code) of every request counted so far."""
    return [(key[1], key[3]) for key, n in gateway.counters.requests.items() for _ in range(n)]


# --- ordinary requests ------------------------------------------------------------------------


def test_a_get_goes_up_as_it_came_and_its_answer_comes_down() -> None:
    guard = Guard()
    target = PODS + b"?limit=500&labelSelector=a%3Db"
    guard.send(head(b"GET", target, b"Accept: application/json"))
    request = sent(guard)
    assert request.first == b"GET " + target + b" HTTP/1.1"
    assert request.get(b"accept") == b"application/json"
    guard.upstream.answer(OK)
    assert (answer(guard).status, answer(guard).body) == (200, b"ok")
    assert guard.upstream.codec.reusable
    assert guard.upstream.released == 1
    assert guard.server.state is State.HEAD
    assert gateway_code(guard.gateway) == [("forwarded", 200)]


@pytest.mark.parametrize("held", [False, True], ids=["connected", "connecting"])
def test_a_body_of_known_length_goes_up_with_its_length(held: bool) -> None:
    guard = Guard(held=held)
    guard.send(head(b"POST", PODS, b"Content-Length: 6"), b"abc")
    if held:
        assert held_back(guard.server)
        guard.dispatcher.assign()
        assert not held_back(guard.server)
    guard.send(b"def")
    request = sent(guard)
    assert request.values(b"content-length") == [b"6"]
    assert not request.values(b"transfer-encoding")
    assert (request.body, request.ended) == (b"abcdef", True)
    guard.upstream.answer(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    assert answer(guard, "POST").status == 201
    assert guard.upstream.codec.reusable


@pytest.mark.parametrize("held", [False, True], ids=["connected", "connecting"])
def test_a_chunked_body_goes_up_in_chunks_of_our_own(held: bool) -> None:
    guard = Guard(held=held)
    guard.send(
        head(b"POST", PODS, b"Transfer-Encoding: chunked"),
        b"3;x=y\r\nabc\r\n",
        b"3\r\ndef\r\n0\r\nX-Remote-User: admin\r\n\r\n",
    )
    if held:
        guard.dispatcher.assign()
    request = sent(guard)
    assert request.values(b"transfer-encoding") == [b"chunked"]
    assert not request.values(b"content-length")
    assert (request.body, request.ended) == (b"abcdef", True)
    assert b"x=y" not in guard.upstream.sent
    assert b"admin" not in guard.upstream.sent


def test_content_length_zero_is_forwarded() -> None:
    guard = Guard()
    guard.send(head(b"POST", PODS, b"Content-Length: 0"))
    assert sent(guard).values(b"content-length") == [b"0"]


def test_a_client_gone_while_its_request_waits_for_a_connection_withdraws_it() -> None:
    guard = Guard(held=True)
    guard.send(head(b"GET"))
    guard.server.receive_eof()
    assert len(guard.dispatcher.withdrawn) == 1
    assert not guard.dispatcher.waiting


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 300", b"Transfer-Encoding: chunked", b"X-None: 1"]
)
def test_the_answer_to_head_has_no_body_whatever_it_declares(framing: bytes) -> None:
    guard = Guard()
    guard.send(head(b"HEAD"))
    guard.upstream.answer(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    assert answer(guard, "HEAD").body == b""
    guard.send(head(b"GET"))
    guard.upstream.answer(OK)
    assert [a.body for a in read_responses(guard.answered, "HEAD", "GET")] == [b"", b"ok"]


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 5\r\n"])
def test_204_and_304_have_no_body(status: bytes, length: bytes) -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    guard.upstream.answer(b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n")
    assert answer(guard).body == b""
    assert guard.upstream.codec.reusable


def test_interim_answers_are_relayed_before_the_final_one() -> None:
    guard = Guard()
    guard.send(head(b"POST", PODS, b"Content-Length: 2", b"Expect: 100-continue"))
    assert sent(guard).get(b"expect") == b"100-continue"
    guard.upstream.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert guard.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    guard.send(b"{}")
    guard.upstream.answer(OK)
    assert [i.status for i in answer(guard, "POST").interim] == [100]
    assert guard.server.state is State.HEAD


def test_each_piece_of_a_stream_goes_down_when_it_comes() -> None:
    guard = Guard()
    guard.send(head(b"GET", PODS + b"?watch=true"))
    guard.upstream.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert b"200 OK" in guard.take()
    for event in (b'{"type":"ADDED"}\n', b'{"type":"DELETED"}\n'):
        guard.upstream.answer(b"%x\r\n%b\r\n" % (len(event), event))
        assert guard.touch.pending
        assert event in guard.take()


def test_a_body_that_ends_with_its_connection_reaches_the_client_in_chunks() -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    guard.upstream.answer(b"HTTP/1.1 200 OK\r\n\r\nabc")
    guard.upstream.codec.receive_eof()
    assert (answer(guard).body, answer(guard).ended) == (b"abc", True)
    assert answer(guard).values(b"transfer-encoding") == [b"chunked"]
    assert not guard.upstream.codec.reusable


def test_a_request_that_asks_to_close_is_the_last_though_upstream_stays() -> None:
    guard = Guard()
    guard.send(head(b"GET", PODS, b"Connection: close"), head(b"GET"))
    guard.upstream.answer(OK)
    assert answer(guard).values(b"connection") == [b"close"]
    assert guard.server.should_close
    assert len(guard.dispatcher.connections) == 1
    assert guard.upstream.codec.reusable
    assert not sent(guard).values(b"connection")


# --- what upstream receives -------------------------------------------------------------------


def test_upstream_receives_exactly_these_fields() -> None:
    guard = Guard()
    guard.send(
        head(
            b"PATCH",
            PODS + b"/p",
            b"User-Agent: kubectl/v1.36",
            b"Authorization: Bearer token-alice",
            b"Accept: application/json",
            b"Accept: */*",
            b"Impersonate-User: bob",
            b"Impersonate-Extra-some_key: v",
            b"X-Forwarded-For: 203.0.113.1",
            b"X-Forwarded-Host: elsewhere",
            b"Forwarded: for=203.0.113.1",
            b"X-Real-Ip: 203.0.113.1",
            b"X-Remote-User: admin",
            b"x-remote-GROUP: system:masters",
            b"X-Remote-Extra-Scopes: all",
            b"X-Remote-Uid: 0",
            b"Connection: keep-alive, X-Named",
            b"Keep-Alive: timeout=5",
            b"X-Named: gone",
            b"TE: trailers",
            b"Trailer: X-Remote-User",
            b"Proxy-Authorization: Basic x",
            b"Proxy-Connection: keep-alive",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQAAP__",
            b"Content-Type: application/json",
            b"Content-Length: 2",
        ),
        b"{}",
    )
    assert sorted(sent(guard).fields) == sorted(
        [
            (b"Host", b"guard"),
            (b"User-Agent", b"kubectl/v1.36"),
            (b"Authorization", b"Bearer token-alice"),
            (b"Accept", b"application/json"),
            (b"Accept", b"*/*"),
            (b"Impersonate-User", b"bob"),
            (b"Impersonate-Extra-some_key", b"v"),
            (b"Content-Type", b"application/json"),
            (b"X-Forwarded-For", b"192.0.2.7"),
            (b"Content-Length", b"2"),
        ]
    )


# --- answers before the request is complete ---------------------------------------------------


def test_an_early_answer_keeps_the_client_and_costs_the_upstream_connection() -> None:
    guard = Guard()
    guard.send(head(b"POST", PODS, b"Content-Length: 10"), b"abc")
    guard.upstream.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert answer(guard, "POST").status == 413
    assert not guard.upstream.codec.reusable
    assert guard.upstream.codec.should_close
    guard.send(b"defghij", head(b"GET"))
    guard.upstream.answer(OK)
    assert [a.status for a in read_responses(guard.answered, "POST", "GET")] == [413, 200]


def test_an_early_answer_closes_a_client_that_still_owes_much() -> None:
    guard = Guard()
    guard.send(head(b"POST", PODS, b"Content-Length: %d" % (SKIP_LIMIT + 4)), b"abc")
    guard.upstream.answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    assert answer(guard, "POST").status == 403
    assert guard.server.should_close
    assert guard.server.linger


def test_an_early_answer_to_a_client_waiting_to_continue_ends_the_connection() -> None:
    """It may send the body now or the next request: nobody can tell them apart."""
    guard = Guard()
    guard.send(head(b"POST", PODS, b"Content-Length: 10", b"Expect: 100-continue"))
    guard.upstream.answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    assert answer(guard, "POST").values(b"connection") == [b"close"]
    assert guard.server.should_close


def test_an_early_answer_resumes_a_body_that_was_held_back() -> None:
    """Or the rest of it would never be read, nor any later request."""
    guard = Guard()
    guard.send(head(b"POST", PODS, b"Content-Length: 10"), b"abc")
    guard.upstream.codec.set_writable(False)
    assert held_back(guard.server)
    guard.upstream.answer(b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")
    assert not held_back(guard.server)


def test_a_refusal_resumes_a_body_that_waited_for_a_connection() -> None:
    guard = Guard(held=True)
    guard.send(head(b"POST", PODS, b"Content-Length: 10"), b"abc")
    assert held_back(guard.server)
    guard.dispatcher.waiting[0].refused(replies.UNAVAILABLE)
    assert answer(guard, "POST").status == 503
    assert not held_back(guard.server)
    guard.send(b"defghij", head(b"GET"))
    guard.dispatcher.assign()
    guard.upstream.answer(OK)
    assert [a.status for a in read_responses(guard.answered, "POST", "GET")] == [503, 200]


# --- upgrades ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "method"), [(b"websocket", b"GET"), (b"SPDY/3.1", b"POST"), (b"SPDY/3.1", b"GET")]
)
def test_after_upstreams_101_bytes_pass_unread_both_ways(protocol: bytes, method: bytes) -> None:
    guard = Guard()
    guard.send(upgrade(protocol, method))
    request = sent(guard)
    assert (request.get(b"connection"), request.get(b"upgrade")) == (b"Upgrade", protocol)
    before = len(guard.upstream.sent)
    guard.send(b"GET /early HTTP/1.1\r\n\r\n")
    assert len(guard.upstream.sent) == before, "held until the 101"
    guard.upstream.answer(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
        + protocol
        + b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    )
    guard.send(b"\x00later")
    assert guard.upstream.sent[before:] == b"GET /early HTTP/1.1\r\n\r\n\x00later"
    tunnel = answer(guard)
    assert (tunnel.get(b"connection"), tunnel.get(b"upgrade")) == (b"Upgrade", protocol)
    assert tunnel.body == b"HTTP/1.1 200 OK\r\n\r\n"
    assert len(guard.dispatcher.connections) == 1


def tunnel_through(guard: Guard) -> None:
    guard.send(upgrade(b"websocket"))
    guard.upstream.answer(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )


def test_a_tunnel_whose_upstream_ends_closes_the_client() -> None:
    guard = Guard()
    tunnel_through(guard)
    guard.take()
    guard.upstream.codec.receive_eof()
    assert guard.server.should_close
    assert guard.touch.pending, "or nobody would look at the wish"
    assert not guard.server.broken
    assert not guard.upstream.codec.reusable


def test_a_tunnel_whose_client_leaves_closes_upstream() -> None:
    guard = Guard()
    tunnel_through(guard)
    guard.server.receive_eof()
    assert guard.upstream.codec.should_close
    assert guard.session.exchange is None
    assert gateway_code(guard.gateway) == [("forwarded", 101)]


def test_a_tunnel_to_a_client_that_is_full_already_does_not_fill_up() -> None:
    guard = Guard()
    guard.send(upgrade(b"websocket"))
    guard.server.writable = False
    guard.upstream.answer(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert held_back(guard.upstream.codec)


def test_an_answer_other_than_101_is_relayed_and_both_sides_close() -> None:
    guard = Guard()
    guard.send(upgrade(b"SPDY/3.1", b"POST"), b"early")
    guard.upstream.answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    assert (answer(guard, "POST").status, answer(guard, "POST").body) == (403, b"no")
    assert answer(guard, "POST").values(b"connection") == [b"close"]
    assert guard.server.should_close
    assert guard.upstream.codec.should_close
    assert b"early" not in guard.upstream.sent


# --- flow -------------------------------------------------------------------------------------


def test_a_full_upstream_holds_the_body_back_and_an_emptied_one_lets_it_go() -> None:
    guard = Guard()
    guard.send(head(b"POST", PODS, b"Content-Length: 10"), b"abc")
    guard.upstream.codec.set_writable(False)
    assert held_back(guard.server)
    guard.upstream.codec.set_writable(True)
    assert not held_back(guard.server)


def test_a_full_client_holds_the_answer_back_and_an_emptied_one_lets_it_go() -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    guard.upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    guard.server.set_writable(False)
    assert held_back(guard.upstream.codec)
    guard.server.set_writable(True)
    assert not held_back(guard.upstream.codec)


def test_a_client_full_before_the_answer_began_holds_it_back() -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    guard.server.writable = False
    guard.upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    assert held_back(guard.upstream.codec)


# --- endings ----------------------------------------------------------------------------------


def lost(guard: Guard) -> None:
    guard.upstream.codec.receive_eof()


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_read_lost_before_its_head_may_be_repeated(method: bytes) -> None:
    guard = Guard()
    guard.send(head(method))
    lost(guard)
    got = answer(guard, method.decode())
    assert (got.status, got.get(b"retry-after")) == (503, b"1")
    assert guard.server.state is State.HEAD
    assert gateway_code(guard.gateway) == [("failed", 503)]


def test_a_watch_lost_before_its_head_is_told_to_come_again_not_to_relist() -> None:
    guard = Guard()
    guard.send(head(b"GET", PODS + b"?watch=1"))
    lost(guard)
    assert (answer(guard).status, answer(guard).get(b"retry-after")) == (429, b"1")
    assert b'"reason":"TooManyRequests"' in answer(guard).body


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE"])
def test_a_write_lost_before_its_head_must_not_be_repeated(method: bytes) -> None:
    guard = Guard()
    guard.send(head(method, PODS + b"/p", b"Content-Length: 2"), b"{}")
    lost(guard)
    got = answer(guard, "POST")
    assert (got.status, got.get(b"retry-after")) == (504, None)
    assert b"outcome unknown" in got.body
    assert b"retryAfterSeconds" not in got.body


@pytest.mark.parametrize("subresource", [b"exec", b"attach", b"portforward"])
def test_a_command_started_by_get_must_not_be_repeated_either(subresource: bytes) -> None:
    guard = Guard()
    guard.send(head(b"GET", PODS + b"/p/" + subresource))
    lost(guard)
    assert (answer(guard).status, answer(guard).get(b"retry-after")) == (504, None)


@pytest.mark.parametrize(
    "partly", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"]
)
def test_only_a_complete_head_counts_as_an_answer(partly: bytes) -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    guard.upstream.answer(partly)
    lost(guard)
    assert answer(guard).status == 503


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ],
)
def test_an_answer_lost_in_the_middle_is_broken_visibly(begun: bytes) -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    guard.upstream.answer(begun)
    assert not answer(guard).ended
    lost(guard)
    assert guard.server.broken
    assert guard.server.should_close
    assert guard.touch.pending
    assert not answer(guard).ended
    assert not guard.upstream.codec.reusable


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
def test_a_client_gone_cancels_its_request_upstream(begun: bytes) -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    guard.upstream.answer(begun)
    guard.upstream.touch.pending = False
    guard.server.receive_eof()
    assert guard.upstream.codec.should_close
    assert guard.upstream.touch.pending
    assert guard.session.exchange is None
    got = guard.answered
    guard.upstream.answer(b"abcdef" if begun else OK)
    assert guard.answered == got, "a late answer reaches nobody"


def test_a_body_broken_by_the_client_is_answered_and_given_up_upstream() -> None:
    guard = Guard()
    guard.send(head(b"POST", PODS, b"Transfer-Encoding: chunked"), b"3\r\nabcXX")
    assert answer(guard, "POST").status == 400
    assert guard.upstream.codec.should_close
    assert not sent(guard).ended
    assert guard.server.should_close


def test_a_silent_upstream_is_given_up() -> None:
    for method, message in ((b"GET", b"did not answer in time"), (b"DELETE", b"outcome unknown")):
        guard = Guard()
        guard.send(head(method))
        exchange = guard.session.exchange
        assert exchange is not None
        assert not exchange.overdue(guard.clock.now + 64.9)
        assert exchange.overdue(guard.clock.now + 65)
        exchange.silent()
        assert answer(guard).status == 504
        assert answer(guard).get(b"retry-after") is None
        assert message in answer(guard).body
        assert guard.upstream.codec.should_close


def test_a_long_running_request_has_no_deadline() -> None:
    guard = Guard()
    guard.send(head(b"GET", PODS + b"?watch=1"))
    assert guard.session.exchange is not None
    assert not guard.session.exchange.overdue(guard.clock.now + 1e9)


def test_an_answer_that_stops_within_is_given_up_and_broken() -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    guard.upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    exchange = guard.session.exchange
    assert exchange is not None
    now = guard.clock.now
    assert not exchange.overdue(now + 65), "bytes came since"
    assert exchange.overdue(now + 130)
    exchange.silent()
    assert guard.server.broken
    assert guard.upstream.codec.should_close


def test_an_answer_the_client_takes_slowly_is_not_given_up() -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    guard.upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    exchange = guard.session.exchange
    assert exchange is not None
    guard.server.set_writable(False)
    assert not exchange.overdue(guard.clock.now + 65)
    assert not exchange.overdue(guard.clock.now + 130)


def test_a_stream_is_ended_between_events_only() -> None:
    guard = Guard()
    guard.send(head(b"GET", PODS + b"?watch=1"))
    exchange = guard.session.exchange
    assert exchange is not None
    assert not exchange.end_stream(), "no head yet"
    guard.upstream.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")
    assert not exchange.end_stream(), "inside an event"
    guard.upstream.answer(b"cde\r\n")
    assert exchange.end_stream()
    assert (answer(guard).body, answer(guard).ended) == (b"abcde", True)
    assert guard.upstream.codec.should_close


def test_bytes_after_an_answer_never_answer_the_next_request() -> None:
    """A connection is handed on the moment it is free: what upstream said too much is not its."""
    first, second = Guard(), Guard(held=True)
    first.send(head(b"GET", b"/first"))
    second.send(head(b"GET", b"/second"))
    upstream = first.upstream
    waiting = second.dispatcher.waiting

    def released() -> None:
        if upstream.codec.reusable:
            waiting.pop().assigned(upstream.codec, 0.0)

    upstream.codec.on_released = released
    upstream.answer(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    assert answer(first).body == b"ok"
    assert second.answered == b""
    assert not upstream.codec.reusable
    assert upstream.codec.should_close


def test_an_exchange_is_counted_once_however_it_ends() -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    exchange = guard.session.exchange
    assert exchange is not None
    guard.upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    lost(guard)
    lost(guard)
    guard.server.receive_eof()
    exchange.cut()
    assert gateway_code(guard.gateway) == [("failed", 200)]


def test_exec_is_not_open_to_a_gateway_without_its_101() -> None:
    guard = Guard(gateway_of())
    guard.send(upgrade(b"websocket"))
    guard.upstream.answer(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    )
    assert answer(guard).status == 504
    assert guard.server.should_close


def test_waiting_for_a_connection_is_counted_apart_from_the_guards_own_time() -> None:
    guard = Guard(held=True)
    guard.send(head(b"GET"))
    guard.clock.now += 0.2
    guard.dispatcher.assign()
    counters = guard.gateway.counters
    assert (sum(counters.guard_seconds.counts), sum(counters.queue_seconds.counts)) == (1, 1)
    assert counters.guard_seconds.sum < 1e-9
    assert abs(counters.queue_seconds.sum - 0.2) < 1e-9


def test_a_request_that_finds_a_connection_at_once_observes_no_wait() -> None:
    guard = Guard()
    guard.send(head(b"GET"))
    counters = guard.gateway.counters
    assert (sum(counters.guard_seconds.counts), sum(counters.queue_seconds.counts)) == (1, 0)
