"""Logs: one JSON object a line, on stderr.

Values may come from clients, so every control character is escaped and every field cut. A reader
that stopped reading (a full pipe, a full disk) must not stop the guard: a thread writes, lines
wait in a bounded queue, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

Field = str | int | float | bool | None

MAX_FIELD = 1_024
MAX_FIELDS = 48
QUOTES_REQUESTS: Final = ("aiohttp.server", "aiohttp.web")
MAX_WAITING = 1_000


def line(level: str, message: str, fields: Mapping[str, Field], unix: float) -> bytes:
    """The log line, with its newline; keys of ``fields`` never replace time, level and message."""
    when = datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")
    record: dict[str, Field] = {
        "time": when.replace("+00:00", "Z"),
        "level": level,
        "msg": _cut(message),
    }
    for name, value in list(fields.items())[:MAX_FIELDS]:
        record.setdefault(_cut(name), _cut(value) if isinstance(value, str) else value)
    # json escapes C0 controls and, as ASCII, everything above 0x7e except DEL itself.
    return json.dumps(record).replace("\x7f", "\\u007f").encode("ascii") + b"\n"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_FIELD else f"{text[:MAX_FIELD]}…({len(text)} characters)"


class Log(Protocol):
    """Where the runtime says what it does."""

    def info(self, message: str, /, **fields: Field) -> None: ...
    def warning(self, message: str, /, **fields: Field) -> None: ...
    def error(self, message: str, /, **fields: Field) -> None: ...


class RelayLog:
    """Hands lines to ``send(level, message, fields)``: a worker's log goes to its supervisor."""

    def __init__(self, send: Callable[[str, str, dict[str, Field]], None]) -> None:
        self._send = send

    def info(self, message: str, /, **fields: Field) -> None:
        self._send("info", message, fields)

    def warning(self, message: str, /, **fields: Field) -> None:
        self._send("warning", message, fields)

    def error(self, message: str, /, **fields: Field) -> None:
        self._send("error", message, fields)


class Bridge(logging.Handler):
    """What libraries and asyncio log, as lines of ours; warnings and worse only.

    A traceback is kept from its end, where the cause is.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Field] = {"logger": record.name}
        if record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info)
            fields["traceback"] = trace[-MAX_FIELD:]
        write = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        write(record.getMessage(), **fields)

    def install(self) -> None:
        """Takes over the root logger, and silences aiohttp's own words about bad requests: they
        quote what was sent, and a request line or header may hold a token."""
        logging.basicConfig(handlers=[self], level=logging.WARNING, force=True)
        for name in QUOTES_REQUESTS:
            logging.getLogger(name).setLevel(logging.CRITICAL)


class StreamLog(RelayLog):
    """Writes lines to a descriptor from a thread of its own; ``dropped`` counts those lost."""

    def __init__(
        self, descriptor: int | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(self.write)
        self._descriptor = sys.stderr.fileno() if descriptor is None else descriptor
        self._clock = clock
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self.dropped = 0
        self._thread.start()

    def write(self, level: str, message: str, fields: Mapping[str, Field]) -> None:
        try:
            self._waiting.put_nowait(line(level, message, fields, self._clock()))
        except queue.Full:
            self.dropped += 1

    def close(self, seconds: float = 1.0) -> None:
        """Writes what waits, for at most ``seconds``; afterwards the descriptor is the caller's.

        Also with a full queue: a writer left behind would write into whatever file is next to
        get the descriptor's number.
        """
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=seconds)
        self._thread.join(seconds)

    def _run(self) -> None:
        while (data := self._waiting.get()) is not None:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                self.dropped += 1
