"""The guard's own calls to API servers: probes, key sets, token reviews.

Decisions are elsewhere (``upstream.readyz``, ``identity.keys``, ``identity.reviews``); here they
are carried out with the guard's own credentials, never with the front-proxy certificate. A call is
made once, follows no redirect, and reads no more than it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp

from apiguard.identity import reviews
from apiguard.identity.reviews import Review, Reviews

CALL_SECONDS: Final = 5.0
CONCURRENT_REVIEWS: Final = 8
"""Per worker; a review takes upstream a few milliseconds, so these carry hundreds a second."""

LONGEST_REVIEW: Final = 1 << 20
"""Bytes of an answer to a TokenReview: a user of 10,000 groups with long names."""

KEYS_PATH: Final = "/openid/v1/jwks"
LONGEST_KEYS: Final = 1 << 20
KEYS_LEAST_SECONDS: Final = 60.0
KEYS_MOST_SECONDS: Final = 300.0
"""Upstream says ``max-age=3600``; a new signing key would go unknown for an hour."""

KEYS_RETRY_SECONDS: Final = 2.0

_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)

_log = logging.getLogger(__name__)


class CallError(Exception):
    """No answer; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` is cut at the length asked for; ``cache_control`` is "" when absent."""

    status: int
    body: bytes
    cache_control: str


class ApiClient:
    """Calls API servers as the guard itself: ``tls`` may present its certificate, ``token`` is
    its bearer token, "" for none. ``server_name`` is verified instead of the URL's host."""

    def __init__(self, tls: ssl.SSLContext, token: str, server_name: str = "") -> None:
        self._server_name = server_name or None
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._tls = tls
        self._token = token

    async def use(self, tls: ssl.SSLContext, token: str) -> None:
        """Later calls prove themselves with these; calls under way end by themselves."""
        self._tls, self._token = tls, token
        await self.close()

    async def close(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def get(self, server: str, path: str, *, most: int, fresh: bool = False) -> Answer:
        """``fresh`` opens a connection for this call alone, as a probe must. Raises CallError."""
        return await self._call("GET", server, path, None, most, fresh)

    async def post(self, server: str, path: str, body: bytes, *, most: int) -> Answer:
        """``body`` is JSON. Raises CallError."""
        return await self._call("POST", server, path, body, most, False)

    async def _call(
        self, method: str, server: str, path: str, body: bytes | None, most: int, fresh: bool
    ) -> Answer:
        headers = {"Accept": "application/json, */*", "User-Agent": "apiguard"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._session(fresh).request(
                method,
                server + path,
                data=body,
                headers=headers,
                allow_redirects=False,
                server_hostname=self._server_name if server.startswith("https:") else None,
            ) as response:
                found = await _read(response.content, most)
                return Answer(response.status, found, response.headers.get("Cache-Control", ""))
        except TimeoutError:
            raise CallError(f"no answer within {CALL_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallError(_reason(error)) from None

    def _session(self, fresh: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(fresh)
        if session is None:
            session = self._sessions[fresh] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls, force_close=fresh, limit=64),
                timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            # aiohttp repeats an idempotent call whose connection broke, and has no public switch.
            session._retry_connection = False
        return session


async def _read(stream: aiohttp.StreamReader, most: int) -> bytes:
    pieces: list[bytes] = []
    while most > 0 and (piece := await stream.read(most)):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _reason(error: Exception) -> str:
    """One line: what failed, without the library's own decoration."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate: {cause.verify_message}"
        return f"certificate: {cause}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class Servers(Protocol):
    """Where a call may go."""

    def fit(self) -> list[str]:
        """URLs of servers that can be asked, best first."""


# -- key sets


def keys_lifetime(cache_control: str) -> float:
    """Seconds until a key set is fetched again, whatever the answer that carried it says."""
    found = _MAX_AGE.search(cache_control)
    wished = float(found[1]) if found else KEYS_MOST_SECONDS
    return min(max(wished, KEYS_LEAST_SECONDS), KEYS_MOST_SECONDS)


class KeyFetcher:
    """Fetches upstream's own key set again and again; ``fetched`` gets each text that came.

    What was fetched is never given up for a failure: with upstream away tokens stay verifiable.
    """

    def __init__(
        self, client: ApiClient, servers: Servers, fetched: Callable[[bytes], bool]
    ) -> None:
        """``fetched`` returns whether the text could be used."""
        self._client = client
        self._servers = servers
        self._fetched = fetched
        self.detail = "not fetched yet"

    async def run(self) -> None:
        """Fetches until cancelled."""
        failures = 0
        while True:
            pause = await self.fetch()
            if pause is not None:
                failures = 0
            else:
                failures += 1
                pause = min(KEYS_RETRY_SECONDS * 2 ** min(failures - 1, 5), KEYS_LEAST_SECONDS)
            await asyncio.sleep(pause)

    async def fetch(self) -> float | None:
        """Seconds until the next fetch; None when this one failed."""
        for server in self._servers.fit():
            try:
                answer = await self._client.get(server, KEYS_PATH, most=LONGEST_KEYS)
            except CallError as error:
                self.detail = str(error)
                continue
            if answer.status != 200:
                self.detail = f"{KEYS_PATH} answers {answer.status}"
            elif not self._fetched(answer.body):
                self.detail = f"{KEYS_PATH} is no usable key set"
            else:
                self.detail = ""
                return keys_lifetime(answer.cache_control)
        return None


# -- token reviews


class Reviewer:
    """Carries out the reviews that ``Reviews`` wishes for, a few at a time."""

    def __init__(self, reviews: Reviews, client: ApiClient, servers: Servers) -> None:
        self._reviews = reviews
        self._client = client
        self._servers = servers
        self._wished = asyncio.Event()
        reviews.wished = self._wished.set

    async def run(self) -> None:
        """Reviews until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT_REVIEWS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            review = self._reviews.next_wish()
            if review is None:
                self._wished.clear()
                await self._wished.wait()
                continue
            await self._carry_out(review)

    async def _carry_out(self, review: Review) -> None:
        """Every review that was taken is reported, whatever happens to it."""
        body = None
        try:
            body = await self._ask(review)
        finally:
            if body is None:
                self._reviews.failed(review, time.monotonic())
            else:
                self._reviews.answered(review, body, time.monotonic())

    async def _ask(self, review: Review) -> bytes | None:
        for server in self._servers.fit()[:1]:
            with contextlib.suppress(CallError):
                answer = await self._client.post(
                    server, reviews.PATH, review.body, most=LONGEST_REVIEW
                )
                if answer.status in (200, 201):
                    return answer.body
                _log.warning("a TokenReview was answered %d", answer.status)
        return None


def first_fit(urls: Iterable[tuple[str, bool, bool]]) -> list[str]:
    """URLs worth asking: (url, fit, usable) -> the fit, or when there is none the usable."""
    known = list(urls)
    fit = [url for url, is_fit, _ in known if is_fit]
    return fit or [url for url, _, is_usable in known if is_usable]
