"""A watch on the wire: initial events, live events, bookmarks, deadline.

Live events reach the transport straight from the ``Hub``; the coroutine of a stream only sleeps
until a bookmark is due, the deadline passes or its transport has drained. Waking 2,000
coroutines per change instead costs several times the write itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp.abc import AbstractStreamWriter

from apiguard.demo import problems, representations
from apiguard.demo.negotiation import PARTIAL_LIST, TABLE, Representation
from apiguard.demo.options import WatchOptions
from apiguard.demo.resources import Resource
from apiguard.demo.store import CompactedError, Store
from apiguard.demo.verbs import select
from apiguard.demo.watching import Hub, Watcher, chunk

BOOKMARK_EVERY = 60.0  # seconds, kube-apiserver's
BOOKMARK_BEFORE_DEADLINE = 2.0  # seconds
FRESHNESS_WAIT = 3.0  # seconds a watch or list waits for a revision it was told of
# Bytes a transport may hold unsent before its watcher reads from the log instead; above the
# transport's own high-water mark, or draining would not wait.
TRANSPORT_BOUND = 256 << 10
# Initial events are written in chunks of about this size.
_INITIAL_CHUNK = 64 << 10


@dataclass(slots=True)
class Watch:
    """One watch request, decided; ``timeout`` in seconds."""

    resource: Resource
    namespace: str
    options: WatchOptions
    representation: Representation
    timeout: float


async def reach(store: Store, revision: int) -> bool:
    """Waits until the store has ``revision``, at most ``FRESHNESS_WAIT`` seconds."""
    if store.revision >= revision:
        return True
    reached = asyncio.Event()

    def look(current: int) -> None:
        if current >= revision:
            reached.set()

    store.listeners.append(look)
    try:
        await asyncio.wait_for(reached.wait(), FRESHNESS_WAIT)
    except TimeoutError:
        return False
    finally:
        store.listeners.remove(look)
    return True


class WatchStream:
    """Serves one watch over a prepared, chunked response; ``writer`` is that of its request."""

    def __init__(
        self,
        watch: Watch,
        store: Store,
        hub: Hub,
        writer: AbstractStreamWriter,
        transport: asyncio.WriteTransport,
        clock: Callable[[], float],
        bookmark_every: float = BOOKMARK_EVERY,
    ) -> None:
        self._watch = watch
        self._bookmark_every = bookmark_every
        self._store = store
        self._hub = hub
        self._writer = writer
        self._transport = transport
        self._clock = clock
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Streams until the deadline; errors after the head are ERROR events."""
        deadline = self._loop.time() + self._watch.timeout
        options = self._watch.options
        if not await reach(self._store, options.waits_for):
            self._end_with(problems.too_large_revision(options.waits_for, self._store.revision))
            return
        if self._watch.representation.transform == PARTIAL_LIST:
            return  # an event is no list: upstream fails to convert the first one and ends
        if self._hub.stalled:
            await self._stalled(deadline)
        collection = self._store.collections[self._watch.resource]
        start = self._store.revision if options.revision is None else options.revision
        watcher = Watcher(
            collection,
            self._watch.namespace,
            options.selectors,
            self._watch.representation,
            start,
            self._write,
            self._wake.set,
        )
        # Joined and caught up in one go: no change can fall between history and live events.
        try:
            if options.initial:
                self._write_initial(watcher)
            watcher.lagging = not watcher.catch_up(self._clock())
            self._hub.join(watcher)
            await self._live(watcher, deadline)
            if watcher.error is not None:
                self._end_with(watcher.error)
        except CompactedError as error:
            self._end_with(problems.too_old_revision(watcher.cursor, error.oldest))
        finally:
            self._hub.leave(watcher)

    def _write_initial(self, watcher: Watcher) -> None:
        watch = self._watch
        items = watcher.collection.items()
        pending: list[bytes] = []
        size = 0
        for item in select(items, watch.namespace, watch.options.selectors):
            if watch.representation.transform == TABLE:
                columns, watcher.columns_sent = not watcher.columns_sent, True
                frame = representations.table_event(
                    "ADDED", item, watch.representation, self._clock(), columns=columns
                )
            else:
                frame = representations.plain_event("ADDED", item, watch.representation)
            pending.append(frame)
            size += len(frame)
            if size >= _INITIAL_CHUNK:
                self._write(chunk(b"".join(pending)))
                pending.clear()
                size = 0
        if watch.options.end_bookmark:
            pending.append(self._bookmark(watcher.cursor, initial_end=True))
        if pending:
            self._write(chunk(b"".join(pending)))

    async def _live(self, watcher: Watcher, deadline: float) -> None:
        next_bookmark = self._next_bookmark(deadline)
        while (now := self._loop.time()) < deadline and not self._over(watcher):
            if self._hub.stalled:
                await self._sleep(deadline - now)
            elif watcher.lagging:
                self._wake.clear()
                await self._writer.drain()
                if watcher.catch_up(self._clock()):
                    continue
            elif now >= next_bookmark:
                self._offer_bookmark(watcher)
                next_bookmark = self._next_bookmark(deadline)
            else:
                await self._sleep(min(next_bookmark, deadline) - now)

    def _over(self, watcher: Watcher) -> bool:
        return watcher.ended or self._transport.is_closing()

    async def _stalled(self, deadline: float) -> None:
        """Before the first byte of a watch that came while the others were stalled."""
        self._hub.waiting.append(self._wake.set)
        try:
            while self._hub.stalled and (now := self._loop.time()) < deadline:
                await self._sleep(deadline - now)
        finally:
            self._hub.waiting.remove(self._wake.set)

    async def _sleep(self, seconds: float) -> None:
        self._wake.clear()
        timer = self._loop.call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _next_bookmark(self, deadline: float) -> float:
        if not self._watch.options.bookmarks or not self._watch.resource.cached:
            return deadline
        now = self._loop.time()
        last = deadline - BOOKMARK_BEFORE_DEADLINE
        regular = now + self._bookmark_every
        if now < last:
            return min(regular, last)
        return deadline

    def _offer_bookmark(self, watcher: Watcher) -> None:
        revision = self._store.revision
        if revision >= watcher.cursor:
            self._write(chunk(self._bookmark(revision, initial_end=False)))

    def _bookmark(self, revision: int, *, initial_end: bool) -> bytes:
        watch = self._watch
        return representations.bookmark(
            watch.resource, revision, watch.representation, initial_end=initial_end
        )

    def _write(self, data: bytes) -> bool:
        # A closed transport of uvloop raises on write, here into whoever changed the store.
        if self._transport.is_closing():
            return True
        self._transport.write(data)
        return self._transport.get_write_buffer_size() < TRANSPORT_BOUND

    def _end_with(self, error: problems.ApiError) -> None:
        self._write(chunk(representations.error_event(error, self._watch.representation)))
