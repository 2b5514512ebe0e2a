"""One client connection: refusals, penalties, bounds, and whose answer comes when."""

from __future__ import annotations

import json
import random
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from apiguard.demo.certs import Authority
from apiguard.errors import WireError
from apiguard.gateway import replies
from apiguard.gateway.decision import Peer
from apiguard.gateway.session import PENALTY_SECONDS, REFUSALS_PER_SECOND
from apiguard.identity.certificate import ClientAuthority, ClientCertificate
from apiguard.kube.requestinfo import parse_request
from apiguard.policy.config import Enforcement, RequestBounds
from apiguard.telemetry import bounds
from apiguard.wire.http1 import State
from apiguard.wire.http1_server import SKIP_LIMIT
from tests.unit.gateway.building import Guard, config_of, gateway_of
from tests.unit.policy.texts import policy_text
from tests.wire.reference import Message, read_requests, read_responses

BANNED = policy_text(
    """
    - {name: banned, match: {userAgents: ["bad/*"]}, limits: [{requestsPerSecond: 0}]}
    - {name: watched, match: {userAgents: ["shadow/*"]}, mode: shadow,
       limits: [{requestsPerSecond: 0}]}
    - {name: nodes, match: {groups: ["system:nodes"]}, exempt: true}
    """
)
BAD = b"User-Agent: bad/1"
PODS = b"/api/v1/namespaces/default/pods"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def head(method: bytes, *lines: bytes, target: bytes = PODS) -> bytes:
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: guard", *lines, b"", b""])


def guard_with(policy: str = BANNED, enforcement: Enforcement = Enforcement.ENFORCE) -> Guard:
    return Guard(gateway_of(policy, enforcement=enforcement))


def answers(guard: Guard, *methods: str) -> list[Message]:
    return read_responses(guard.answered, *methods)


def closing(guard: Guard) -> bool:
    return guard.server.should_close


def counted(guard: Guard) -> dict[tuple[str, str], int]:
    """(rule, decision) -> requests."""
    found: dict[tuple[str, str], int] = {}
    for (rule, decision, _, _), n in guard.gateway.counters.requests.items():
        found[rule, decision] = found.get((rule, decision), 0) + n
    return found


# --- refusing over a limit --------------------------------------------------------------------


def test_a_refusal_is_a_status_with_retry_after_and_the_rules_name() -> None:
    guard = guard_with()
    guard.send(head(b"GET", BAD))
    (refusal,) = answers(guard, "GET")
    status = json.loads(refusal.body)
    after = int(refusal.get(b"retry-after") or b"")
    assert refusal.status == status["code"] == 429
    assert (status["apiVersion"], status["kind"], status["status"]) == ("v1", "Status", "Failure")
    assert status["metadata"] == {}
    assert status["reason"] == "TooManyRequests"
    assert status["details"] == {"retryAfterSeconds": after}
    assert 15 <= after <= 30, "rate 0: no token ever comes"
    assert refusal.get(b"apiguard-rule") == b"banned"
    assert refusal.get(b"content-type") == b"application/json"
    assert refusal.get(b"x-content-type-options") == b"nosniff"
    assert refusal.get(b"cache-control") == b"no-cache, private"
    assert not refusal.values(b"connection")
    assert guard.server.state is State.HEAD
    assert not guard.dispatcher.connections
    assert counted(guard) == {("banned", "refused"): 1}


def test_a_refusal_is_protobuf_for_who_prefers_it() -> None:
    guard = guard_with()
    guard.send(head(b"GET", BAD, b"Accept: application/vnd.kubernetes.protobuf,application/json"))
    (refusal,) = answers(guard, "GET")
    assert refusal.get(b"content-type") == b"application/vnd.kubernetes.protobuf"
    assert refusal.body.startswith(b"k8s\x00")


