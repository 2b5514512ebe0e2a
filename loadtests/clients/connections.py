"""HTTP/1.1 over TLS as Go's transport uses it: idle connections kept, a stream has its own.

``http.client`` on gevent's sockets. geventhttpclient costs half the CPU, but follows redirects,
keeps cookies and hides which bytes arrived when; requests and urllib3 cost three times as much.
"""

from __future__ import annotations

import http.client
import select
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import gevent
from gevent import monkey

from .credentials import Access

CONNECT_SECONDS = 30.0  # Go's dialer
_READ = 1 << 16
_poll = monkey.get_original("select", "poll")  # gevent's would let others run


class BrokenError(Exception):
    """No answer: refused, reset, or ended in the middle. ``stale`` if on a kept connection."""

    def __init__(self, why: str, *, stale: bool = False) -> None:
        super().__init__(why)
        self.stale = stale


class LateError(Exception):
    """No whole answer within the client's own deadline."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Header names in lower case. ``size`` is the body's as it was sent; ``body`` is unpacked, and
    empty if it was not asked for."""

    code: int
    headers: Mapping[str, str]
    body: bytes
    size: int


class Stream:
    """An open answer. ``read`` returns b"" at its end, and raises ``BrokenError``."""

    def __init__(
        self, connection: http.client.HTTPSConnection, response: http.client.HTTPResponse
    ) -> None:
        self._connection = connection
        self._response = response
        self.code = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    def read(self) -> bytes:
        try:
            return self._response.read1(_READ)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokenError(str(error)) from None

    def close(self) -> None:
        self._response.close()
        self._connection.close()


class Connections:
    """Those of one client. Any number of greenlets may use them at once."""

    def __init__(self, access: Access, headers: Mapping[str, str]) -> None:
        self._access = access
        self._headers = {**access.headers, **headers}
        self._idle: list[http.client.HTTPSConnection] = []

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        seconds: float,
        keep: bool = True,
    ) -> Answer:
        """The whole answer; without ``keep`` its body is read and dropped.

        Raises ``BrokenError`` or ``LateError``. As Go does, a GET that met a connection which the
        server had closed meanwhile is sent again on another.
        """
        with gevent.Timeout(seconds, LateError(f"no answer within {seconds:g} s")):
            while True:
                try:
                    return self._try(method, target, headers, body, keep)
                except BrokenError as error:
                    if method != "GET" or not error.stale:
                        raise

    def stream(self, target: str, headers: Mapping[str, str]) -> Stream:
        """A GET whose answer is read as it comes. Raises ``BrokenError``."""
        connection = self._open()
        try:
            connection.request("GET", target, headers={**self._headers, **headers})
            stream = Stream(connection, connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise BrokenError(str(error)) from None
        except BaseException:
            connection.close()
            raise
        return stream

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> http.client.HTTPSConnection | None:
        """The idle connection used last of those the server has not closed meanwhile.

        Go reads idle connections and so notices; what is readable here is such a farewell, too.
        """
        while self._idle:
            connection = self._idle.pop()
            poll = _poll()
            poll.register(connection.sock, select.POLLIN)
            if not poll.poll(0):
                return connection
            connection.close()
        return None

    def _open(self) -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection(
            self._access.host, self._access.port, timeout=CONNECT_SECONDS, context=self._access.tls
        )
        try:
            made.connect()
        except OSError as error:
            made.close()
            raise BrokenError(str(error)) from None
        except BaseException:
            made.close()
            raise
        made.sock.settimeout(None)
        made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _try(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        keep: bool,
    ) -> Answer:
        kept = self._take()
        reused = kept is not None
        connection = kept or self._open()
        answered = False
        try:
            connection.request(method, target, body=body, headers={**self._headers, **headers})
            response = connection.getresponse()
            answered = True
            answer = _read_whole(response, keep)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise BrokenError(str(error), stale=reused and not answered) from None
        except BaseException:
            # A deadline, or the end of the client: the answer may still be under way.
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return answer


def _read_whole(response: http.client.HTTPResponse, keep: bool) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    if keep:
        raw = response.read()
        size = len(raw)
        zipped = headers.get("content-encoding") == "gzip"
        body = zlib.decompress(raw, wbits=31) if zipped else raw
    else:
        body, size = b"", 0
        while part := response.read(_READ):
            size += len(part)
    return Answer(response.status, headers, body, size)
