"""One traffic process: everything put together from one ``Start`` message.

``python -m apiguard.runtime.worker --control=FD --listen=FD`` is how the supervisor runs it.

The worker ends when its control socket does: a guard without its parent could be neither changed
nor observed. Signals meant for the guard are the supervisor's (service managers and terminals
signal whole groups), so the worker ignores them and is told by message.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import random
import signal
import socket
import sys
import time
from typing import Final

import uvloop

from apiguard.errors import ApiguardError, ConfigError, StartupError
from apiguard.gateway.gateway import Gateway
from apiguard.gateway.observers import Observers
from apiguard.limiter.limiter import FirstLevel, Limiter
from apiguard.limiter.shares import Shares
from apiguard.policy.compile import compile_policy
from apiguard.policy.config import Enforcement, GuardConfig
from apiguard.policy.operatorconfig import ObservabilityConfig
from apiguard.policy.overrides import matches
from apiguard.runtime import malloc
from apiguard.runtime.cgroup import memory_limit, worker_limit
from apiguard.runtime.channel import Channel, attach
from apiguard.runtime.control import (
    BUCKETS_PER_REPORT,
    MAX_COMMAND,
    MAX_TEXT,
    PROTOCOL,
    ApplyPolicy,
    Command,
    Done,
    Drain,
    Endpoint,
    EndStreams,
    Explain,
    Explained,
    Failed,
    FindStandouts,
    Line,
    Ready,
    Report,
    SetEnforcement,
    SetFiles,
    SetOverrides,
    SetShares,
    SetUpstreams,
    Standouts,
    Start,
    Traffic,
    Upstream,
    read_command,
)
from apiguard.runtime.drivers import ApiClient, Reviewer, first_fit
from apiguard.runtime.explaining import explain
from apiguard.runtime.files import (
    CLIENT_CA,
    FRONT_PROXY_CERT,
    FRONT_PROXY_KEY,
    OWN_CERT,
    OWN_KEY,
    OWN_TOKEN,
    SERVING_CERT,
    SERVING_KEY,
    UPSTREAM_CA,
    Files,
)
from apiguard.runtime.identities import make_authenticator, renew
from apiguard.runtime.layering import Layering
from apiguard.runtime.log import Bridge, Field, RelayLog
from apiguard.runtime.process import resident_bytes
from apiguard.runtime.relayclient import RelayClient
from apiguard.runtime.relaying import Relaying
from apiguard.runtime.relayreport import CacheStandouts, RelayReport
from apiguard.runtime.relayviews import relay_report, standouts
from apiguard.runtime.reload import compile_off_loop
from apiguard.runtime.rotation import own_token
from apiguard.runtime.settings import parse_settings
from apiguard.runtime.shedding import Shedding
from apiguard.runtime.tls import own_context, serving_context, upstream_contexts
from apiguard.runtime.traffic import TrafficServer, TrafficView
from apiguard.telemetry.activity import Activity, ActivityRow
from apiguard.telemetry.bounds import ACTIVITY, BUCKETS
from apiguard.telemetry.counters import Counters
from apiguard.telemetry.sample import Sample, Sampler
from apiguard.upstream.health import Verdict
from apiguard.upstream.readyz import Condition

REPORT_SECONDS: Final = 0.2

NICENESS: Final = 5
"""Below the supervisor, whose admin port must answer while workers use up the machine."""

EXIT_CANNOT_SERVE: Final = 1

SERVING: Final = frozenset({SERVING_CERT, SERVING_KEY, CLIENT_CA})
UPSTREAM: Final = frozenset({UPSTREAM_CA, FRONT_PROXY_CERT, FRONT_PROXY_KEY})
OWN: Final = frozenset({UPSTREAM_CA, OWN_CERT, OWN_KEY, OWN_TOKEN})
"""Files that make a new TLS context of each side."""


class Worker:
    """Serves from ``Start`` to ``Drain`` or to the end of the control channel."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._channel = Channel[Command](read_command, MAX_COMMAND, self._receive, self._closed)
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._log = RelayLog(self._send_line)

    async def run(self, control: socket.socket) -> int:
        """The exit code."""
        await attach(self._channel, control)
        Bridge(self._log).install()
        working = asyncio.create_task(self._work())
        gone = asyncio.create_task(self._gone.wait())
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            code = working.result()
            self._channel.close()
            await self._gone.wait()
            return code
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        return 0

    async def _work(self) -> int:
        start = await self._commands.get()
        if not isinstance(start, Start) or start.protocol != PROTOCOL:
            return self._fail("the guard was upgraded on disk: restart it")
        try:
            serving = self._compose(start)
        except ConfigError as error:
            return self._fail(str(error.problems[0]))
        except (ApiguardError, OSError) as error:
            return self._fail(str(error))
        return await serving.run(self._commands)

    def _compose(self, start: Start) -> Serving:
        """Raises ConfigError, StartupError or OSError."""
        config = parse_settings(start.config, start.config_name)
        now = time.monotonic()
        layering = Layering(config.overrides.break_glass_users)
        file_policy = compile_policy(start.policy, start.policy_name)
        layering.overrides, policy = layering.lay(start.overrides, file_policy)
        limiter = Limiter(
            config.bounds.process.buckets,
            started=start.guard_started,
            first_level=FirstLevel.FULL if start.first_start else FirstLevel.ONE_SECOND,
            shares=Shares(start.workers, start.shares),
        )
        limiter.respec(policy.limits(), now)
        limiter.restore(start.buckets, now)
        counters = Counters()
        front_proxy = config.upstream.front_proxy
        observers = _observers(config.observability)
        gateway = Gateway(
            policy=policy,
            limiter=limiter,
            authenticator=make_authenticator(config, start.files, start.workers, now),
            counters=counters,
            random=random.Random(),  # noqa: S311  spreads retries, guards nothing
            enforcement=Enforcement(start.enforcement),
            config=config,
            wall=time.time,
            front_proxy=front_proxy.names() if front_proxy is not None else None,
            observers=observers,
        )
        traffic = TrafficServer(
            loop=asyncio.get_running_loop(),
            gateway=gateway,
            config=config,
            counters=counters,
            tls=serving_context(start.files),
            upstream_tls=upstream_contexts(start.files),
        )
        _judge(traffic, start.upstreams)
        traffic.listen(self._listening)
        return Serving(
            self._channel,
            self._log,
            config,
            start.files,
            gateway,
            layering,
            traffic,
            self._listening,
            start.workers,
        )

    def _fail(self, reason: str) -> int:
        self._channel.send(Failed(reason[:MAX_TEXT]))
        return EXIT_CANNOT_SERVE

    def _receive(self, command: Command) -> None:
        self._commands.put_nowait(command)

    def _closed(self, reason: str) -> None:
        self._gone.set()

    def _send_line(self, level: str, message: str, fields: dict[str, Field]) -> None:
        short = {k: v[:MAX_TEXT] if isinstance(v, str) else v for k, v in fields.items()}
        self._channel.send(Line(level, message[:MAX_TEXT], short))