def test_the_refusal_of_head_has_no_body() -> None:
    guard = guard_with()
    guard.send(head(b"HEAD", BAD), head(b"GET", BAD))
    first, second = answers(guard, "HEAD", "GET")
    assert int(first.get(b"content-length") or b"") == len(second.body) > 0


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_a_small_body_of_a_refused_request_is_skipped(framing: bytes) -> None:
    guard = guard_with()
    body = b"hello" if b"Length" in framing else b"5\r\nhello\r\n0\r\n\r\n"
    guard.send(head(b"POST", BAD, framing), body, head(b"GET"))
    guard.upstream.answer(OK)
    assert [a.status for a in answers(guard, "POST", "GET")] == [429, 200]
    (forwarded,) = read_requests(guard.upstream.sent)
    assert forwarded.method == "GET"


def test_a_large_body_of_a_refused_request_costs_the_connection() -> None:
    guard = guard_with()
    guard.send(head(b"POST", BAD, b"Content-Length: %d" % (SKIP_LIMIT + 1)))
    guard.send(head(b"GET"))
    assert [a.status for a in answers(guard, "POST")] == [429]
    assert guard.server.should_close
    assert guard.server.linger
    assert not guard.dispatcher.connections


def test_an_endless_body_of_a_refused_request_ends_the_connection_and_says_so() -> None:
    guard = guard_with()
    guard.send(head(b"POST", BAD, b"Transfer-Encoding: chunked"))
    guard.take()
    chunk = b"%x\r\n%b\r\n" % (4096, b"x" * 4096)
    for _ in range(SKIP_LIMIT // 4096):
        guard.send(chunk)
    assert not closing(guard)
    guard.send(chunk)
    assert guard.server.should_close
    assert guard.touch.pending, "or nobody would close it"


def test_broken_chunks_of_a_refused_request_end_the_connection_and_say_so() -> None:
    guard = guard_with()
    guard.send(head(b"POST", BAD, b"Transfer-Encoding: chunked"))
    guard.take()
    guard.send(b"XX\r\n", head(b"GET"))
    assert guard.server.should_close
    assert guard.touch.pending
    assert not guard.dispatcher.connections


def test_the_body_of_a_refused_request_may_not_drip_for_ever() -> None:
    guard = guard_with()
    guard.send(head(b"POST", BAD, b"Content-Length: 100"), b"x")
    guard.take()
    guard.server.give_up(_too_slow())
    assert guard.server.should_close
    assert guard.touch.pending


def _too_slow() -> WireError:
    return WireError(408, "", "too slow")


def test_draining_ends_a_connection_that_has_just_skipped_a_body() -> None:
    guard = guard_with()
    guard.send(head(b"POST", BAD, b"Content-Length: 5"))
    guard.server.drain()
    guard.take()
    guard.send(b"hello")
    assert guard.server.should_close
    assert guard.touch.pending


def test_a_refused_request_that_waits_to_continue_ends_the_connection() -> None:
    guard = guard_with()
    guard.send(head(b"POST", BAD, b"Content-Length: 5", b"Expect: 100-continue"), head(b"GET"))
    (refusal,) = answers(guard, "POST")
    assert (refusal.status, refusal.values(b"connection")) == (429, [b"close"])
    assert guard.server.should_close
    assert not guard.dispatcher.connections


# --- enforcement ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "enforcement", "decision"),
    [
        (b"bad/1", Enforcement.SHADOW, "would_refuse"),
        (b"bad/1", Enforcement.OFF, "forwarded"),
        (b"shadow/1", Enforcement.ENFORCE, "would_refuse"),
        (b"shadow/1", Enforcement.OFF, "forwarded"),
        (b"good/1", Enforcement.ENFORCE, "forwarded"),
    ],
)
def test_what_is_not_enforced_is_forwarded(
    agent: bytes, enforcement: Enforcement, decision: str
) -> None:
    guard = guard_with(enforcement=enforcement)
    guard.send(head(b"GET", b"User-Agent: " + agent))
    guard.upstream.answer(OK)
    rule = {b"bad/1": "banned", b"shadow/1": "watched", b"good/1": "default"}[agent]
    assert counted(guard) == {(rule, decision): 1}


