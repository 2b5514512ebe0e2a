"""The parent process: opens sockets, keeps workers running, mirrors what they know.

Its loop never waits for a worker. Workers push reports; commands are queued; an answer that does
not come within a second is reported as missing. So whatever runs in this process besides, admin
above all, answers while traffic drowns.

One slot per worker::

    starting --Ready--> serving --Drain--> draining --exit--> (gone)
        \\________________|____ exit, stall ____/
                         v
                  successor, from the slot's mirrored levels

A successor starts at once; only one that dies young again and again waits a little.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Final

from apiguard.errors import ConfigError, StartupError
from apiguard.limiter.shares import Demand, Rebalancer, Share
from apiguard.policy.config import GuardConfig
from apiguard.runtime.control import (
    PROTOCOL,
    ApplyPolicy,
    Command,
    Done,
    Drain,
    Event,
    Explain,
    Explained,
    Failed,
    Line,
    Question,
    Ready,
    Report,
    SetEnforcement,
    SetFiles,
    SetShares,
    SetUpstreams,
    Start,
    Upstream,
)
from apiguard.runtime.drivers import KEYS_PATH, ApiClient, KeyFetcher
from apiguard.runtime.files import (
    OWN_CERT,
    OWN_KEY,
    OWN_TOKEN,
    UPSTREAM_CA,
    File,
    Files,
    keys_of,
)
from apiguard.runtime.identities import is_key_set
from apiguard.runtime.keeper import Changed, Invalid, NotStored, PolicyKeeper, Stale, WouldChange
from apiguard.runtime.log import StreamLog
from apiguard.runtime.mirror import Mirror
from apiguard.runtime.probe import Prober, Server
from apiguard.runtime.process import WORKER_COMMAND, WorkerProcess
from apiguard.runtime.rotation import LOOK_SECONDS, Rotation, own_token
from apiguard.runtime.sockets import open_listeners, raise_descriptor_limit
from apiguard.runtime.tls import own_context
from apiguard.telemetry.counters import Totals

ACKNOWLEDGE_SECONDS: Final = 1.0
"""By when a worker must have applied a change; later it is reported as not applied."""

START_SECONDS: Final = 30.0
"""By when a worker must be ready; a cold start on a starved machine takes a few."""

WATCH_SECONDS: Final = 0.25
"""How often slots are looked at for a stall."""

EXCUSE_SECONDS: Final = 1.0
"""A watch this much too long means that the supervisor was stopped (a paused machine, SIGSTOP):
reports wait unread, and killing healthy workers for it would make a pause an outage."""

YOUNG_SECONDS: Final = 5.0
BACKOFF_SECONDS: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Waits before successors of workers that died younger than YOUNG_SECONDS, one after the other.
The longest is still short: while it lasts nobody is served."""

KILL_SECONDS: Final = 2.0
"""Beyond the drain's deadline a worker has this long to exit by itself."""

REBALANCE_SECONDS: Final = 0.5
"""How often shares follow demand; a round costs a message to each worker that loses some."""

NO_ANSWER: Final = 0
"""Id of a command whose answer nobody waits for."""

OWN: Final = frozenset({UPSTREAM_CA, OWN_CERT, OWN_KEY, OWN_TOKEN})
"""Files behind the guard's own calls."""

MakeCommand = Callable[[int], Command]


