"""What holds for every input, not only for those somebody thought of."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, event, example, given, settings
from hypothesis import strategies as st

from apiguard.wire.chunked import ChunkedDecoder, ChunkError
from tests.unit.gateway.building import Guard
from tests.wire.corpus import Case, cases
from tests.wire.reading import Accepted, Outcome, Reader, Refused
from tests.wire.reference import (
    IncompleteError,
    InvalidError,
    dechunk,
    read_requests,
    read_responses,
)

REQUESTS = [c for c in cases("request") if len(c.data) < 5_000]
RESPONSES = [c for c in cases("response") if len(c.data) < 5_000]

QUICK = settings(max_examples=200, deadline=None, derandomize=True)
THOROUGH = settings(max_examples=500, deadline=None, derandomize=True)

IDENTITY = (b"x-remote-user", b"x-remote-uid", b"x-remote-group")
NEVER_FORWARDED = (
    *IDENTITY,
    b"forwarded",
    b"x-real-ip",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"keep-alive",
    b"proxy-authorization",
    b"proxy-connection",
    b"http2-settings",
    b"te",
    b"trailer",
)


def pieces(data: bytes, places: list[int]) -> list[bytes]:
    """``data`` cut at ``places``."""
    cuts = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


places = st.lists(st.integers(0, 10_000), max_size=6)


def read(data: bytes, cuts: list[int]) -> Reader:
    reader = Reader()
    for piece in pieces(data, cuts):
        reader.server.receive_data(piece)
    return reader


# --- mutations --------------------------------------------------------------------------------

TRICKS = [
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b",", b";", b"_", b"0\r\n\r\n", b"\r\n\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Connection: x-forwarded-for, host, content-length, transfer-encoding\r\n",
    b"X-Remote-User: a\r\n", b"X_Remote_User: a\r\n", b"Host: b\r\n", b"\xa0", b"\x85", b"HTTP/1.1",
    b"GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n", b"+", b"0x", b"-1", b"f" * 16, b"\x7f", b"\x0b",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, corpus: list[Case]) -> bytes:
    """One or two corpus cases, joined, with a few bytes replaced, inserted, removed."""
    chosen = draw(st.lists(st.integers(0, len(corpus) - 1), min_size=1, max_size=2))
    data = bytearray(b"".join(corpus[i].data for i in chosen))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        removed = draw(st.integers(0, 3))
        inserted = draw(st.sampled_from(TRICKS) | st.binary(max_size=2) | st.just(b""))
        data[at : at + removed] = inserted
    return bytes(data)


def summary(outcome: Outcome) -> object:
    """What must not depend on cuts. A refusal's code may: a bound can be hit before the head is
    complete enough for its first line to be judged."""
    if isinstance(outcome, Refused):
        return ("refused", outcome.close)
    line, block = outcome.line, outcome.block
    return (line.method, line.target, block.fields, outcome.body, outcome.forward.fields)


# --- requests ---------------------------------------------------------------------------------


@THOROUGH
@given(mutated(REQUESTS), places)
def test_what_is_read_never_depends_on_cuts(data: bytes, cuts: list[int]) -> None:
    whole, cut = read(data, []), read(data, cuts)
    assert [summary(o) for o in cut.outcomes] == [summary(o) for o in whole.outcomes]
    assert cut.unfinished == whole.unfinished
    assert cut.server.should_close == whole.server.should_close


def check_fixed_point(accepted: Accepted) -> None:
    """The bytes that go upstream are one request, and read again they say the same."""
    line, forward = accepted.line, accepted.forward
    guard = Guard()
    head = line.http1 + b"".join(n + b": " + v + b"\r\n" for n, v in accepted.block.fields)
    body = accepted.body
    if accepted.block.length == -1:
        body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    guard.send(head + b"\r\n" + body)
    sent = guard.upstream.sent
    (request,) = read_requests(sent)
    assert request.ended
    assert request.first + b"\r\n" == line.http1
    assert (request.method, request.target) == (line.method, line.target)
    assert request.body == accepted.body
    assert len(request.values(b"host")) == 1
    assert request.values(b"x-forwarded-for") == [b"192.0.2.7"]
    for name in request.names:
        folded = name.replace(b"_", b"-")
        assert name not in NEVER_FORWARDED
        assert folded not in IDENTITY
        assert not folded.startswith(b"x-remote-extra-")
        assert name.startswith(b"impersonate-") or not folded.startswith(b"impersonate-")
    assert request.values(b"connection") == ([b"Upgrade"] if forward.upgrade else [])
    assert request.values(b"upgrade") == ([forward.upgrade] if forward.upgrade else [])
    # A second guard behind the first reads the same request and passes on the same bytes.
    if len(request.fields) > 256:
        return  # at its bound the field that the first adds is one too many for the second
    again = Guard()
    again.send(sent)
    assert again.upstream.sent == sent


@THOROUGH
@given(mutated(REQUESTS))
def test_what_is_forwarded_is_a_fixed_point(data: bytes) -> None:
    for outcome in read(data, []).outcomes:
        if isinstance(outcome, Accepted):
            event("accepted")
            check_fixed_point(outcome)


_CASED = st.sampled_from(
    [
        *NEVER_FORWARDED,
        *(b"x-remote-extra-a", b"impersonate-user", b"impersonate-extra-a_b", b"x-forwarded-for"),
        *(b"authorization", b"user-agent", b"sec-websocket-protocol", b"expect", b"x-plain"),
    ]
)


@st.composite
def header_names(draw: st.DrawFn) -> bytes:
    """A name that matters, in random case, perhaps with underscores or one byte more."""
    name = bytearray(draw(_CASED))
    rng = random.Random(draw(st.integers(0, 2**16)))
    for i, byte in enumerate(name):
        if rng.random() < 0.3:
            name[i] = ord(chr(byte).swapcase())
        if byte == ord("-") and rng.random() < 0.15:
            name[i] = ord("_")
    return bytes(name) + draw(st.sampled_from([b"", b"", b"", b"-", b"_", b"x"]))


@st.composite
def header_blocks(draw: st.DrawFn) -> bytes:
    names = draw(st.lists(header_names(), max_size=5))
    lines = [
        n + b": " + draw(st.sampled_from([b"a", b"", b"100-continue", b"x, y"])) for n in names
    ]
    tokens = draw(st.lists(st.sampled_from(names), max_size=3)) if names else []
    tokens += draw(st.lists(st.sampled_from([b"close", b"host", b"Content-Length", b"x"])))
    lines.insert(draw(st.integers(0, len(lines))), b"Connection: " + b" ,".join(tokens))
    lines.insert(draw(st.integers(0, len(lines))), b"Host: guard")
    return b"\r\n".join(lines) + b"\r\n"


@THOROUGH
@given(header_blocks(), st.sampled_from([b"", b"Content-Length: 3\r\n"]))
@example(b"Host: g\r\nConnection: X-Forwarded-For, X-Remote-User\r\nX-Remote-User: a\r\n", b"")
def test_no_header_trick_reaches_upstream(block: bytes, framing: bytes) -> None:
    body = b"abc" if framing else b""
    reader = read(b"POST /api/v1/pods HTTP/1.1\r\n" + block + framing + b"\r\n" + body, [])
    (outcome,) = reader.outcomes
    if isinstance(outcome, Accepted):
        event("accepted")
        assert outcome.body == body
        check_fixed_point(outcome)
    else:
        assert outcome.close


@QUICK
@given(mutated(REQUESTS), mutated(REQUESTS), places)
def test_nothing_after_a_refusal_that_closes_is_read(
    data: bytes, more: bytes, cuts: list[int]
) -> None:
    first = read(data, [])
    assume(first.outcomes and isinstance(first.outcomes[-1], Refused) and first.outcomes[-1].close)
    both = read(data + more, [])
    assert len(both.outcomes) == len(first.outcomes)
    for piece in pieces(more, cuts):
        first.server.receive_data(piece)
    assert len(both.outcomes) == len(first.outcomes)


# --- chunks -----------------------------------------------------------------------------------


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A chunked body, and bytes behind it, mutated."""
    parts = []
    for data in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4)):
        extension = draw(st.sampled_from([b"", b";a=b", b";", b'; a="b;c"']))
        parts.append(b"%x%b\r\n%b\r\n" % (len(data), extension, data))
    trailers = draw(st.sampled_from([b"", b"X-A: b\r\n", b"X-A:\r\nY: c\r\n"]))
    whole = bytearray(b"".join(parts) + b"0\r\n" + trailers + b"\r\n" + draw(st.binary(max_size=8)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(whole)))
        whole[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from(TRICKS) | st.binary(max_size=2)
        )
    return bytes(whole)