def test_switching_enforcement_judges_the_next_request() -> None:
    guard = guard_with(enforcement=Enforcement.OFF)
    guard.send(head(b"GET", BAD))
    guard.upstream.answer(OK)
    guard.gateway.set_enforcement(Enforcement.ENFORCE)
    guard.send(head(b"GET", BAD))
    assert [a.status for a in answers(guard, "GET", "GET")] == [200, 429]


# --- who asks ---------------------------------------------------------------------------------

NODES_AND_NOBODY = policy_text(
    """
    - {name: nodes, match: {groups: ["system:nodes"]}, exempt: true}
    - {name: alice, match: {users: ["alice"]}, limits: [{requestsPerSecond: 0}]}
    - {name: anonymous, match: {users: ["system:anonymous"]}, limits: [{requestsPerSecond: 0}]}
    - {name: rest, match: {users: ["*"]}, limits: [{requestsPerSecond: 0}]}
    """
)
_WS_TOKEN = b"base64url.bearer.authorization.k8s.io.dG9rZW4tYWxpY2U"  # token-alice
_WEBSOCKET = (b"Connection: Upgrade", b"Upgrade: websocket")


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ((), "anonymous"),
        ((b"Authorization: Bearer token-alice",), "alice"),
        ((b"Authorization: bearer token-alice trailing",), "alice"),
        ((b"Authorization: Bearer token-node",), "nodes"),
        ((b"Authorization: Bearer unknown",), "default"),
        ((b"Authorization: Basic YWxpY2U6eA==",), "anonymous"),
        ((*_WEBSOCKET, b"Sec-WebSocket-Protocol: " + _WS_TOKEN + b", v5"), "alice"),
        (
            (
                *_WEBSOCKET,
                b"Sec-WebSocket-Protocol: " + _WS_TOKEN,
                b"Authorization: Bearer token-node",
            ),
            "nodes",
        ),
        ((b"Sec-WebSocket-Protocol: " + _WS_TOKEN,), "anonymous"),
        ((b"Authorization: Bearer token-node", b"Connection: authorization"), "anonymous"),
        ((b"X-Remote-User: alice", b"X-Remote-Group: system:nodes"), "anonymous"),
        ((b"Impersonate-User: alice",), "anonymous"),
    ],
)
def test_the_credential_upstream_would_use_decides(lines: tuple[bytes, ...], rule: str) -> None:
    guard = guard_with(NODES_AND_NOBODY, Enforcement.SHADOW)
    guard.send(head(b"GET", *lines))
    guard.upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    decision = "forwarded" if rule in ("nodes", "default") else "would_refuse"
    assert counted(guard) == {(rule, decision): 1}


def test_an_exempt_rule_needs_proof() -> None:
    guard = guard_with()
    guard.send(head(b"GET", b"Authorization: Bearer token-node"))
    guard.upstream.answer(OK)
    guard.send(head(b"GET", b"Authorization: Bearer forged"))
    guard.upstream.answer(OK)
    assert counted(guard) == {("nodes", "forwarded"): 1, ("default", "forwarded"): 1}


def test_a_client_certificate_is_refused_with_401() -> None:
    authority = Authority("session tests")
    leaf = x509.load_pem_x509_certificate(authority.client("alice").certificate)
    trusted = ClientAuthority(authority.certificate)
    certificate = ClientCertificate(leaf.public_bytes(Encoding.DER), (), trusted, time.time())
    guard = Guard(gateway_of(), Peer("192.0.2.7", "192.0.2.7", certificate))
    guard.send(head(b"GET", b"Authorization: Bearer token-node"), head(b"GET"))
    (refusal,) = answers(guard, "GET")
    status = json.loads(refusal.body)
    assert (refusal.status, status["reason"]) == (401, "Unauthorized")
    assert "certificate" in status["message"]
    assert guard.server.should_close
    assert not guard.dispatcher.connections


