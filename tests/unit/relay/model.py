"""An API server as a model, a relay in front of it, and informers behind: no sockets, no clock.

``ModelServer`` is the truth: every state it ever had is kept. ``Stand`` runs a real cache,
reflector and fanout against it, fulfilling wishes when told to, and ``Informer`` does what
client-go's does with the bytes it gets, checking what must hold at every step.
"""

from __future__ import annotations

import json
import random
from typing import Any

from apiguard.kube.framing import (
    INITIAL_EVENTS_END,
    EventType,
    JsonFrameSplitter,
    RawEvent,
)
from apiguard.relay.bodies import BodyCache
from apiguard.relay.eventlog import Frame, LogBounds
from apiguard.relay.fanout import Fanout
from apiguard.relay.item import Item
from apiguard.relay.listing import ListQuery, Reading, ServeList, answer, decide_list
from apiguard.relay.reflector import (
    Failure,
    ListFrom,
    Pause,
    Phase,
    Reflector,
    WatchFrom,
    Wish,
)
from apiguard.relay.selection import Fields, Selection
from apiguard.relay.store import WatchCache
from apiguard.relay.watcher import Ending, State, Watcher
from apiguard.relay.watching import (
    Begin,
    BeginExpired,
    WatchQuery,
    decide_watch,
)

from .building import bookmark, event, listed, peek_item, pod, read_list, spec, whole

Pod = dict[str, Any]
World = dict[str, Pod]


class ModelServer:
    """Revisions count up by one per write; ``states`` maps every revision to all objects then."""

    def __init__(self, revision: int = 100) -> None:
        self.revision = revision
        self.objects: World = {}
        self.states: dict[int, World] = {revision: {}}
        self.events: list[tuple[int, RawEvent]] = []
        self.compacted = revision
        self._uids = 0
        self._items: dict[int, Item] = {}  # by identity: no object of a state is ever freed
        self._visible: dict[tuple[int, Selection], dict[str, str]] = {}

    def write(self, key: str, labels: str, node: str) -> None:
        held = self.objects.get(key)
        self.revision += 1
        if held is None:
            self._uids += 1
        uid = held["metadata"]["uid"] if held else f"u{self._uids}"
        value = pod(key, self.revision, labels={"app": labels}, node=node, uid=uid)
        self.objects[key] = value
        self._happened(EventType.MODIFIED if held else EventType.ADDED, value)

    def delete(self, key: str) -> None:
        held = self.objects.pop(key, None)
        if held is not None:
            self.revision += 1
            self._happened(EventType.DELETED, held)

    def pass_by(self) -> None:
        """Another resource was written."""
        self.revision += 1
        self.states[self.revision] = dict(self.objects)

    def _happened(self, kind: EventType, value: Pod) -> None:
        self.states[self.revision] = dict(self.objects)
        self.events.append((self.revision, event(kind, value, self.revision)))

    def compact(self) -> None:
        self.compacted = self.revision

    def list(self) -> bytes:
        return listed(self.objects.values(), self.revision)

    def restored(self, revision: int) -> ModelServer:
        """The storage as it was at an earlier revision, from a backup."""
        old = ModelServer(revision)
        old.objects = dict(self.states[revision])
        old.states = {at: state for at, state in self.states.items() if at <= revision}
        old._uids = self._uids + 100
        return old

    def visible(self, revision: int, selection: Selection) -> dict[str, str]:
        """Key -> resourceVersion of what ``selection`` shows at ``revision``."""
        found = self._visible.get((revision, selection))
        if found is None:
            chosen = selection.compile(_FIELDS)
            found = {
                key: value["metadata"]["resourceVersion"]
                for key, value in self.states[revision].items()
                if chosen(self._item(value))
            }
            self._visible[revision, selection] = found
        return found

    def _item(self, value: Pod) -> Item:
        found = self._items.get(id(value))
        if found is None:
            found = self._items[id(value)] = peek_item(value)
        return found


_FIELDS = Fields(spec().table.slots, spec().table.constant)


