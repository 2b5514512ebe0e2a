"""What the relay reads from API servers: collections, in the guard's own name.

Bodies are handed on piece by piece as they arrive, so that a list of 40 MB is never in one piece
and never parsed in one go. A call is made once and follows no redirect.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from apiguard.gateway.asking import Form
from apiguard.kube.status import Representation
from apiguard.relay.reflector import Failure

CONNECT_SECONDS: Final = 5.0
LIST_SILENCE_SECONDS: Final = 30.0
WATCH_SILENCE_SECONDS: Final = 150.0
"""Upstream sends a bookmark a minute; after two that did not come the stream is taken for dead."""


class UpstreamError(Exception):
    """No stream of bytes: ``failure`` is what the reflector is told."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"HTTP {failure.code}" if failure.code else "no answer")
        self.failure = failure


def accept_of(form: Form, *, watch: bool) -> str:
    """The one representation that is of use."""
    if not form.metadata_only:
        return form.representation.value
    kind = "PartialObjectMetadata" if watch else "PartialObjectMetadataList"
    return f"{form.representation.value};as={kind};g=meta.k8s.io;v=v1"


METADATA = Form(Representation.JSON, True)
"""For proofs: a metadata-only item in JSON is looked into in a fifth of the time."""


class RelayClient:
    """Reads collections. ``tls`` may present the guard's certificate, ``token`` is its bearer
    token, "" for none; ``server_name`` is verified instead of the URL's host."""

    def __init__(self, tls: ssl.SSLContext, token: str, server_name: str = "") -> None:
        self._tls = tls
        self._token = token
        self._server_name = server_name or None
        self._session: aiohttp.ClientSession | None = None

    async def use(self, tls: ssl.SSLContext, token: str) -> None:
        """Later calls prove themselves with these; streams under way end, and are resumed."""
        self._tls, self._token = tls, token
        await self.close()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @contextlib.asynccontextmanager
    async def read(
        self, server: str, path: str, query: dict[str, str], form: Form, *, watch: bool = False
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of a 200's body. Raises UpstreamError, also while they are read."""
        headers = {
            "Accept": accept_of(form, watch=watch),
            "Accept-Encoding": "identity",
            "User-Agent": "apiguard-relay",
        }
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        silence = WATCH_SILENCE_SECONDS if watch else LIST_SILENCE_SECONDS
        url = f"{server}{path}?{urlencode(query)}" if query else server + path
        try:
            async with self._opened().get(
                URL(url, encoded=True),
                headers=headers,
                allow_redirects=False,
                server_hostname=self._server_name if server.startswith("https:") else None,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=silence
                ),
            ) as response:
                if response.status != 200:
                    raise UpstreamError(_failure(response))
                yield response.content.iter_any()
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamError(Failure()) from error

    async def document(self, server: str, path: str, most: int) -> bytes:
        """A small JSON document. Raises UpstreamError."""
        parts: list[bytes] = []
        async with self.read(server, path, {}, Form(Representation.JSON, False)) as pieces:
            async for piece in pieces:
                parts.append(piece)
                if sum(map(len, parts)) > most:
                    raise UpstreamError(Failure())
        return b"".join(parts)

    def _opened(self) -> aiohttp.ClientSession:
        session = self._session
        if session is None:
            session = self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            # aiohttp repeats an idempotent call whose connection broke, and has no public switch.
            session._retry_connection = False
        return session


def _failure(response: aiohttp.ClientResponse) -> Failure:
    told = response.headers.get("Retry-After", "")
    seconds = float(told) if told.isascii() and told.isdigit() and len(told) < 6 else 0.0
    return Failure(response.status, seconds)


async def turn() -> None:
    """Lets everything else have its turn of the loop."""
    await asyncio.sleep(0)
