"""Requests as client-go's REST client sends them: client-go/rest/with_retry.go, request.go.

A 429 or any 5xx with an integer Retry-After is sent again after exactly that time, up to ten
times, whatever the method. A GET is sent again a second after its connection broke.
"""

from __future__ import annotations

from collections.abc import Mapping

import gevent

from .connections import Answer, BrokenError, Connections, LateError, Stream
from .recording import BROKEN, LATE, Operation, Recorder

MOST_RETRIES = 10
BROKEN_PAUSE = 1.0  # seconds
TOO_MANY = 429


class Rest:
    """One client's way to the API. Every operation becomes one sample."""

    def __init__(
        self, connections: Connections, recorder: Recorder, *, retries: int = MOST_RETRIES
    ) -> None:
        self._connections = connections
        self._recorder = recorder
        self._retries = retries

    def do(
        self,
        operation: str,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        seconds: float = 60.0,
        keep: bool = True,
    ) -> Answer | None:
        """The last answer, or None for none; ``seconds`` for each attempt."""
        running = self._recorder.begin(operation)
        try:
            answer = self.attempt(
                running, method, target, headers, body, seconds=seconds, keep=keep
            )
        except LateError:
            running.end(LATE)
        except BrokenError:
            running.end(BROKEN)
        else:
            running.end(answer.code, answer.size)
            return answer
        return None

    def attempt(
        self,
        running: Operation,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        seconds: float,
        keep: bool = True,
    ) -> Answer:
        """As ``do`` for an operation of the caller's; raises ``BrokenError``, ``LateError``."""
        for left in range(self._retries, -1, -1):
            running.attempts += 1
            try:
                answer = self._connections.request(
                    method, target, headers, body, seconds=seconds, keep=keep
                )
            except BrokenError:
                if method != "GET" or not left:
                    raise
                gevent.sleep(BROKEN_PAUSE)
                continue
            running.refusals += answer.code == TOO_MANY
            pause = retry_after(answer.code, answer.headers)
            if pause is None or not left:
                return answer
            gevent.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def watch(self, target: str, headers: Mapping[str, str]) -> Stream:
        """The answer to a watch, whatever its code; the reflector judges it.

        Raises ``BrokenError``. Opening is an operation of its own.
        """
        running = self._recorder.begin("watch")
        for left in range(self._retries, -1, -1):
            running.attempts += 1
            try:
                stream = self._connections.stream(target, headers)
            except BrokenError:
                running.end(BROKEN)
                raise
            running.refusals += stream.code == TOO_MANY
            pause = retry_after(stream.code, stream.headers)
            if pause is None or not left:
                running.end(stream.code)
                return stream
            stream.close()
            gevent.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def retry_after(code: int, headers: Mapping[str, str]) -> float | None:
    """Seconds until the next attempt; None for none. Dates are ignored, as there."""
    text = headers.get("retry-after", "")
    if (code == TOO_MANY or code >= 500) and text.isdecimal():
        return float(text)
    return None