def decode(parts: list[bytes]) -> tuple[str, bytes, int]:
    """Verdict, body so far and bytes read, by the decoder."""
    decoder, taken = ChunkedDecoder(), 0
    body: list[bytes] = []
    try:
        for part in parts:
            if decoder.done:
                break
            taken += decoder.feed(part, 0, body)
    except ChunkError:
        return ("invalid", b"", 0)
    return ("done" if decoder.done else "incomplete", b"".join(body), taken)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(chunked(), places)
def test_the_decoder_equals_one_written_plainly(data: bytes, cuts: list[int]) -> None:
    verdict, body, taken = decode([data])
    event(verdict)
    try:
        expected = dechunk(data)
    except InvalidError:
        assert verdict == "invalid"
    except IncompleteError:
        # The decoder may know sooner that a line without its end is wrong; then any end is.
        assert verdict == "incomplete" or all(
            decode([data + end])[0] == "invalid" for end in (b"\r\n", b"\n", b"\r\n\r\n", b"a\r\n")
        )
    else:
        assert (verdict, body, taken) == ("done", *expected)
    assert decode(pieces(data, cuts)) == (verdict, body, taken)


# --- responses --------------------------------------------------------------------------------


def relay(data: bytes, method: bytes, cuts: list[int], *, eof: bool) -> Guard:
    guard = Guard()
    guard.send(method + b" /api/v1/pods HTTP/1.1\r\nHost: guard\r\n\r\n")
    for piece in pieces(data, cuts):
        guard.upstream.answer(piece)
    if eof:
        guard.upstream.codec.receive_eof()
    return guard


