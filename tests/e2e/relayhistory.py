"""A long history through a whole guard: ``python -m tests.e2e.relayhistory --events 1000000``.

Supervisor, worker and relay as processes, an embedded API server, clients on sockets of their own.
Pods are written all the time; meanwhile the server is killed, falls silent, ends and expires its
watches and forgets its history, clients are slow or vanish and come back, and the guard's worker
is killed. A ``Witness`` judges every byte each client gets; in the end all must hold what a direct
list says. The same ``--seed`` makes the same choices, though not at the same instants.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import uvloop

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer, Received
from apiguard.demo.authentication import read_tokens
from apiguard.demo.encoding import Object
from apiguard.demo.resources import NAMESPACES as NAMESPACE
from apiguard.demo.resources import PODS
from apiguard.kube.neturl import first_values
from tests.e2e.guard import Guard, alive, kill
from tests.e2e.witness import History, Selection, Told, Violation, Witness
from tests.net.traffic.waiting import eventually

TOKENS: Final = 'guard-token,guard,0,"system:masters"\nclient-token,client,1,"system:masters"\n'
POLICY: Final = (
    "apiVersion: apiguard.io/v1alpha1\nkind: ThrottlePolicy\nrules: []\n"
    "default:\n  limits: [{requestsPerSecond: 1000000, burst: 1000000}]\n"
)
NAMESPACES: Final = ("a", "a-b", "b")
SELECTIONS: Final = (
    Selection(),
    Selection("a"),
    Selection(labels="app=x"),
    Selection("b", labels="app!=x"),
    Selection(fields="spec.nodeName=n1"),
    Selection("a-b", fields="metadata.name=p7"),
    Selection(fields="spec.nodeName="),
    Selection(labels="app in (x,y),tier"),
)
JSON: Final = "application/json"
METADATA: Final = "application/json;as=PartialObjectMetadata%s;g=meta.k8s.io;v=v1"

NAMES: Final = 40
"""Pods per namespace that come and go."""

BATCH: Final = 8
"""Writes between two looks at how far clients are behind."""

FAR_BEHIND: Final = 300
"""Events a client may be behind before writers wait for it, while nothing else is wrong."""

UNSETTLED_SECONDS: Final = 3.0
"""After history was forgotten, until the relay has surely listed anew."""

LONG: Final = 500_000
"""Events from which on troubles leave time between them: a relay that never comes to rest waits
longer and longer, and delivers little."""

WORKER_KILLS: Final = 4
"""The supervisor waits longer and longer with a worker that dies again and again."""

LEVEL_SECONDS: Final = 60.0
"""Within which, once everything is well again, every client must hold what there is."""


class _Metadata(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815 - the name on the wire
    name: str = ""
    namespace: str = ""
    annotations: dict[str, str] | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata
    code: int = 0
    message: str = ""


class _Event(msgspec.Struct):
    type: str
    object: _Object


class _List(msgspec.Struct):
    metadata: _Metadata
    items: list[_Object]


_event = msgspec.json.Decoder(_Event).decode
_list = msgspec.json.Decoder(_List).decode


def _key(metadata: _Metadata) -> str:
    return f"{metadata.namespace}/{metadata.name}"


def _state(body: bytes) -> tuple[dict[str, int], int]:
    found = _list(body)
    state = {_key(one.metadata): int(one.metadata.resourceVersion) for one in found.items}
    return state, int(found.metadata.resourceVersion)


class Answer(asyncio.Protocol):
    """One response on a connection of its own: its code, then its body in lines or whole."""

    def __init__(self, line: Callable[[bytes], None] | None) -> None:
        loop = asyncio.get_running_loop()
        self.head: asyncio.Future[int] = loop.create_future()
        self.over: asyncio.Future[bool] = loop.create_future()  # whether it ended properly
        self.retry_after = ""
        self.body = b""
        self.transport: asyncio.Transport | None = None
        self._line = line
        self._buffer = bytearray()
        self._left = -1  # bytes of a body with a length; -1: in chunks
        self._begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._begun and not self._read_head():
            return
        if self._left >= 0:
            self.body = bytes(self._buffer)
            if len(self.body) >= self._left:
                self._finish(properly=True)
            return
        self._read_chunks()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        line, *rest = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        self._begun = True
        for one in rest:
            name, _, value = one.partition(b":")
            if name.lower() == b"content-length":
                self._left = int(value)
            elif name.lower() == b"retry-after":
                self.retry_after = value.decode().strip()
        if not self.head.done():
            self.head.set_result(int(line.split(b" ")[1]))
        return True

    def _read_chunks(self) -> None:
        buffer, at = self._buffer, 0
        while (end := buffer.find(b"\r\n", at)) >= 0:
            size = int(buffer[at:end], 16)
            begin = end + 2
            if len(buffer) < begin + size + 2:
                break
            at = begin + size + 2
            if not size:
                self._finish(properly=True)
                break
            self._take(bytes(buffer[begin : begin + size]))
        del buffer[:at]

    def _take(self, piece: bytes) -> None:
        self.body += piece
        if self._line is None or self.over.done():
            return
        *lines, self.body = self.body.split(b"\n")
        for line in lines:
            try:
                self._line(line)
            except Violation as found:
                self._fail(found)
                return

    def _fail(self, found: Violation) -> None:
        if not self.over.done():
            self.over.set_exception(found)
        self.abort()

    def _finish(self, *, properly: bool) -> None:
        if not self.over.done():
            self.over.set_result(properly)
        if not self.head.done():
            self.head.set_result(0)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(properly=False)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


_ASKED: Final = frozenset({"resourceVersion", "resourceVersionMatch"})


class _Requests(deque[Received]):
    """What arrives at the server; remembers nothing but where the relay lists anew."""

    def __init__(self, history: History) -> None:
        super().__init__(maxlen=1)
        self._history = history

    def append(self, received: Received) -> None:
        if received.values("user-agent") == [b"apiguard-relay"]:
            query = first_values(received.target.partition("?")[2], _ASKED)
            if query.get("resourceVersionMatch") == "NotOlderThan":
                self._history.relisted(int(query["resourceVersion"]))


@dataclass(slots=True)
class Figures:
    """What happened, and every violation."""

    violations: list[str] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    delivered: int = 0
    writes: int = 0
    bookmarks: int = 0
    lists: int = 0
    differences: int = 0
    forgotten: int = 0
    streams: int = 0
    refusals: Counter[int] = field(default_factory=Counter)
    upstream: dict[str, int] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def lines(self) -> list[str]:
        said = [
            f"{self.delivered:,} events delivered of {self.writes:,} writes, "
            f"{self.bookmarks:,} bookmarks, in {self.seconds:.0f} s",
            f"{self.streams} watches opened, {self.lists} lists, {self.differences} differences, "
            f"{self.forgotten} times 410, refused: {dict(self.refusals)}",
            f"troubles: {dict(self.troubles)}",
            f"upstream was asked: {self.upstream}",
        ]
        if self.warnings:
            said += [f"the guard said: {line}" for line in self.warnings[-10:]]
        shown = dict.fromkeys(self.violations)
        return [*said, *list(shown)[:12], f"{len(self.violations)} violations"]


class Reader:
    """One client that lists or asks for initial events once, then watches for good."""

    def __init__(self, run: Run, number: int) -> None:
        self.witness = Witness(run.history, SELECTIONS[number % len(SELECTIONS)])
        self.slow = number % 10 == 9
        self._run = run
        self._rng = random.Random(run.seed * 1_000 + number)
        self._streams_first = number % 2 == 1  # initial events instead of a list
        metadata_only = not self.witness.selection.fields and number % 5 == 4
        self._list_accept = METADATA % "List" if metadata_only else JSON
        self._accept = METADATA % "" if metadata_only else JSON
        self._bookmarks = number % 7 != 6
        self._answer: Answer | None = None
        self._late = False

    async def live(self) -> None:
        """Until cancelled; what is found wrong ends this client, and is counted."""
        while True:
            try:
                if self.witness.revision or self._streams_first:
                    await self._watch()
                else:
                    await self._list()
            except Violation as found:
                self._run.figures.violations.append(f"{self.witness}: {found}")
                return
            except OSError:
                await self._pause()

    def vanish(self) -> None:
        if self._answer is not None:
            self._answer.abort()

    async def dawdle(self) -> None:
        """Reads nothing for a while."""
        answer = self._answer
        if answer is None or answer.transport is None or answer.transport.is_closing():
            return
        self._late = True
        answer.transport.pause_reading()
        await asyncio.sleep(self._rng.uniform(0.2, 3.0))
        if not answer.transport.is_closing():
            answer.transport.resume_reading()

    async def _list(self) -> None:
        witness = self.witness
        chosen = witness.selection
        query = chosen.query() if witness.known else chosen.query(resourceVersion="0")
        answer = await self._ask(f"{chosen.path}?{query}", self._list_accept, None)
        code = await answer.head
        if await answer.over and code == 200:
            witness.listed(*_state(answer.body))
        else:
            await self._refused(code, answer)

    async def _watch(self) -> None:
        witness, initial = self.witness, not self.witness.revision
        parameters = {"watch": "true"}
        if initial:
            parameters |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            if not witness.known:
                parameters["resourceVersion"] = "0"
        else:
            parameters["resourceVersion"] = str(witness.revision)
        if initial or self._bookmarks:
            parameters["allowWatchBookmarks"] = "true"
        chosen = witness.selection
        target = f"{chosen.path}?{chosen.query(**parameters)}"
        answer = await self._ask(target, self._accept, self._hear)
        self._answer = answer
        witness.connected(initial=initial)
        try:
            code = await answer.head
            if code == 200:
                self._run.figures.streams += 1
                if not await answer.over:
                    await self._pause()
            else:
                await answer.over
                await self._refused(code, answer)
        finally:
            witness.stream_ended()
            self._late = False

    def _hear(self, line: bytes) -> None:
        event = _event(line)
        metadata = event.object.metadata
        if event.type == "ERROR":
            if event.object.code != 410:
                raise Violation(f"an ERROR event: {line.decode()}")
            self.witness.expired(event.object.message, slow=self._late)
        elif event.type == "BOOKMARK":
            end = bool(metadata.annotations)
            self.witness.bookmarked(int(metadata.resourceVersion), initial_end=end)
        else:
            revision = int(metadata.resourceVersion)
            self.witness.heard(Told(event.type, _key(metadata), revision))

    async def _refused(self, code: int, answer: Answer) -> None:
        """429 and 503 must say when to come back; 0 is a connection that was lost."""
        if code:
            self._run.figures.refusals[code] += 1
        if code not in (0, 200, 429, 502, 503, 504) or (
            code in (429, 503) and not answer.retry_after
        ):
            raise Violation(f"answered {code}: {answer.body[:300]!r}")
        await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.02, 0.3))

    async def _ask(self, target: str, accept: str, line: Callable[[bytes], None] | None) -> Answer:
        loop = asyncio.get_running_loop()
        host, port = self._run.guard_address
        transport, answer = await loop.create_connection(lambda: Answer(line), host, port)
        transport.write(
            f"GET {target} HTTP/1.1\r\nHost: guard\r\nAccept: {accept}\r\n"
            f"Authorization: Bearer client-token\r\nConnection: close\r\n\r\n".encode()
        )
        return answer


class Run:
    """One history."""

    def __init__(
        self,
        folder: Path,
        events: int,
        watchers: int,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.figures = Figures()
        self.seed = seed
        self.guard_address = ("", 0)
        self.history: History
        self._folder = folder
        self._events = events
        self._watchers = watchers
        self._say = say
        self._rng = random.Random(seed)
        self._readers: list[Reader] = []
        self._calm = True
        self._rounds = 0
        self._leisure = 1 if events < LONG else 3
        self._forgotten_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: EmbeddedApiServer
        self._guard: Guard

    async def run(self) -> Figures:
        began = time.monotonic()
        tokens = read_tokens(TOKENS)
        self._server = EmbeddedApiServer(ApiServerOptions(tokens=tokens, bookmark_every=0.5))
        await self._server.start()
        for name in NAMESPACES:
            self._server.create(NAMESPACE, {"metadata": {"name": name}})
        for number in range(NAMES):
            self._write_pod(NAMESPACES[number % 3], number)
        self.history = History(self._server, SELECTIONS)
        self._server.requests = _Requests(self.history)
        self._guard = self._start_guard()
        try:
            await asyncio.to_thread(self._guard.start)
            self.guard_address = self._guard.address
            await self._live()
        finally:
            self._guard.close()
            await self._server.stop()
            self.figures.seconds = time.monotonic() - began
        return self.figures

    def _start_guard(self) -> Guard:
        guard = Guard(self._folder, self._server.url)
        guard.write_policy(POLICY)
        (self._folder / "own").write_text("guard-token")
        guard.settings |= {
            "upstream": {"servers": [self._server.url], "credentials": {"tokenFile": "own"}},
            "identity": {"tokenReview": {"enabled": True}},
            "relay": {
                "resources": [{"version": "v1", "resource": "pods"}],
                "logSeconds": 20,
                "logEvents": 500,
                "logBytes": 4 << 20,
                "authorization": {"reviewsPerSecond": 1_000},
            },
        }
        return guard

    async def _live(self) -> None:
        self._readers = [Reader(self, number) for number in range(self._watchers)]
        living = [asyncio.create_task(reader.live()) for reader in self._readers]
        began = [reader.witness for reader in self._readers]
        await eventually(
            lambda: all(witness.revision for witness in began),
            "all have begun",
            within=LEVEL_SECONDS,
        )
        troubling = asyncio.create_task(self._trouble())
        try:
            await self._write()
            troubling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await troubling
            await self._settle()
            self._check_level()
            await self._check_direct()
        finally:
            for task in (troubling, *living, *self._tasks):
                task.cancel()
            await asyncio.gather(troubling, *living, *self._tasks, return_exceptions=True)
            self._count()

    # -- writing -------------------------------------------------------------------------------

    async def _write(self) -> None:
        reported = 0
        while not self._is_enough() and not self.figures.violations:
            for _ in range(BATCH):
                self._write_any()
            await asyncio.sleep(0.001 if self._calm else 0.005)
            await self._wait_for_readers()
            if (done := self._delivered()) - reported >= self._events // 10:
                reported = done
                self._say(f"{done:,} events, {dict(self.figures.troubles)}")

    def _is_enough(self) -> bool:
        """As many events as wished, and everything went wrong at least once."""
        return self._delivered() >= self._events and self._rounds > 0

    async def _wait_for_readers(self) -> None:
        """As long as nothing but their number holds them up."""
        deadline = time.monotonic() + LEVEL_SECONDS
        quick = [reader.witness for reader in self._readers if not reader.slow]
        while self._calm and max(witness.behind for witness in quick) > FAR_BEHIND:
            if time.monotonic() > deadline:
                self.figures.violations.append(
                    f"a client stands still: {max(quick, key=lambda one: one.behind)}"
                )
                return
            await asyncio.sleep(0.005)

    def _delivered(self) -> int:
        return sum(reader.witness.counts.events for reader in self._readers)

    def _write_any(self) -> None:
        namespace = self._rng.choice(NAMESPACES)
        number = self._rng.randrange(NAMES)
        if self._rng.random() < 0.15:
            key = f"{namespace}/p{number}"
            if self._server.store.collections[PODS].get(key) is not None:
                self._server.store.delete(PODS, key)
                self.figures.writes += 1
        else:
            self._write_pod(namespace, number)

    def _write_pod(self, namespace: str, number: int) -> None:
        rng, store = self._rng, self._server.store
        labels = {"app": rng.choice("xyz")} | ({"tier": "t"} if rng.random() < 0.5 else {})
        found = store.collections[PODS].get(f"{namespace}/p{number}")
        self.figures.writes += 1
        spec: Object = {"containers": [{"name": "c", "image": "registry.example/c:1"}]}
        if node := rng.choice(("", "n1", "n2")):
            spec["nodeName"] = node
        if found is None:
            value = {"metadata": {"name": f"p{number}", "labels": labels}, "spec": spec}
            self._server.create(PODS, value, namespace)
            return
        metadata = dict(found.value["metadata"], labels=labels)
        metadata["annotations"] = {"writes": str(self.figures.writes), "pad": "x" * 200}
        store.update(PODS, {**found.value, "metadata": metadata, "spec": spec})

    # -- trouble -------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        """One thing after the other, each as often; slow and vanishing clients all the time."""
        rng = self._rng
        things = [self._end, self._expire, self._kill, self._stall, self._forget, self._kill_worker]
        while True:
            for thing in rng.sample(things, len(things)):
                await asyncio.sleep(rng.uniform(0.1, 0.6) * self._leisure)
                self._disturb_readers()
                await thing()
            self._rounds += 1

    def _disturb_readers(self) -> None:
        rng = self._rng
        for reader in rng.sample(self._readers, max(1, len(self._readers) // 20)):
            reader.vanish()
        for reader in self._readers:
            if reader.slow and rng.random() < 0.3:
                self._aside(reader.dawdle())

    @contextlib.asynccontextmanager
    async def _wrong(self, name: str) -> AsyncIterator[None]:
        """While something is, nobody waits for anybody."""
        self.figures.troubles[name] += 1
        self._calm = False
        try:
            yield
        finally:
            self._calm = True

    def _aside(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        self.figures.troubles["ended"] += 1
        self._server.control.end_watches(PODS)

    async def _expire(self) -> None:
        self.figures.troubles["expired"] += 1
        self._forgot()
        self._server.control.expire_watches(PODS)

    async def _kill(self) -> None:
        async with self._wrong("killed"):
            await self._server.kill()
            try:
                await asyncio.sleep(self._rng.uniform(0.1, 1.5))
            finally:
                await self._server.listen()

    async def _stall(self) -> None:
        async with self._wrong("silent"):
            self._server.control.stall_watches(PODS)
            try:
                await asyncio.sleep(self._rng.uniform(0.3, 1.5))
            finally:
                self._server.control.resume_watches(PODS)

    async def _forget(self) -> None:
        """Killed, and on return its history begins somewhere in what was missed."""
        async with self._wrong("forgot"):
            await self._server.kill()
            try:
                await asyncio.sleep(self._rng.uniform(0.05, 0.4))
                self._forgot()
                self._server.control.compact()
                await asyncio.sleep(self._rng.uniform(0.05, 0.4))
            finally:
                await self._server.listen()

    def _forgot(self) -> None:
        self._forgotten_at = time.monotonic()
        self.history.forget()

    async def _kill_worker(self) -> None:
        """Not while a difference is told: what a worker has told of one dies with it, and nobody
        could say any more that a client must not resume within."""
        if self.figures.troubles["worker killed"] >= WORKER_KILLS:
            return
        await eventually(self._is_settled, "every difference told", within=LEVEL_SECONDS)
        async with self._wrong("worker killed"):
            pids = await asyncio.to_thread(lambda: self._guard.worker_pids)
            for pid in pids:
                kill(pid)
            await eventually(lambda: not any(alive(pid) for pid in pids), "killed workers gone")

    def _is_settled(self) -> bool:
        if time.monotonic() < self._forgotten_at + UNSETTLED_SECONDS:
            return False
        return not any(reader.witness.bridging for reader in self._readers)

    # -- the end -------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Everything is well, one more write reaches everybody, and all catch up."""
        for number, namespace in enumerate(NAMESPACES):
            self._write_pod(namespace, number)
        deadline = time.monotonic() + LEVEL_SECONDS
        while time.monotonic() < deadline and not self.figures.violations:
            if all(reader.witness.level for reader in self._readers):
                return
            await asyncio.sleep(0.1)

    def _check_level(self) -> None:
        for reader in self._readers:
            witness = reader.witness
            if not witness.level:
                self.figures.violations.append(f"{witness}: stays where it is")

    async def _check_direct(self) -> None:
        """What the server itself lists is what the history says, and so what clients hold."""
        loop = asyncio.get_running_loop()
        for selection in SELECTIONS:
            transport, answer = await loop.create_connection(
                lambda: Answer(None), "127.0.0.1", self._server.port
            )
            head = f"GET {selection.path}?{selection.query()} HTTP/1.1\r\nHost: a\r\n"
            transport.write(f"{head}Authorization: Bearer client-token\r\n\r\n".encode())
            assert await answer.head == 200
            await answer.over
            state, revision = _state(answer.body)
            if state != self.history.truths[selection].state(revision):
                self.figures.violations.append(f"{selection}: a direct list differs")

    def _count(self) -> None:
        figures = self.figures
        for counts in (reader.witness.counts for reader in self._readers):
            figures.delivered += counts.events
            figures.bookmarks += counts.bookmarks
            figures.lists += counts.lists
            figures.differences += counts.differences
            figures.forgotten += counts.forgotten
        figures.upstream = {
            f"{verb} {form}": number
            for (verb, resource, form), number in self._server.counts.items()
            if resource == "pods"
        }
        figures.warnings = [line for line in self._guard.log if line["level"] != "info"]
        errors = [line for line in figures.warnings if line["level"] == "error"]
        figures.violations += [
            f"the guard failed: {line}" for line in errors if line["msg"] != "worker is replaced"
        ]


def run(
    folder: Path,
    events: int,
    watchers: int,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> Figures:
    """One history in a loop of its own; the guard's files stay in ``folder``."""
    return uvloop.run(Run(folder, events, watchers, seed, say).run())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.relayhistory")
    parser.add_argument("--events", type=int, default=1_000_000, help="events to deliver at least")
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201 - a command's progress

    say(f"seed {arguments.seed}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        figures = run(folder, arguments.events, arguments.watchers, arguments.seed, say)
    for line in figures.lines():
        say(line)
    return 1 if figures.violations else 0


if __name__ == "__main__":
    sys.exit(main())
