"""A reflector: follows one collection as client-go/tools/cache/reflector.go does.

::

            start ----------------------------+
              |                               |
     list, or watch-list  <---- backoff ---- any other error, 410, over at once
              |                               ^
            watch ---- 429, refused: backoff -+- the same version again
              ^  |
              +--+ ended: again from the last version

What a client of a cluster feels is how long it is not in step: the operation ``sync`` lasts from
the need of a list to its whole answer, whatever was tried meanwhile.
"""

from __future__ import annotations

import enum
import random
import time

import gevent

from apiguard.kube.framing import EventType
from apiguard.kube.objects import ObjectError

from .backoff import Backoff
from .connections import BrokenError, Stream
from .decoding import Event, Events, Listed, read_list
from .queries import Collection
from .recording import Operation, Recorder
from .rest import TOO_MANY, Rest

VERY_SHORT = 1.0  # seconds: a watch that ends sooner without an event is an error
GONE = 410
FOREVER = 1e6  # seconds


class Fate(enum.Enum):
    """How a watch ended, as the reflector takes it."""

    ENDED = "watch again"
    REFUSED = "back off, watch again"
    LOST = "back off, list again"
    EXPIRED = "list again at any version"


class Reflector:
    """``run`` never returns. ``list_seconds`` is the client's own deadline for a LIST.

    ``stalled`` reads nothing of its watch once it is in step, as a client that hangs.
    """

    def __init__(
        self,
        rest: Rest,
        recorder: Recorder,
        collection: Collection,
        rng: random.Random,
        *,
        watch_list: bool = True,
        list_seconds: float = 60.0,
        gzip: bool = True,
        stalled: bool = False,
    ) -> None:
        self._rest = rest
        self._recorder = recorder
        self._collection = collection
        self._rng = rng
        self._watch_list = watch_list
        self._list_seconds = list_seconds
        self._stalled = stalled
        self._headers = {"Accept": collection.accept}
        self._list_headers = self._headers | ({"Accept-Encoding": "gzip"} if gzip else {})
        self._backoff = Backoff(rng)
        self._version = ""  # the last one seen, "" before the first list
        self._from = "0"  # what the next LIST asks for
        self._items = 0
        self._events = Events("")

    def run(self) -> None:
        while True:
            stream = self._synchronise()
            fate = self._follow(stream) if stream is not None else Fate.ENDED
            while fate in (Fate.ENDED, Fate.REFUSED):
                if fate is Fate.REFUSED:
                    self._pause()
                fate = self._watch()
            self._recorder.note("relist")
            self._from = "" if fate is Fate.EXPIRED else self._version
            self._pause()

    # -- getting in step

    def _synchronise(self) -> Stream | None:
        """Until the collection is known; the stream that goes on, if it came by one."""
        running = self._recorder.begin("sync")
        while True:
            if self._watch_list:
                stream = self._initial_events(running)
                if stream is not None:
                    running.end(200)
                    return stream
            elif self._list():
                running.end(200)
                return None
            running.attempts += 1
            self._pause()

    def _initial_events(self, running: Operation) -> Stream | None:
        seconds = self._rng.randint(*self._collection.seconds)
        try:
            stream = self._rest.watch(self._collection.watch_list(seconds), self._headers)
        except BrokenError:
            return None
        try:
            if stream.code == 200 and self._reach_end(stream):
                return stream
        except (BrokenError, ObjectError):
            pass
        stream.close()
        running.refusals += stream.code == TOO_MANY
        # A server that knows no sendInitialEvents says so at once: lists are the way then.
        self._watch_list = stream.code not in (400, 422)
        return None

    def _reach_end(self, stream: Stream) -> bool:
        """Reads up to the bookmark that ends initial events."""
        self._events = Events(stream.headers.get("content-type", ""))
        items, size = 0, 0
        begun = time.monotonic()
        while data := stream.read():
            size += len(data)
            for event in self._events.receive(data):
                if event.type is EventType.ERROR:
                    return False
                items += event.type is EventType.ADDED
                if event.ends_initial:
                    self._version = event.version
                    self._note_items(items, time.monotonic() - begun)
                    return True
        return False

    def _list(self) -> bool:
        """All pages of a LIST; false if one failed."""
        items, token = 0, ""
        begun = time.monotonic()
        while True:
            page = self._page(token)
            if page is None:
                return False
            items, token = items + page.items, page.token
            if not token:
                self._version = page.version
                self._note_items(items, time.monotonic() - begun)
                return True

    def _page(self, token: str) -> Listed | None:
        target = self._collection.list("" if token else self._from)
        if token:
            target += f"&continue={token}"
        answer = self._rest.do(
            "list", "GET", target, self._list_headers, seconds=self._list_seconds
        )
        if answer is None or answer.code != 200:
            if answer is not None and answer.code == GONE:
                self._from = ""
            return None
        try:
            return read_list(answer.body, answer.headers.get("content-type", ""))
        except ObjectError:
            return None

    def _note_items(self, items: int, took: float) -> None:
        if self._items and not items:
            self._recorder.note("emptied")
        self._items = items
        self._recorder.note("items", took, items)

    # -- staying in step

    def _watch(self) -> Fate:
        seconds = self._rng.randint(*self._collection.seconds)
        try:
            stream = self._rest.watch(self._collection.watch(self._version, seconds), self._headers)
        except BrokenError:
            return Fate.REFUSED
        if stream.code == TOO_MANY:
            stream.close()
            return Fate.REFUSED
        if stream.code != 200:
            stream.close()
            return Fate.EXPIRED if stream.code == GONE else Fate.LOST
        self._events = Events(stream.headers.get("content-type", ""))
        return self._follow(stream)

    def _follow(self, stream: Stream) -> Fate:
        begun, seen = time.monotonic(), 0
        try:
            while data := self._read(stream):
                events = self._events.receive(data)
                seen += len(events)
                for event in events:
                    if event.type is EventType.ERROR:
                        return Fate.EXPIRED if event.code == GONE else Fate.LOST
                    self._take(event)
        except (BrokenError, ObjectError):
            self._recorder.note("cut")
        finally:
            stream.close()
        self._recorder.note("watch ended")
        if not seen and time.monotonic() - begun < VERY_SHORT:
            return Fate.LOST
        return Fate.ENDED

    def _read(self, stream: Stream) -> bytes:
        if self._stalled:
            gevent.sleep(FOREVER)
        return stream.read()

    def _take(self, event: Event) -> None:
        self._version = event.version
        if event.type is EventType.ADDED:
            self._items += 1
        elif event.type is EventType.DELETED:
            self._items -= 1
        if event.stamp:
            self._recorder.note("delivery", time.monotonic() - event.stamp)

    def _pause(self) -> None:
        gevent.sleep(self._backoff.next(time.monotonic()))