# --- bounds -----------------------------------------------------------------------------------

SMALL = RequestBounds(body_bytes=10)


def bounded() -> Guard:
    return Guard(gateway_of(config=config_of(SMALL)), bounds=SMALL)


def test_a_body_declared_too_large_is_refused_before_it_is_read() -> None:
    guard = bounded()
    guard.send(head(b"POST", b"Content-Length: 11"))
    (refusal,) = answers(guard, "POST")
    assert (refusal.status, refusal.values(b"connection")) == (413, [b"close"])
    assert json.loads(refusal.body)["reason"] == "RequestEntityTooLarge"
    assert guard.server.should_close
    assert not guard.dispatcher.connections
    assert guard.gateway.counters.bounds[bounds.BODY_BYTES] == 1


@pytest.mark.parametrize("sizes", [(11,), (10, 1), (1,) * 11])
def test_a_body_counted_too_large_is_given_up_upstream(sizes: tuple[int, ...]) -> None:
    guard = bounded()
    guard.send(head(b"POST", b"Transfer-Encoding: chunked"))
    for size in sizes:
        guard.send(b"%x\r\n%b\r\n" % (size, b"x" * size))
    (refusal,) = answers(guard, "POST")
    assert refusal.status == 413
    assert guard.server.should_close
    assert guard.upstream.codec.should_close
    (forwarded,) = read_requests(guard.upstream.sent)
    assert not forwarded.ended
    assert len(forwarded.body) <= 10


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
def test_a_body_at_its_bound_is_forwarded(framing: bytes) -> None:
    guard = bounded()
    body = b"0123456789"
    raw = body if b"Length" in framing else b"a\r\n" + body + b"\r\n0\r\n\r\n"
    guard.send(head(b"POST", framing), raw)
    (forwarded,) = read_requests(guard.upstream.sent)
    assert (forwarded.body, forwarded.ended) == (body, True)