class Serving:
    """A worker that serves: carries out commands one after the other, reports every 200 ms."""

    def __init__(
        self,
        channel: Channel[Command],
        log: RelayLog,
        config: GuardConfig,
        files: Files,
        gateway: Gateway,
        layering: Layering,
        traffic: TrafficServer,
        listening: socket.socket,
        workers: int,
    ) -> None:
        self._layering = layering
        self._config = config
        self._files = files
        self._listening = listening
        self._channel = channel
        self._log = log
        self._gateway = gateway
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._due = time.monotonic()
        self._shedding = self._shed(workers)
        reviews = gateway.authenticator.reviews
        self._client: ApiClient | None = None
        self._reviewer: Reviewer | None = None
        if reviews is not None:
            name = config.upstream.server_name or ""
            self._client = ApiClient(own_context(files), own_token(files), name)
            self._reviewer = Reviewer(reviews, self._client, self)
        self._finding: set[asyncio.Task[None]] = set()
        self._relaying: Relaying | None = None
        if config.relay.resources:
            self._relaying = self._relay(workers)

    def _relay(self, workers: int) -> Relaying:
        """Stands in the way of requests from here on."""
        config, files, gateway = self._config, self._files, self._gateway
        name = config.upstream.server_name or ""
        relaying = Relaying(
            config.relay,
            carrier=self._traffic,
            servers=self,
            client=RelayClient(own_context(files), own_token(files), name),
            reviews=lambda: gateway.authenticator.reviews,
            workers=workers,
            rng=random.Random(),  # noqa: S311  spreads retries and endings, guards nothing
        )
        gateway.set_relay(relaying.desk)
        return relaying

    def _shed(self, workers: int) -> Shedding | None:
        """What keeps this worker below its memory limit; None without one."""
        limit = self._config.bounds.process.memory_bytes
        group = None if limit else memory_limit()
        if group is not None:
            limit = worker_limit(group, workers)
        if limit:
            self._log.info("memory limit", limitBytes=limit, groupBytes=group)
            return Shedding(limit, self._gateway, self._traffic, self._log)
        if group is not None:
            self._log.warning("too little memory to shed by: the kernel ends workers", bytes=group)
        else:
            self._log.info("no memory limit found: nothing is shed for memory")
        return None

    def fit(self) -> list[str]:
        """Servers for the guard's own calls, best first."""
        now = time.monotonic()
        return first_fit(
            (str(e.address), e.fit(now), e.usable(now))
            for e in self._traffic.upstream.pool.endpoints
        )

    async def run(self, commands: asyncio.Queue[Command]) -> int:
        """Until a drain is over: 0. A cancellation closes everything at once."""
        reviewer = self._reviewer
        reviewing = None if reviewer is None else self._loop.create_task(reviewer.run())
        self._channel.send(Ready(self._gateway.policy.digest))
        self._report()
        try:
            while True:
                command = await commands.get()
                if isinstance(command, Drain):
                    await self._drain(command)
                    return 0
                await self._carry_out(command)
        finally:
            self._traffic.close()
            for task in self._finding:
                task.cancel()
            if reviewing is not None:
                reviewing.cancel()
            if self._relaying is not None:
                await self._relaying.close()
            if self._client is not None:
                await self._client.close()

    async def _drain(self, command: Drain) -> None:
        drained = self._traffic.drain(command.seconds, command.watch_seconds)
        draining = self._loop.create_task(drained)
        # Runs after the first step of the drain, which lets go of the socket: from then on the
        # kernel refuses connections instead of queueing them for nobody.
        self._loop.call_soon(self._listening.close)
        await draining
        self._send_report(0.0)

    async def _carry_out(self, command: Command) -> None:
        match command:
            case ApplyPolicy():
                await self._apply_policy(command)
            case SetEnforcement():
                self._set_enforcement(command)
            case SetOverrides():
                await self._set_overrides(command)
            case EndStreams():
                self._end_streams(command)
            case SetFiles():
                await self._set_files(command)
            case SetUpstreams():
                _judge(self._traffic, command.upstreams)
                self._channel.send(Done(command.id))
            case SetShares():
                self._gateway.limiter.set_shares(command.shares, time.monotonic())
                self._channel.send(Done(command.id))
            case Explain():
                self._explain(command)
            case FindStandouts():
                task = self._loop.create_task(self._find_standouts(command))
                self._finding.add(task)  # a loop holds its tasks weakly
                task.add_done_callback(self._finding.discard)
            case Start() | Drain():
                self._log.error("command out of place", command=type(command).__name__)

    async def _apply_policy(self, command: ApplyPolicy) -> None:
        try:
            file_policy = await compile_off_loop(command.text, command.name)
        except ConfigError as error:
            self._done(command.id, problem=str(error))
            return
        policy = await self._layering.under(file_policy)
        self._gateway.apply_policy(policy, time.monotonic())
        self._done(command.id, digest=policy.digest)

    async def _set_overrides(self, command: SetOverrides) -> None:
        try:
            policy = await self._layering.set(command.overrides, self._gateway.policy.file)
        except (ConfigError, ValueError) as error:
            self._done(command.id, problem=str(error))
            return
        self._gateway.apply_policy(policy, time.monotonic())
        self._done(command.id)

    def _end_streams(self, command: EndStreams) -> None:
        override = self._layering.find(command.override)
        if override is None:
            self._done(command.id, problem="no such override")
            return
        users = self._layering.break_glass_users
        self._traffic.end_matching(
            lambda info, caller: matches(override, info, caller, users), command.seconds
        )
        self._done(command.id)

    def _set_enforcement(self, command: SetEnforcement) -> None:
        try:
            self._gateway.set_enforcement(Enforcement(command.enforcement))
        except ValueError as error:
            self._done(command.id, problem=str(error))
            return
        self._done(command.id)

    async def _set_files(self, command: SetFiles) -> None:
        """All of it or nothing: everything is made from the new files before any is used."""
        changed = command.files
        files = {**self._files, **changed}
        try:
            tls = serving_context(files) if changed.keys() & SERVING else self._traffic.tls
            upstream_tls = upstream_contexts(files) if changed.keys() & UPSTREAM else None
            own = (own_context(files), own_token(files)) if changed.keys() & OWN else None
            authenticator = renew(self._gateway.authenticator, self._config, files, changed)
        except (ConfigError, StartupError) as error:
            self._done(command.id, problem=str(error))
            return
        self._files = files
        # Nothing is awaited until both are in place: a handshake must be judged by the authority
        # its own context trusts.
        if authenticator is not None:
            self._gateway.set_authenticator(authenticator)
        self._traffic.set_tls(tls)
        if upstream_tls is not None:
            self._traffic.upstream.set_tls(upstream_tls)
        if own is not None:
            if self._relaying is not None:
                self._relaying.use(*own)
            if self._client is not None:
                await self._client.use(*own)
        self._done(command.id)

    def _explain(self, command: Explain) -> None:
        try:
            answer = explain(self._gateway, command.question, time.monotonic())
        except ValueError as error:
            self._channel.send(Explained(command.id, problem=str(error)[:MAX_TEXT]))
            return
        self._channel.send(Explained(command.id, answer))

    async def _find_standouts(self, command: FindStandouts) -> None:
        """Beside other commands: large caches take many turns."""
        found: tuple[CacheStandouts, ...] = ()
        if self._relaying is not None:
            found = await standouts(self._relaying.desk, command.group, command.resource)
        self._channel.send(Standouts(command.id, found))

    def _done(self, number: int, *, digest: str = "", problem: str = "") -> None:
        self._channel.send(Done(number, digest, problem[:MAX_TEXT]))

    def _report(self) -> None:
        """Reports and arranges the next report; how late it runs is the loop's lag."""
        now = time.monotonic()
        self._send_report(max(0.0, now - self._due))
        self._due = now + REPORT_SECONDS
        self._loop.call_later(REPORT_SECONDS, self._report)

    def _send_report(self, lag: float) -> None:
        limiter = self._gateway.limiter
        counters = self._gateway.counters
        counters.bounds[BUCKETS] = limiter.overflowed
        activity, samples = _take(self._gateway.observers, counters)
        times = os.times()
        resident, shedding = resident_bytes(), self._shedding
        if shedding is not None:
            shedding.look(resident, time.monotonic())
        self._channel.send(
            Report(
                delta=counters.take_delta(),
                buckets=tuple(limiter.changed(BUCKETS_PER_REPORT)),
                traffic=_traffic(self._traffic.view()),
                loop_lag=lag,
                resident=resident,
                cpu=times.user + times.system,
                remembered=limiter.size,
                activity=activity,
                samples=samples,
                relay=self._relayed(),
                memory_limit=shedding.limit if shedding is not None else 0,
                memory_level=shedding.level if shedding is not None else 0,
            )
        )

    def _relayed(self) -> RelayReport | None:
        relaying = self._relaying
        return None if relaying is None else relay_report(relaying.desk, time.monotonic())


