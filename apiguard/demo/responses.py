"""Answers onto the wire: the headers every answer has, gzip, pretty JSON, chunks."""

from __future__ import annotations

import asyncio
import gzip
import uuid
from collections.abc import Callable

from aiohttp import hdrs, web

from apiguard.demo import encoding, problems
from apiguard.demo.encoding import pretty
from apiguard.demo.negotiation import JSON, negotiate_error
from apiguard.demo.representations import write_value
from apiguard.demo.verbs import Answer

GZIP_THRESHOLD = 128 << 10  # bytes; only larger bodies are compressed
# net/http of Go buffers this much: a longer body has no Content-Length.
CHUNKED_THRESHOLD = 2048
_PIECE = 256 << 10
_Transform = Callable[[bytes], bytes]
_TEXT = "text/plain; charset=utf-8"
_PRETTY_AGENTS = ("curl", "Wget", "Mozilla/5.0")
_EXEMPT = ("22857b04-b3a9-4ecb-a7d8-c3041d484b98", "1f4585d0-39f1-4633-bcce-cacf4b6512c0")
_OTHERS = ("59c86bc8-cc3f-45ec-bfca-2d06377a3be6", "fb7177a6-b0c3-476a-93f3-2ce0167c9471")


def base_headers(request: web.BaseRequest) -> list[tuple[str, str]]:
    """Audit-Id (the client's is kept) and Cache-Control."""
    audit = request.headers.get("Audit-Id") or str(uuid.uuid4())
    return [("Audit-Id", audit), ("Cache-Control", "no-cache, private")]


def flow_headers(*, exempt: bool) -> list[tuple[str, str]]:
    """Which flow schema and priority level the request had."""
    schema, level = _EXEMPT if exempt else _OTHERS
    return [
        ("X-Kubernetes-Pf-Flowschema-Uid", schema),
        ("X-Kubernetes-Pf-Prioritylevel-Uid", level),
    ]


def error_answer(error: problems.ApiError, accept: str) -> Answer:
    """A Status as the client accepts it, or indented JSON when it accepts nothing."""
    representation = negotiate_error(accept)
    if representation is None:
        answer = Answer(error.code, pretty(error.status()))
    else:
        body = write_value(error.status(), representation)
        answer = Answer(error.code, body, representation.media)
    if error.nosniff:
        answer.headers.append(("X-Content-Type-Options", "nosniff"))
    if error.retry_after:
        answer.headers.append(("Retry-After", str(error.retry_after)))
    return answer


def text_answer(code: int, text: str, *, retry_after: int = 0) -> Answer:
    answer = Answer(code, text.encode(), _TEXT)
    answer.headers.append(("X-Content-Type-Options", "nosniff"))
    if retry_after:
        answer.headers.append(("Retry-After", str(retry_after)))
    return answer


def wants_gzip(request: web.BaseRequest) -> bool:
    """Only a bare ``gzip`` token counts; ``gzip;q=1.0`` does not."""
    accepted = request.headers.get(hdrs.ACCEPT_ENCODING, "")
    return any(token.strip() == "gzip" for token in accepted.split(","))


def wants_pretty(request: web.BaseRequest, parameter: str) -> bool:
    if "pretty=1" in request.headers.get(hdrs.ACCEPT, ""):
        return True
    if parameter:
        return parameter.lower() in ("true", "1")
    return request.headers.get(hdrs.USER_AGENT, "").startswith(_PRETTY_AGENTS)


async def send(
    request: web.BaseRequest, answer: Answer, headers: list[tuple[str, str]], *, indent: bool
) -> web.StreamResponse:
    """Writes a complete answer."""
    body = answer.body
    if indent and answer.content_type.startswith(JSON):
        body = await _offloaded(_indented, body)
    own = {name for name, _ in answer.headers}
    general = [pair for pair in headers if pair[0] not in own]
    all_headers = [*general, ("Content-Type", answer.content_type), *answer.headers]
    if len(body) > GZIP_THRESHOLD and wants_gzip(request):
        body = await _offloaded(_compressed, body)
        all_headers += [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
    response = web.StreamResponse(status=answer.code)
    response.headers.extend(all_headers)
    if request.method == "HEAD" or len(body) <= CHUNKED_THRESHOLD or request.version < (1, 1):
        response.content_length = len(body)
    else:
        response.enable_chunked_encoding()
    await response.prepare(request)
    if request.method != "HEAD":
        view = memoryview(body)
        for start in range(0, len(body), _PIECE):
            await response.write(view[start : start + _PIECE])
    await response.write_eof()
    return response


def _indented(body: bytes) -> bytes:
    return pretty(encoding.decode(body))


def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, 1)  # the level kube-apiserver uses


async def _offloaded(transform: _Transform, body: bytes) -> bytes:
    """In a thread when the body is large: 40 MB take seconds and would stop every watch."""
    if len(body) <= GZIP_THRESHOLD:
        return transform(body)
    return await asyncio.to_thread(transform, body)
