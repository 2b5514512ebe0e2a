"""What the relay asks of API servers in the guard's own name: collections, and reviews.

Bodies of collections are handed on piece by piece as they arrive, so that a list of 40 MB is never
in one piece and never parsed in one go. A call is made once and follows no redirect.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from typing import Final, NamedTuple
from urllib.parse import urlencode

from apiguard.gateway.asking import Form
from apiguard.kube.status import Representation
from apiguard.relay.reflector import Failure
from apiguard.runtime.relaywire import Call, CallBrokenError, RelayWire
from apiguard.wire.messages import RequestLine, ResponseHead

LIST_SILENCE_SECONDS: Final = 30.0
WATCH_SILENCE_SECONDS: Final = 150.0
"""Upstream sends a bookmark a minute; after two that did not come the stream is taken for dead."""

REVIEW_SECONDS: Final = 5.0
LONGEST_REVIEW: Final = 1 << 20

_AGENT: Final = b"User-Agent: apiguard-relay\r\n"
LONGEST_WARNINGS: Final = 4_096
_WARNING: Final = re.compile(rb"^warning:[^\r\n]*\r\n", re.I | re.M)
_RETRY_AFTER: Final = re.compile(rb"^retry-after:[ \t]*([0-9]{1,5})[ \t]*\r?$", re.I | re.M)
_SENDABLE: Final = re.compile(r"[!-~]*")


class UpstreamError(Exception):
    """No stream of bytes: ``failure`` is what the reflector is told."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"HTTP {failure.code}" if failure.code else "no answer")
        self.failure = failure


class Answer(NamedTuple):
    """To a review; ``status`` 0 where there was none."""

    status: int
    body: bytes


NO_ANSWER: Final = Answer(0, b"")


def accept_of(form: Form, *, watch: bool) -> str:
    """The one representation that is of use."""
    if not form.metadata_only:
        return form.representation.value
    kind = "PartialObjectMetadata" if watch else "PartialObjectMetadataList"
    return f"{form.representation.value};as={kind};g=meta.k8s.io;v=v1"


METADATA = Form(Representation.JSON, True)
"""For proofs: a metadata-only item in JSON is looked into in a fifth of the time."""


class RelayClient:
    """``tls`` may present the guard's certificate, ``token`` is its bearer token, "" for none;
    ``server_name`` is verified instead of the URL's host."""

    def __init__(self, tls: ssl.SSLContext, token: str, server_name: str = "") -> None:
        self._wire = RelayWire(tls, server_name)
        self._fields = _fields(token)

    def use(self, tls: ssl.SSLContext, token: str) -> None:
        """Later calls prove themselves with these; streams under way end, and are resumed."""
        self._fields = _fields(token)
        self._wire.use(tls)

    def close(self) -> None:
        self._wire.close()

    @contextlib.asynccontextmanager
    async def read(
        self, server: str, path: str, query: dict[str, str], form: Form, *, watch: bool = False
    ) -> AsyncIterator[Call]:
        """The pieces of a 200's body. Raises UpstreamError, also while they are read."""
        accept = b"Accept: %b\r\nAccept-Encoding: identity\r\n"
        accept %= accept_of(form, watch=watch).encode("ascii")
        silence = WATCH_SILENCE_SECONDS if watch else LIST_SILENCE_SECONDS
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            call = await self._wire.call(
                server, _line("GET", target), accept + self._fields, seconds=silence, lasting=True
            )
            with contextlib.closing(call):
                head = await call.begun()
                if head.status != 200:
                    raise UpstreamError(_failure(head))
                yield call
        except CallBrokenError as error:
            raise UpstreamError(Failure()) from error

    async def document(self, server: str, path: str, most: int) -> bytes:
        """A small JSON document. Raises UpstreamError."""
        async with self.read(server, path, {}, Form(Representation.JSON, False)) as call:
            return await call.whole(most)

    async def review(self, server: str, path: str, body: bytes) -> Answer:
        """Posts JSON."""
        lines = b"Accept: application/json\r\nContent-Type: application/json\r\n" + self._fields
        try:
            call = await self._wire.call(
                server, _line("POST", path), lines, body=body, seconds=REVIEW_SECONDS
            )
            with contextlib.closing(call):
                head = await call.begun()
                return Answer(head.status, await call.whole(LONGEST_REVIEW))
        except CallBrokenError:
            return NO_ANSWER


def warnings_of(call: Call) -> bytes:
    """Header lines that tell clients something of the resource, such as that it is deprecated; b""
    where they are too long to be repeated to everybody."""
    head = call.head
    found = b"".join(_WARNING.findall(head.lines)) if head is not None else b""
    return found if len(found) <= LONGEST_WARNINGS else b""


def _fields(token: str) -> bytes:
    """Those of every call."""
    if not token:
        return _AGENT
    return b"%bAuthorization: Bearer %b\r\n" % (_AGENT, token.encode("latin-1"))


def _line(method: str, target: str) -> RequestLine:
    """Raises CallBrokenError for what would not be one line."""
    if not _SENDABLE.fullmatch(target):
        raise CallBrokenError("a target that cannot be sent")
    return RequestLine(method, target, f"{method} {target} HTTP/1.1\r\n".encode("ascii"))


def _failure(head: ResponseHead) -> Failure:
    told = _RETRY_AFTER.search(head.lines)
    return Failure(head.status, float(told[1]) if told else 0.0)


async def turn() -> None:
    """Lets everything else have its turn of the loop."""
    await asyncio.sleep(0)