def _observers(config: ObservabilityConfig) -> Observers | None:
    """None when nothing is recorded: then nothing stands in the path of requests."""
    activity = Activity() if config.top_talkers else None
    # The record is written from samples, so it wants them even where previews do not.
    sampler = None
    if config.samples or config.audit:
        sampler = Sampler(random.Random())  # noqa: S311  chooses samples, guards nothing
    if activity is None and sampler is None:
        return None
    return Observers(activity, sampler)


def _take(
    observers: Observers | None, counters: Counters
) -> tuple[tuple[ActivityRow, ...], tuple[Sample, ...]]:
    """What was observed since the last report, and how often more came than can be told apart."""
    rows: tuple[ActivityRow, ...] = ()
    samples: tuple[Sample, ...] = ()
    if observers is not None and observers.activity is not None:
        rows = observers.activity.take()
        counters.bounds[ACTIVITY] = observers.activity.folds
    if observers is not None and observers.sampler is not None:
        samples = observers.sampler.take()
    return rows, samples


def _judge(traffic: TrafficServer, upstreams: tuple[Upstream, ...]) -> None:
    for index, said in enumerate(upstreams):
        verdict = Verdict(said.fit, Condition(said.condition), said.detail)
        traffic.judge(index, verdict, drained=said.drained)


def _traffic(view: TrafficView) -> Traffic:
    return Traffic(
        connections=view.connections,
        exchanges=view.exchanges,
        watches=view.watches,
        endpoints=tuple(
            Endpoint(e.server[:MAX_TEXT], e.state.value, e.open, e.detail[:MAX_TEXT])
            for e in view.endpoints
        ),
    )


def _end_with_parent() -> None:
    """SIGKILL when the supervisor dies: a blocked loop would not see the control socket close."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m apiguard.runtime.worker")
    parser.add_argument("--control", type=int, required=True, metavar="FD")
    parser.add_argument("--listen", type=int, required=True, metavar="FD")
    arguments = parser.parse_args()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    _end_with_parent()
    os.nice(NICENESS)
    control = socket.socket(fileno=arguments.control)
    listening = socket.socket(fileno=arguments.listen)

    async def serve() -> int:
        return await Worker(listening).run(control)

    malloc.place()
    # What is imported stays. Walking over it again in every full collection would stop the loop
    # for 30 ms; nothing that will be garbage exists yet.
    gc.collect()
    gc.freeze()
    return uvloop.run(serve())


if __name__ == "__main__":
    sys.exit(main())