@pytest.mark.parametrize(
    "target",
    [
        b"/api/v1/namespaces/d/pods/p/proxy/upload",
        b"/api/v1/namespaces/d/services/s/proxy",
        b"/apis/example.com/v1/namespaces/d/things",
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_bodies_that_other_servers_bound_are_not_bounded_here(
    target: bytes, declared: bool
) -> None:
    guard = bounded()
    framing = b"Content-Length: 50" if declared else b"Transfer-Encoding: chunked"
    raw = b"x" * 50 if declared else b"32\r\n" + b"x" * 50 + b"\r\n0\r\n\r\n"
    guard.send(head(b"POST", framing, target=target), raw)
    (forwarded,) = read_requests(guard.upstream.sent)
    assert len(forwarded.body) == 50


# --- the penalty ------------------------------------------------------------------------------


def test_a_connection_refused_too_often_within_a_second_is_not_read_for_about_one() -> None:
    guard = guard_with()
    for _ in range(REFUSALS_PER_SECOND):
        guard.send(head(b"GET", BAD))
        guard.clock.now += 0.1
    assert guard.session.quiet_until == 0.0
    guard.send(head(b"GET", BAD))
    quiet = guard.session.quiet_until - guard.clock.now
    assert PENALTY_SECONDS <= quiet <= 1.5 * PENALTY_SECONDS
    assert guard.gateway.counters.bounds[bounds.REFUSED_TOO_OFTEN] == 1


def test_pipelining_does_not_outrun_the_penalty() -> None:
    guard = guard_with()
    guard.send(head(b"GET", BAD) * 100)
    answered = REFUSALS_PER_SECOND + 1
    assert len(answers(guard, *["GET"] * answered)) == answered
    assert guard.server.held_heads == 100 - answered
    guard.clock.now += PENALTY_SECONDS
    guard.server.release_requests()
    assert guard.answered.count(b"HTTP/1.1 429") == 2 * answered


def test_more_is_held_during_a_penalty_than_one_head_may_have() -> None:
    guard = guard_with()
    guard.send(head(b"GET", BAD) * (REFUSALS_PER_SECOND + 1))
    guard.send(*[head(b"GET", BAD)] * 2_000)
    assert b"HTTP/1.1 431" not in guard.answered


def test_refusals_spread_over_seconds_cost_no_penalty() -> None:
    guard = guard_with()
    for _ in range(5 * REFUSALS_PER_SECOND):
        guard.send(head(b"GET", BAD))
        guard.clock.now += 1.01 / REFUSALS_PER_SECOND
    assert guard.session.quiet_until == 0.0


def test_refusals_for_want_of_a_connection_cost_the_same_penalty() -> None:
    """A server at its ceiling is asked again and again by those who ignore Retry-After."""
    guard = Guard(held=True)
    for _ in range(REFUSALS_PER_SECOND + 1):
        assert guard.session.quiet_until == 0.0
        guard.send(head(b"GET"))
        guard.dispatcher.waiting.pop().refused(replies.UNAVAILABLE)
    assert guard.session.quiet_until > guard.clock.now
    answered = len(guard.answered)
    guard.send(head(b"GET"))
    assert (guard.dispatcher.waiting, len(guard.answered)) == ([], answered)


def test_what_never_waited_for_a_connection_is_not_looked_for_among_those_that_do() -> None:
    """A thousand wait at a full server; every refusal would pass all of them by."""
    guard = Guard()
    guard.dispatcher.refuse_with = replies.UNAVAILABLE
    guard.send(head(b"GET"))
    (answer,) = answers(guard, "GET")
    assert (answer.status, guard.dispatcher.withdrawn) == (503, [])


# --- order ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_refused_and_forwarded_requests_in_one_stream_are_answered_in_order(seed: int) -> None:
    rng = random.Random(seed)
    guard = guard_with()
    kinds = ["bad"] * REFUSALS_PER_SECOND + ["good"] * 4 + ["both"] * 3
    rng.shuffle(kinds)
    agents = {"bad": BAD, "good": b"User-Agent: good/1", "both": b"User-Agent: shadow/1"}
    guard.send(b"".join(head(b"GET", agents[k], target=b"/x/%d" % i) for i, k in enumerate(kinds)))
    forwarded = [i for i, kind in enumerate(kinds) if kind != "bad"]
    for i in forwarded:
        (request,) = read_requests(guard.upstream.sent)
        assert request.target == f"/x/{i}", "one at a time, in order"
        body = b"%d" % i
        guard.upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert len(guard.dispatcher.connections) == len(forwarded)
    got = answers(guard, *["GET"] * len(kinds))
    assert len(got) == len(kinds)
    for i, (kind, one) in enumerate(zip(kinds, got, strict=True)):
        assert one.status == (429 if kind == "bad" else 200)
        assert kind == "bad" or one.body == b"%d" % i


def test_pipelined_requests_wait_unread_for_their_turn() -> None:
    guard = guard_with()
    guard.send(*[head(b"GET", target=b"/x/%d" % i) for i in range(5)])
    assert len(guard.dispatcher.connections) == 1
    assert guard.server.held_heads == 4


def test_a_target_that_means_two_things_is_refused_and_the_connection_goes_on() -> None:
    guard = guard_with()
    guard.send(head(b"GET", target=b"/api/v1/namespaces/a%2Fb/pods"), head(b"GET"))
    guard.upstream.answer(OK)
    assert [a.status for a in answers(guard, "GET", "GET")] == [400, 200]


def test_a_remembered_request_line_still_means_what_it_says() -> None:
    guard = guard_with()
    for target in (PODS, PODS + b"?watch=1", b"/version"):
        for _ in range(2):
            guard.send(head(b"GET", target=target))
            exchange = guard.session.exchange
            assert exchange is not None
            fresh = parse_request("GET", target.decode())
            assert (exchange.info.verb, exchange.info.resource) == (fresh.verb, fresh.resource)
            guard.upstream.answer(OK)
