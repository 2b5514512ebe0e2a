"""A reflector with client-go's manners, which minds what client-go only relies on.

It lists at revision 0 and watches from there, or has the watch begin with the state (WatchList);
asks for bookmarks, resumes behind the last revision it saw, and starts over where it is told 410.
Unlike client-go it notes every event that cannot follow what it holds. Source: client-go
tools/cache/reflector.go.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlencode

import msgspec

from apiguard.kube.framing import (
    INITIAL_EVENTS_END,
    EventType,
    RawEvent,
    error_code,
    frame_splitter,
)
from apiguard.kube.lists import list_splitter
from apiguard.kube.objects import (
    NO_FIELDS,
    Peeked,
    parse_resource_version,
    peeker,
    protobuf_version,
    unwrap,
)
from apiguard.kube.status import Representation
from tests.e2e.stands import ADMIN, Way

BACKOFF = (0.05, 0.3)
"""Seconds before the next attempt; client-go waits longer, and in vain."""

_METADATA = ";as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"


class _Bookmark(msgspec.Struct, frozen=True):
    metadata: dict[str, object]


class Reflector:
    """Follows ``collection`` in a thread of its own. ``store``: "ns/name" -> resourceVersion.

    ``lists`` counts states taken whole, by LIST or WatchList; ``violations`` says what no client
    could have relied on.
    """

    def __init__(
        self,
        way: Way,
        collection: str,
        *,
        form: Representation = Representation.JSON,
        metadata: bool = False,
        watch_list: bool = False,
        selectors: dict[str, str] | None = None,
        rng: random.Random,
        seconds: int = 300,
    ) -> None:
        """``seconds`` a watch asks for."""
        self.store: dict[str, int] = {}
        self.synced = threading.Event()
        self.lists = 0
        self.watches = 0
        self.expired = 0
        self.violations: list[str] = []
        self._way = way
        self._collection = collection
        self._form = form
        self._metadata = metadata
        self._watch_list = watch_list
        self._selectors = selectors or {}
        self._rng = rng
        self._seconds = seconds
        self._revision = 0
        self._relist_at = "0"
        self._peek = peeker(form, NO_FIELDS)
        self._ending = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever reads from it
        self._thread.join(10)

    def __str__(self) -> str:
        manner = "WatchList" if self._watch_list else "list"
        what = f"{self._collection} {self._selectors} {self._form.name} metadata={self._metadata}"
        counts = f"{self.lists} lists, {self.watches} watches, {self.expired} expired"
        return f"{what} by {manner}: {counts}"

    # -- one round -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ending.is_set():
            # A connection broke, or was closed under us: what is held stays true.
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                self._round()
            self._ending.wait(self._rng.uniform(*BACKOFF))

    def _round(self) -> None:
        if not self._revision and not self._watch_list:
            self._list()
        if self._revision or self._watch_list:
            self._watch()

    def _list(self) -> None:
        with self._get({"resourceVersion": self._relist_at, "limit": "500"}, "List") as answer:
            code, body = answer.status, answer.read()
        if code != 200:
            self._relist_at = "" if code in (410, 504) else self._relist_at
            return
        splitter = list_splitter(self._form, self._peek)
        items = splitter.receive_data(body)
        last, envelope = splitter.receive_eof()
        if envelope.token:
            self.violations.append("a page where everything was to come")
        self._replace([one.peeked for one in (*items, *last)], envelope.resource_version)

    def _replace(self, listed: list[Peeked], revision: int) -> None:
        self.lists += 1
        self.store = {_key(one): one.resource_version for one in listed}
        self._revision = revision
        self._relist_at = str(revision)
        self.synced.set()

    def _watch(self) -> None:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(self._seconds),
        }
        initial: list[Peeked] | None = None
        if self._revision:
            query["resourceVersion"] = str(self._revision)
        else:
            initial = []
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            if self._relist_at != "0":
                query["resourceVersion"] = self._relist_at
        with self._get(query, "") as answer:
            if answer.status == 200:
                self.watches += 1
                self._receive(answer, initial)

    def _receive(self, answer: http.client.HTTPResponse, initial: list[Peeked] | None) -> None:
        splitter = frame_splitter(self._form)
        while piece := answer.read1(1 << 16):
            for event in splitter.receive_data(piece):
                if event.type is EventType.ERROR:
                    self._told(error_code(event, self._form))
                    return
                initial = self._take(event, initial)

    def _told(self, code: int) -> None:
        if code == 410:
            self.expired += 1
            self._revision, self._relist_at = 0, ""

    def _take(self, event: RawEvent, initial: list[Peeked] | None) -> list[Peeked] | None:
        body = event.body
        if self._form is Representation.PROTOBUF:
            body = unwrap(body).raw
        if event.type is EventType.BOOKMARK:
            return self._bookmark(body, initial)
        found = self._peek(body)
        if initial is None:
            self._apply(event.type, found)
        elif event.type is EventType.ADDED:
            initial.append(found)
        else:
            self.violations.append(f"{event.type} among the initial events")
        return initial

    def _bookmark(self, body: bytes, initial: list[Peeked] | None) -> list[Peeked] | None:
        if self._form is Representation.PROTOBUF:
            revision = protobuf_version(body)
        else:
            metadata = msgspec.json.decode(body, type=_Bookmark).metadata
            revision = parse_resource_version(str(metadata["resourceVersion"]))
        ends = INITIAL_EVENTS_END.encode() in body
        if ends is not (initial is not None):
            self.violations.append("a bookmark that ends what was not begun, or does not end it")
        if revision < self._revision:
            self.violations.append(f"a bookmark at {revision} after {self._revision}")
        if initial is not None and ends:
            self._replace(initial, revision)
        self._revision = revision
        return None

    def _apply(self, kind: EventType, found: Peeked) -> None:
        key, revision = _key(found), found.resource_version
        if revision <= self._revision:
            self.violations.append(f"{kind} {key} at {revision} after {self._revision}")
        if (kind is EventType.ADDED) is (key in self.store):
            self.violations.append(f"{kind} {key} at {revision}: held {self.store.get(key)}")
        if kind is EventType.DELETED:
            self.store.pop(key, None)
        else:
            self.store[key] = revision
        self._revision = revision

    @contextlib.contextmanager
    def _get(self, query: dict[str, str], suffix: str) -> Iterator[http.client.HTTPResponse]:
        connection = self._way.connect()
        accept = self._form.value + (_METADATA.format(suffix) if self._metadata else "")
        target = f"{self._collection}?{urlencode({**query, **self._selectors})}"
        headers = {"Authorization": f"Bearer {ADMIN}", "Accept": accept}
        try:
            connection.connect()
            self._socket = connection.sock
            connection.request("GET", target, headers=headers)
            with connection.getresponse() as answer:
                yield answer
        finally:
            connection.close()


def _key(found: Peeked) -> str:
    return f"{found.namespace}/{found.name}"