class Line:
    """A transport: takes everything, has room for ``capacity`` frames."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.waiting: list[bytes] = []
        self.ending: Ending | None = None

    def write(self, frame: Frame) -> bool:
        assert self.ending is None, "written to after the end"
        self.waiting.append(frame.data)
        return len(self.waiting) < self.capacity

    def end(self, ending: Ending) -> None:
        assert self.ending is None, "ended twice"
        self.ending = ending


class Informer:
    """A client that lists once, then watches for good. ``relists`` counts lists after the first,
    ``told`` events received."""

    def __init__(self, selection: Selection, capacity: int, *, watch_list: bool) -> None:
        self.selection = selection
        self.capacity = capacity
        self.watch_list = watch_list
        self.store: dict[str, str] = {}
        self.revision = 0  # the resume point; 0 before the first list
        self.seen = 0  # the highest revision of an event of this stream
        self.relists = -1
        self.told = 0
        self.forgiving = False  # as client-go's store: an update adds, what is not there is deleted
        self.line: Line | None = None
        self.watcher: Watcher | None = None
        self._splitter = JsonFrameSplitter()
        self._starting: dict[str, str] | None = None  # initial events so far

    def replace(self, objects: dict[str, str], revision: int) -> None:
        assert revision >= self.revision, "a list from the past"
        self.store = objects
        self.revision = self.seen = revision
        self.relists += 1

    def connected(self, line: Line, watcher: Watcher, *, initial: bool) -> None:
        self.line, self.watcher = line, watcher
        self._splitter = JsonFrameSplitter()
        self._starting = {} if initial else None
        self.seen = self.revision

    def receive(self, server: ModelServer) -> bool:
        """Reads what its line holds; returns whether the stream is over."""
        assert self.line is not None
        data = b"".join(self.line.waiting)
        self.line.waiting.clear()
        for raw in self._splitter.receive_data(data):
            self.hear(raw, server)
        return self.line.ending is not None and not self.line.waiting

    def hear(self, raw: RawEvent, server: ModelServer) -> None:
        self.told += 1
        value = json.loads(raw.body)
        if raw.type is EventType.ERROR:
            assert value["code"] == 410
            self.revision = 0
            return
        metadata = value["metadata"]
        revision = int(metadata["resourceVersion"])
        if self._starting is not None:
            self._hear_initial(raw.type, metadata, revision)
        elif raw.type is EventType.BOOKMARK:
            assert revision >= self.seen, "a bookmark behind an event"
            self.revision = self.seen = revision
        else:
            self._apply(raw.type, metadata, revision)
        if raw.type is EventType.BOOKMARK:
            assert self.store == server.visible(revision, self.selection), "an early bookmark"

    def _hear_initial(self, kind: EventType, metadata: Any, revision: int) -> None:
        assert self._starting is not None
        if kind is EventType.BOOKMARK:
            assert metadata["annotations"] == {INITIAL_EVENTS_END: "true"}
            assert list(self._starting) == sorted(self._starting), "initial events out of order"
            self.replace(self._starting, revision)
            self._starting = None
            return
        assert kind is EventType.ADDED
        key = f"{metadata['namespace']}/{metadata['name']}"
        assert key not in self._starting
        self._starting[key] = metadata["resourceVersion"]

    def _apply(self, kind: EventType, metadata: Any, revision: int) -> None:
        assert revision > self.seen, "out of order, or twice"
        self.revision = self.seen = revision
        key = f"{metadata['namespace']}/{metadata['name']}"
        if kind is EventType.DELETED:
            assert key in self.store or self.forgiving, "deleted what was not there"
            self.store.pop(key, None)
            return
        fits = (key in self.store) is (kind is EventType.MODIFIED)
        assert fits or self.forgiving, "something was missed"
        self.store[key] = metadata["resourceVersion"]


class Stand:
    """Server, relay and informers. Time passes only in ``tick``."""

    def __init__(self, server: ModelServer, seed: int, log: LogBounds | None = None) -> None:
        self.server = server
        self.now = 0.0
        self.rng = random.Random(seed)
        self.cache = WatchCache(spec(log=log))
        self.bodies = BodyCache()
        self.fanout = Fanout(self.cache, self.bodies, self.rng)
        self.reflector = Reflector(self.cache, self.fanout, self.rng)
        self.wish: Wish = self.reflector.start(self.now)
        self.informers: list[Informer] = []
        self.up = True
        self.passed = 0  # watches that went upstream
        self._open: Wish | None = None  # the upstream watch
        self._sent = 0  # revision up to which it was sent

    # --- upstream -------------------------------------------------------------------------------

    def fulfil(self) -> None:
        """Does what the reflector wishes, except to receive."""
        match self.wish:
            case Pause(seconds):
                self.now += seconds
                self.wish = self.reflector.resume(self.now)
            case ListFrom(revision):
                self.wish = self._list(revision)
            case WatchFrom() if self._open is self.wish:
                pass
            case WatchFrom(revision):
                if not self.up:
                    self.wish = self.reflector.failed(Failure(), self.now)
                elif revision < self.server.compacted:
                    self.wish = self.reflector.failed(Failure(410), self.now)
                else:
                    self._open, self._sent = self.wish, revision

    def _list(self, revision: int | None) -> Wish:
        if not self.up:
            return self.reflector.failed(Failure(503, 1.0), self.now)
        if revision is not None and revision > self.server.revision:
            return self.reflector.failed(Failure(504, 1.0), self.now)
        return self.reflector.listed(*read_list(self.server.list(), self.cache), self.now)

    def receive(self, most: int) -> None:
        """The next ``most`` events of the upstream watch arrive."""
        if self._open is not self.wish or not self.up:
            return
        due = [(at, raw) for at, raw in self.server.events if at > self._sent][:most]
        if due:
            self._sent = due[-1][0]
            self._heard([raw for _, raw in due])

    def receive_bookmark(self) -> None:
        """Upstream's bookmark: everything up to its revision was sent before."""
        self.receive(1 << 30)
        if self._open is self.wish and self.up and self._sent <= self.server.revision:
            self._sent = self.server.revision
            self._heard([bookmark(self._sent)])

    def _heard(self, events: list[RawEvent]) -> None:
        wish = self.reflector.received(events, self.now)
        if wish is not None:
            self.wish = wish

    def drop(self, *, code: int | None = None) -> None:
        """The upstream watch ends: cleanly, or with ``code`` (0: the connection is lost)."""
        if isinstance(self.wish, WatchFrom):
            if code is None:
                self.wish = self.reflector.ended(self.now)
            else:
                self.wish = self.reflector.failed(Failure(code), self.now)
            self.fulfil()

    def settle(self) -> None:
        """Everything gets through: upstream is up, the relay current, every line empty."""
        self.up = True
        for _ in range(200):
            self.fulfil()
            self.receive(1 << 30)
            self.receive_bookmark()
            self.tick(1.0)
            for informer in self.informers:
                informer.capacity = 1 << 30
                if informer.line is not None:
                    informer.line.capacity = 1 << 30
                self.connect(informer)
                self.drain(informer)

    # --- clients --------------------------------------------------------------------------------

    def join(self, selection: Selection, capacity: int, *, watch_list: bool) -> Informer:
        informer = Informer(selection, capacity, watch_list=watch_list)
        self.informers.append(informer)
        self.connect(informer)
        return informer

    def connect(self, informer: Informer) -> None:
        """Lists where it must and opens a watch where it has none."""
        if informer.line is not None or not self.cache.ready:
            return
        if not informer.revision and not informer.watch_list and not self._list_for(informer):
            return
        query = WatchQuery(
            informer.selection, informer.revision or 0, not informer.revision, bookmarks=True
        )
        decision = decide_watch(query, self.cache)
        if isinstance(decision, BeginExpired):
            informer.revision = 0
        elif isinstance(decision, Begin):
            line = Line(informer.capacity)
            watcher = self.fanout.open(decision, line, self.now + 300.0, self.now)
            informer.connected(line, watcher, initial=query.initial)
            if query.initial:
                informer.revision = 0
            self._pull(informer)
        else:
            self._upstream(informer)

    def _list_for(self, informer: Informer) -> bool:
        query = ListQuery(informer.selection, Reading.ANY)
        decision = decide_list(query, self.cache)
        assert isinstance(decision, ServeList)
        found = json.loads(whole(answer(decision, self.cache, self.bodies)))
        revision = int(found["metadata"]["resourceVersion"])
        objects = {
            f"{v['metadata']['namespace']}/{v['metadata']['name']}": v["metadata"][
                "resourceVersion"
            ]
            for v in found["items"]
        }
        assert objects == self.server.visible(revision, informer.selection), "a wrong list"
        informer.replace(objects, revision)
        return True

    def _upstream(self, informer: Informer) -> None:
        """The relay cannot resume: the watch is upstream's, which sends what it has or 410."""
        self.passed += 1
        if not self.up:
            return
        if informer.revision < self.server.compacted:
            informer.revision = 0
            return
        states, chosen = self.server.states, informer.selection
        for at in range(informer.revision + 1, self.server.revision + 1):
            before, after = (self.server.visible(n, chosen) for n in (at - 1, at))
            for key in before.keys() | after.keys():
                if before.get(key) != after.get(key):
                    kind = EventType.DELETED if key not in after else EventType.MODIFIED
                    kind = EventType.ADDED if key not in before else kind
                    value = states[at].get(key) or states[at - 1][key]
                    informer.hear(event(kind, value, at), self.server)

    def drain(self, informer: Informer) -> None:
        """The client reads all that waits; the relay may write on."""
        if informer.line is None:
            return
        over = informer.receive(self.server)
        if not over and informer.line.ending is None:
            self._pull(informer)
        elif over:
            informer.line = informer.watcher = None

    def _pull(self, informer: Informer) -> None:
        watcher, line = informer.watcher, informer.line
        assert watcher is not None
        assert line is not None
        while (
            line.ending is None
            and len(line.waiting) < line.capacity
            and watcher.state in (State.STARTING, State.LAGGING)
        ):
            self.fanout.pull(watcher, self.now)

    def hang_up(self, informer: Informer) -> None:
        """The client closes its stream, having read everything or not."""
        if informer.watcher is not None and informer.line is not None:
            if informer.line.ending is None:
                self.fanout.close(informer.watcher)
            informer.line = informer.watcher = None

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.fanout.tick(self.now)

    def check_settled(self) -> None:
        assert self.reflector.phase is Phase.READY
        for informer in self.informers:
            expected = self.server.visible(self.server.revision, informer.selection)
            assert informer.store == expected