@THOROUGH
@given(mutated(RESPONSES), st.sampled_from([b"GET", b"HEAD", b"POST"]), places, st.booleans())
def test_a_relayed_response_reads_as_one_message_however_it_was_cut(
    data: bytes, method: bytes, cuts: list[int], eof: bool
) -> None:
    whole, cut = relay(data, method, [], eof=eof), relay(data, method, cuts, eof=eof)
    assert cut.server.broken == whole.server.broken
    assert (cut.session.exchange is None) == (whole.session.exchange is None)
    if whole.server.broken:
        return  # what was relayed before depends on the cuts, and the client knows it is no answer
    ours = read_responses(whole.answered, method.decode())
    theirs = read_responses(cut.answered, method.decode())
    assert [(a.first, a.fields, a.body, a.ended) for a in ours] == [
        (a.first, a.fields, a.body, a.ended) for a in theirs
    ]
    assert len(ours) == (1 if whole.session.exchange is None else len(ours))
    for answer in ours:
        event("ended" if answer.ended else "open")
        assert answer.ended == (whole.session.exchange is None)
        assert not {b"keep-alive", b"proxy-authenticate", b"trailer", b"upgrade"} & answer.names


_BODIES = st.lists(st.binary(min_size=1, max_size=50), max_size=5)


@QUICK
@given(_BODIES, st.sampled_from(["length", "chunked", "close"]), places)
def test_a_body_arrives_as_it_was_sent_whatever_frames_it(
    parts: list[bytes], framing: str, cuts: list[int]
) -> None:
    body = b"".join(parts)
    head = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n"
    data = {
        "length": head + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        "chunked": head
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts)
        + b"0\r\n\r\n",
        "close": head + b"\r\n" + body,
    }[framing]
    guard = relay(data, b"GET", cuts, eof=framing == "close")
    (answer,) = read_responses(guard.answered, "GET")
    assert (answer.body, answer.ended, answer.get(b"x-a")) == (body, True, b"1")
    assert guard.upstream.codec.reusable == (framing != "close")


@pytest.mark.parametrize("at", range(1, 60))
def test_a_response_cut_off_anywhere_is_never_complete(at: int) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert len(data) == 60
    guard = relay(data[:at], b"GET", [], eof=True)
    if not guard.server.broken:
        (own,) = read_responses(guard.answered, "GET")
        assert own.status == 503