class State(enum.Enum):
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Whether one worker carried a change out; ``problem`` is "" when it did."""

    worker: int
    problem: str


@dataclass(frozen=True, slots=True)
class Drained:
    """A server was drained or undrained."""

    acknowledged: tuple[Acknowledgement, ...]


@dataclass(frozen=True, slots=True)
class LastServer:
    """Every other server is drained: without this one nobody would be served."""


class Slot:
    """One place for a worker; processes come and go in it."""

    def __init__(self, index: int, listening: socket.socket, mirror: Mirror) -> None:
        self.index = index
        self.listening = listening
        self.mirror = mirror
        self.state = State.GONE
        self.worker: WorkerProcess | None = None
        self.started_at = 0.0
        self.revision = 0
        self.files: Files = {}
        self.digest = ""
        self.young_deaths = 0
        self.failure = ""
        self.stalled = False


Apply = Callable[[Slot], Awaitable[Acknowledgement]]


class Supervisor:
    """``run`` serves until a signal; everything admin shows or changes is here.

    ``command`` starts a worker and is replaced in tests.
    """

    def __init__(
        self,
        config: GuardConfig,
        config_text: str,
        config_name: str,
        keeper: PolicyKeeper,
        log: StreamLog,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self.config = config
        self.keeper = keeper
        self.log = log
        self.rotation = Rotation(config)
        self.totals = Totals()
        self.restarts = {"died": 0, "stalled": 0}
        self.started_at = time.time()
        self.draining = False
        self._started = time.monotonic()
        self.slots: list[Slot] = []
        self._rebalancer = Rebalancer(config.workers)
        self._command = tuple(command)
        self._config_text = config_text
        self._config_name = config_name
        self._told_problems: dict[str, str] = {}
        self._fetched: Files = {}
        self._stopping = asyncio.Event()
        self._hurried = False
        self._failure = ""
        self._tasks: set[asyncio.Task[None]] = set()

    # Settings in force.

    @property
    def enforcement(self) -> str:
        """The operator's override, else what the configuration says."""
        return self.keeper.active.revision.enforcement or self.config.enforcement.value

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that traffic arrives on."""
        host, port = self.slots[0].listening.getsockname()[:2]
        return str(host), int(port)

    @property
    def files(self) -> Files:
        """What workers are to know: files of the configuration, and fetched key sets."""
        return {**self.rotation.files, **self._fetched}

    # Life.

    def open(self) -> None:
        """Reads the files of the configuration and binds the listening sockets.

        Raises StartupError or ConfigError.
        """
        raise_descriptor_limit()
        self.rotation.load()
        files = self.rotation.files
        upstream = self.config.upstream
        self._client = ApiClient(own_context(files), own_token(files), upstream.server_name or "")
        self.prober = Prober(upstream.servers, self._client, self._judged)
        self.keys = [
            KeyFetcher(self._client, self.prober, self._key_sink(one.issuer))
            for one in self.config.identity.jwt
            if one.jwks_file is None
        ]
        listeners = open_listeners(
            self.config.listen.address, self.config.workers, "listen.address"
        )
        buckets = self.config.bounds.process.buckets
        self.slots = [
            Slot(index, sock, Mirror(buckets, shared=len(listeners) > 1))
            for index, sock in enumerate(listeners)
        ]

    async def run(self) -> int:
        """Serves until told to stop; returns the exit code. ``open`` comes first.

        Raises StartupError when the first worker cannot serve at all.
        """
        self._install_signals(asyncio.get_running_loop())
        keepers = [self._spawn(self._keep(slot)) for slot in self.slots]
        others = [
            self._spawn(work)
            for work in (
                self._watch(),
                self.prober.run(),
                self._follow_files(),
                *(fetcher.run() for fetcher in self.keys),
            )
        ]
        if len(self.slots) > 1:
            others.append(self._spawn(self._rebalance()))
        try:
            await self._stopping.wait()
            if self._failure:
                raise StartupError(self._failure)
            return await self._drain(keepers)
        finally:
            self._stopping.set()
            self._kill_workers()
            for slot in self.slots:
                slot.listening.close()
            for task in others:
                task.cancel()
            # Keepers are not cancelled but end with their workers, which they have to reap.
            await asyncio.wait(keepers, timeout=KILL_SECONDS)
            await asyncio.gather(*others, return_exceptions=True)
            await self._client.close()

    def stop(self) -> None:
        """First call drains, second ends at once: what SIGTERM and SIGINT do."""
        if self._stopping.is_set():
            self._hurried = True
            self._kill_workers()
        self._stopping.set()

    def _kill_workers(self) -> None:
        for slot in self.slots:
            if slot.worker is not None:
                slot.worker.kill()

    def _install_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self.reload()))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that failed leaves a guard that looks alive and is not: better to end."""
        self._tasks.discard(task)
        defect = None if task.cancelled() else task.exception()
        if defect is not None:
            self._failure = f"defect: {type(defect).__name__}: {defect}"
            self._stopping.set()

    async def _drain(self, keepers: list[asyncio.Task[None]]) -> int:
        """Not ready first, then no new connections, then the end of what is open."""
        seconds = self.config.bounds.process.drain_seconds
        self.draining = True
        self.log.info("draining", seconds=seconds)
        for slot in self.slots:
            if slot.worker is not None and slot.state is State.SERVING:
                slot.state = State.DRAINING
                slot.worker.send(Drain(seconds))
            elif slot.worker is not None:
                slot.worker.kill()
            slot.listening.close()
        _, late = await asyncio.wait(keepers, timeout=seconds + KILL_SECONDS)
        self.log.info("stopped", cut=bool(late) or self._hurried)
        return 1 if self._hurried else 0

    # Workers.

    async def _keep(self, slot: Slot) -> None:
        """Runs worker after worker in ``slot`` until the guard drains."""
        while True:
            code = await self._run_worker(slot)
            if self._stopping.is_set():
                return
            self._note_death(slot, code)
            pause = BACKOFF_SECONDS[min(slot.young_deaths, len(BACKOFF_SECONDS)) - 1]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
                return

    async def _run_worker(self, slot: Slot) -> int | None:
        """One worker from start to exit; its exit code, None when it could not be started."""
        slot.state = State.STARTING
        slot.started_at = time.monotonic()
        slot.stalled = False
        slot.failure = ""
        try:
            worker = await WorkerProcess.start(
                self._command, slot.listening, lambda event: self._on_event(slot, event)
            )
        except OSError as error:
            slot.failure = f"cannot start: {error.strerror}"
            return None
        slot.worker = worker
        try:
            if self._stopping.is_set():  # it was too late to tell this one
                worker.kill()
            worker.send(self._start_message(slot))
            return await worker.wait()
        finally:
            worker.kill()
            slot.worker = None
            slot.state = State.GONE
            slot.digest = ""
            slot.mirror.forget_worker()
            slot.failure = slot.failure or worker.closed_because

    def _start_message(self, slot: Slot) -> Start:
        revision = self.keeper.active.revision
        slot.revision = revision.number
        slot.files = self.files
        # Only the very first worker of a slot may begin with full buckets: its successor would
        # hand a second burst to everybody whose level was not mirrored yet.
        first = self.keeper.first_start and self.restarts == {"died": 0, "stalled": 0}
        return Start(
            protocol=PROTOCOL,
            worker=slot.index,
            workers=len(self.slots),
            config=self._config_text,
            config_name=self._config_name,
            policy=revision.policy,
            policy_name=revision.policy_name,
            generation=revision.generation,
            enforcement=self.enforcement,
            files=slot.files,
            upstreams=self._upstreams(),
            first_start=first,
            guard_started=self._started,
            buckets=tuple(slot.mirror.buckets.values()),
            shares=tuple(self._rebalancer.held_by(slot.index)),
        )

    def _note_death(self, slot: Slot, code: int | None) -> None:
        young = time.monotonic() - slot.started_at < YOUNG_SECONDS
        slot.young_deaths = slot.young_deaths + 1 if young else 1
        cause = "stalled" if slot.stalled else "died"
        self.restarts[cause] += 1
        self.log.error(
            "worker is replaced",
            worker=slot.index,
            cause=cause,
            exit=code,
            reason=slot.failure,
        )

    async def _watch(self) -> None:
        """Kills workers that gave no sign of life for too long; ``_keep`` replaces them."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            for slot in self.slots:
                if now - looked > EXCUSE_SECONDS:
                    slot.mirror.excuse(now)
                if slot.worker is not None and self._silent(slot, now):
                    slot.stalled = True
                    slot.worker.kill()
            looked = now

    async def _rebalance(self) -> None:
        """Moves shares of budgets to the workers that are asked for them; see limiter.shares."""
        while True:
            await asyncio.sleep(REBALANCE_SECONDS)
            cuts = self._rebalancer.plan(self._demands())
            await asyncio.gather(*(self._cut(self.slots[w], cut) for w, cut in cuts.items()))

    def _demands(self) -> list[Demand]:
        bursts = {spec.id: spec.bucket.burst for spec in self.keeper.active.policy.limits()}
        asked = [slot.mirror.take_asked() for slot in self.slots]
        addresses = {address: None for taken in asked for address in taken}
        return [
            Demand(*address, burst, tuple(taken.get(address, 0) for taken in asked))
            for address in addresses
            if (burst := bursts.get(address[0].partition("!")[0])) is not None
        ]

    async def _cut(self, slot: Slot, shares: list[Share]) -> None:
        """Has a worker give up shares; when the last one has, grants go out.

        A worker that does not confirm is stalled, and replaced: only then is it known to hold no
        more than its successor is told.
        """
        round_ = self._rebalancer.round
        worker = slot.worker
        if worker is not None:
            deadline = self.config.bounds.process.stall_seconds
            done = await worker.ask(lambda number: SetShares(number, tuple(shares)), deadline)
            if done is None:
                worker.kill()
        for index, granted in self._rebalancer.confirm(slot.index, round_).items():
            holder = self.slots[index].worker
            if holder is not None:
                holder.send(SetShares(NO_ANSWER, tuple(granted)))

    def _silent(self, slot: Slot, now: float) -> bool:
        if slot.state is State.STARTING:
            return now - slot.started_at > START_SECONDS
        if slot.state is State.SERVING:
            age = slot.mirror.age(now)
            return age is not None and age > self.config.bounds.process.stall_seconds
        return False  # a draining worker has its own deadline

    def _on_event(self, slot: Slot, event: Event) -> None:
        match event:
            case Report():
                self._on_report(slot, event)
            case Ready():
                self._on_ready(slot, event)
            case Failed():
                slot.failure = event.reason
                self._fail_startup(event.reason)
            case Line():
                self.log.write(event.level, event.message, {**event.fields, "worker": slot.index})
            case Done() | Explained():
                pass  # answers never arrive here: WorkerProcess takes them

    def _on_report(self, slot: Slot, report: Report) -> None:
        try:
            self.totals.add(report.delta)
        except ValueError as error:
            slot.failure = str(error)
            if slot.worker is not None:
                slot.worker.kill()
            return
        slot.mirror.receive(report, time.monotonic())
        for sample in report.delta.samples:
            self.log.info(
                "refused",
                worker=slot.index,
                rule=sample.rule,
                limit=sample.limit,
                verb=sample.verb,
                target=sample.target,
                user=sample.user,
                userAgent=sample.user_agent,
                source=sample.source,
                retryAfter=sample.retry_after,
            )

    def _on_ready(self, slot: Slot, ready: Ready) -> None:
        slot.state = State.SERVING
        slot.digest = ready.digest
        slot.mirror.reported_at = time.monotonic()
        pid = slot.worker.pid if slot.worker else 0
        self.log.info("worker serves", worker=slot.index, pid=pid, policy=ready.digest)
        if slot.revision != self.keeper.active.revision.number:
            # The policy changed while this worker was starting with the one before.
            self._spawn(self._catch_up(slot))
        if slot.files != self.files:
            self._spawn(self._files_to(slot, self.files))
        if slot.worker is not None:
            slot.worker.send(SetUpstreams(NO_ANSWER, self._upstreams()))

    async def _catch_up(self, slot: Slot) -> None:
        await self._apply_policy(slot)
        await self._apply_enforcement(slot)

    async def _files_to(self, slot: Slot, files: Files) -> None:
        await self._ask(slot, lambda number: SetFiles(number, files))

    def _fail_startup(self, reason: str) -> None:
        """A worker that never served and says why will not do better the next time."""
        served = any(slot.mirror.reported_at is not None for slot in self.slots)
        if not served and not any(self.restarts.values()):
            self._failure = reason
            self._stopping.set()

    # Changes, each acknowledged by every serving worker or reported as not.

    async def put_policy(
        self, text: str, name: str, *, generation: int | None, actor: str, dry_run: bool
    ) -> tuple[Changed | WouldChange | Stale | Invalid | NotStored, tuple[Acknowledgement, ...]]:
        """Compiles, stores and applies a policy; see ``keeper.propose``."""
        change = await self.keeper.propose(
            text, name, generation=generation, actor=actor, dry_run=dry_run
        )
        if not isinstance(change, Changed):
            return change, ()
        return change, await self._policy_to_workers()

    async def set_enforcement(
        self, enforcement: str, actor: str
    ) -> tuple[Changed | NotStored, tuple[Acknowledgement, ...]]:
        """Overrides the configured enforcement on every worker; "" returns to it."""
        change = await self.keeper.set_enforcement(enforcement)
        if isinstance(change, NotStored):
            return change, ()
        self.log.warning("enforcement changed", enforcement=self.enforcement, actor=actor)
        return change, await self._all(self._apply_enforcement)

    async def reload(self) -> None:
        """SIGHUP: the policy file if it changed, and files that are followed anyway, at once."""
        await self._look_at_files()
        try:
            change = await self.keeper.reload_file()
        except (StartupError, ConfigError) as error:
            self.log.error("reload failed", reason=str(error))
            return
        if isinstance(change, Invalid):
            for problem in change.problems:
                self.log.error(
                    "policy file is invalid, the active policy stays", reason=str(problem)
                )
        elif isinstance(change, Changed):
            await self._policy_to_workers()
        active = self.keeper.active
        self.log.info("reloaded", generation=active.revision.generation, why=active.why)

    async def explain(self, question: Question) -> Explained | None:
        """What a serving worker would decide; None when none answers in time."""
        for slot in self.slots:
            if slot.worker is not None and slot.state is State.SERVING:
                answer = await slot.worker.ask(
                    lambda number: Explain(number, question), ACKNOWLEDGE_SECONDS
                )
                if isinstance(answer, Explained):
                    return answer
        return None

    async def _policy_to_workers(self) -> tuple[Acknowledgement, ...]:
        active = self.keeper.active
        revision = active.revision
        self.log.warning(
            "policy changed",
            generation=revision.generation,
            digest=revision.policy_digest,
            origin=revision.origin.kind,
            actor=revision.origin.actor,
            why=active.why,
        )
        return await self._all(self._apply_policy)

    async def _all(self, apply: Apply) -> tuple[Acknowledgement, ...]:
        serving = [slot for slot in self.slots if slot.state is State.SERVING]
        return tuple(await asyncio.gather(*(apply(slot) for slot in serving)))

    async def _apply_policy(self, slot: Slot) -> Acknowledgement:
        revision = self.keeper.active.revision
        slot.revision = revision.number
        done = await self._ask(
            slot,
            lambda number: ApplyPolicy(
                number, revision.policy, revision.policy_name, revision.generation
            ),
        )
        if done.problem == "":
            slot.digest = revision.policy_digest
        return done

    async def _apply_enforcement(self, slot: Slot) -> Acknowledgement:
        slot.revision = self.keeper.active.revision.number
        return await self._ask(slot, lambda number: SetEnforcement(number, self.enforcement))

    async def _ask(self, slot: Slot, make: MakeCommand) -> Acknowledgement:
        if slot.worker is None:
            return Acknowledgement(slot.index, "worker is being replaced")
        answer = await slot.worker.ask(make, ACKNOWLEDGE_SECONDS)
        if answer is None:
            problem = f"no answer within {ACKNOWLEDGE_SECONDS:g} s"
        else:
            problem = answer.problem
        if problem:
            self.log.error("worker did not apply a change", worker=slot.index, reason=problem)
        return Acknowledgement(slot.index, problem)

    # Files that change.

    async def _follow_files(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look_at_files()

    async def _look_at_files(self) -> None:
        """Puts changed files to use on every worker; broken ones are told of once."""
        changed = await asyncio.get_running_loop().run_in_executor(None, self.rotation.look)
        for name, reason in self.rotation.problems.items():
            if self._told_problems.get(name) != reason:
                self.log.error(
                    "file is broken, what it held before stays", file=name, reason=reason
                )
        self._told_problems = dict(self.rotation.problems)
        if not changed:
            return
        self.log.warning("files changed", files=", ".join(changed))
        if changed.keys() & OWN:
            files = self.rotation.files
            await self._client.use(own_context(files), own_token(files))
        await self._files_to_workers(changed)

    async def _files_to_workers(self, changed: Files) -> None:
        async def apply(slot: Slot) -> Acknowledgement:
            return await self._ask(slot, lambda number: SetFiles(number, changed))

        await self._all(apply)

    def _key_sink(self, issuer: str) -> Callable[[bytes], bool]:
        """Takes fetched key sets of ``issuer``; what is none is refused, and the last one stays."""
        name = keys_of(issuer)

        def take(text: bytes) -> bool:
            if not is_key_set(text):
                return False
            known = self._fetched.get(name)
            if known is None or known.data != text:
                self._fetched[name] = File(KEYS_PATH, text)
                self._spawn(self._files_to_workers({name: self._fetched[name]}))
            return True

        return take

    # Upstream servers.

    async def set_drained(self, server: Server, drained: bool, actor: str) -> Drained | LastServer:
        """Keeps new requests from a server, or lets them come again."""
        others = [other for other in self.prober.servers if other is not server]
        if drained and all(other.drained for other in others):
            return LastServer()
        server.drained = drained
        self.log.warning("server drained" if drained else "server undrained", server=server.url,
                         actor=actor)  # fmt: skip
        return Drained(await self._all(self._apply_upstreams))

    def _judged(self, server: Server, turned: bool) -> None:
        """A probe changed what is known of a server: workers are told, nobody waits."""
        if turned:
            verdict = server.health.verdict
            self.log.warning(
                "server is fit" if verdict.fit else "server is not fit",
                server=server.url,
                condition=verdict.condition.name.lower(),
                detail=verdict.detail,
            )
        message = SetUpstreams(NO_ANSWER, self._upstreams())
        for slot in self.slots:
            if slot.worker is not None and slot.state is State.SERVING:
                slot.worker.send(message)

    def _upstreams(self) -> tuple[Upstream, ...]:
        return tuple(
            Upstream(v.fit, v.condition.value, v.detail, server.drained)
            for server in self.prober.servers
            for v in (server.health.verdict,)
        )

    async def _apply_upstreams(self, slot: Slot) -> Acknowledgement:
        return await self._ask(slot, lambda number: SetUpstreams(number, self._upstreams()))
