"""The parent process: opens sockets, keeps workers running, applies what operators decide.

Its loop never waits for a worker. Workers push reports; commands are queued; an answer that does
not come within a second is reported as missing. So whatever runs in this process besides, admin
above all, answers while traffic drowns.

This file puts the parts together and holds the life from start to exit: ``fleet`` is the workers,
``operations`` what operators do, ``following``, ``servers`` and ``rebalancing`` what happens by
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence
from typing import Final

from apiguard.errors import StartupError
from apiguard.policy.config import GuardConfig
from apiguard.runtime.control import PROTOCOL, Report, Start
from apiguard.runtime.drivers import ApiClient, KeyFetcher
from apiguard.runtime.files import Files
from apiguard.runtime.fleet import Fleet, Slot
from apiguard.runtime.following import Following
from apiguard.runtime.keeper import PolicyKeeper
from apiguard.runtime.log import StreamLog
from apiguard.runtime.mirror import Mirror
from apiguard.runtime.operations import Operations
from apiguard.runtime.probe import Prober
from apiguard.runtime.process import WORKER_COMMAND
from apiguard.runtime.rebalancing import Rebalancing
from apiguard.runtime.relaytotals import RelayTotals
from apiguard.runtime.rotation import Rotation, own_token
from apiguard.runtime.servers import Servers
from apiguard.runtime.sockets import open_listeners, raise_descriptor_limit
from apiguard.runtime.tasks import Tasks
from apiguard.runtime.tls import own_context
from apiguard.telemetry.counters import Totals

KILL_SECONDS: Final = 2.0
"""Beyond the drain's deadline a worker has this long to exit by itself."""


class Supervisor:
    """``run`` serves until a signal; everything admin shows is here, what it changes in
    ``operations``.

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
        self.relay = RelayTotals()
        self.started_at = time.time()
        self.draining = False
        self._started = time.monotonic()
        self._command = tuple(command)
        self._config_text = config_text
        self._config_name = config_name
        self._asked = asyncio.Event()  # to end, by a signal or a failure
        self._stopping = asyncio.Event()  # workers end and have no successors any more
        self._hurried = asyncio.Event()
        self._failure = ""
        self._tasks = Tasks(self._fail)
        self._rebalancing = Rebalancing(
            config.workers,
            lambda: self.operations.policy,
            config.bounds.process.stall_seconds,
        )

    @property
    def slots(self) -> tuple[Slot, ...]:
        return self.fleet.slots

    @property
    def restarts(self) -> dict[str, int]:
        """Replaced workers by cause."""
        return self.fleet.restarts

    @property
    def enforcement(self) -> str:
        """The operator's override, else what the configuration says."""
        return self.operations.enforcement

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that traffic arrives on."""
        host, port = self.slots[0].listening.getsockname()[:2]
        return str(host), int(port)

    @property
    def files(self) -> Files:
        """What workers are to know: files of the configuration, and fetched key sets."""
        return self._following.files

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
        self.fleet = self._open_fleet()
        self.prober = Prober(upstream.servers, self._client)
        self._servers = Servers(self.prober, self.fleet, self.log)
        self.prober.changed = self._servers.judged
        self._following = Following(
            self.rotation, self._client, self.fleet, self.log, self._tasks.spawn
        )
        self.operations = Operations(self.config, self.keeper, self.fleet, self._servers, self.log)
        self.totals.restore(
            {one.rule: {"would_refuse": one.count} for one in self.operations.shadow()}
        )
        self.keys = [
            KeyFetcher(self._client, self.prober, self._following.key_sink(one.issuer))
            for one in self.config.identity.jwt
            if one.jwks_file is None
        ]

    def _open_fleet(self) -> Fleet:
        config = self.config
        listeners = open_listeners(config.listen.address, config.workers, "listen.address")
        bounds = config.bounds.process
        return Fleet(
            [
                Slot(index, sock, Mirror(bounds.buckets, shared=len(listeners) > 1))
                for index, sock in enumerate(listeners)
            ],
            self,
            self.log,
            self._stopping,
            command=self._command,
            stall_seconds=bounds.stall_seconds,
        )

    async def run(self) -> int:
        """Serves until told to stop; returns the exit code. ``open`` comes first.

        Raises StartupError when the first worker cannot serve at all.
        """
        self._install_signals(asyncio.get_running_loop())
        spawn = self._tasks.spawn
        keepers = [spawn(self.fleet.keep(slot)) for slot in self.slots]
        others = [
            spawn(work)
            for work in (
                self.fleet.watch(),
                self.prober.run(),
                self._following.run(),
                self.operations.run(),
                *(fetcher.run() for fetcher in self.keys),
            )
        ]
        if len(self.slots) > 1:
            others.append(spawn(self._rebalancing.run(self.fleet)))
        try:
            await self._asked.wait()
            if self._failure:
                raise StartupError(self._failure)
            await self._serve_on()
            return await self._drain(keepers)
        finally:
            self._stopping.set()
            self.fleet.kill()
            self.fleet.close()
            for task in others:
                task.cancel()
            # Keepers are not cancelled but end with their workers, which they have to reap.
            await asyncio.wait(keepers, timeout=KILL_SECONDS)
            await asyncio.gather(*others, return_exceptions=True)
            await self.operations.close()
            await self._client.close()

    def stop(self) -> None:
        """First call drains, second ends at once: what SIGTERM and SIGINT do."""
        if self._asked.is_set():
            self._hurried.set()
            self._stopping.set()
            self.fleet.kill()
        self._asked.set()

    def _install_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.spawn(self.reload()))

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self._asked.set()

    async def _serve_on(self) -> None:
        """Not ready first, while everybody is still served and workers are still replaced: who
        looks at readiness stops sending before the port closes, as before kube-apiserver with its
        ``--shutdown-delay-duration``."""
        self.draining = True
        seconds = self.config.bounds.process.shutdown_delay_seconds
        if seconds:
            self.log.info("shutting down, still serving", seconds=seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._hurried.wait()

    async def _drain(self, keepers: list[asyncio.Task[None]]) -> int:
        """No new connections, then the end of what is open."""
        process = self.config.bounds.process
        self._stopping.set()
        self.log.info("draining", seconds=process.drain_seconds)
        self.fleet.drain(process.drain_seconds, process.drain_watch_seconds)
        _, late = await asyncio.wait(keepers, timeout=process.drain_seconds + KILL_SECONDS)
        hurried = self._hurried.is_set()
        self.log.info("stopped", cut=bool(late) or hurried)
        return 1 if hurried else 0

    async def reload(self) -> None:
        """SIGHUP: the policy file if it changed, and files that are followed anyway, at once."""
        await self._following.look()
        await self.operations.reload_policy()

    # Leading the fleet.

    def start_message(self, slot: Slot) -> Start:
        revision = self.keeper.active.revision
        slot.revision = self.keeper.state.version
        slot.files = self.files
        overrides = self.operations.stored_overrides()
        slot.overrides = frozenset(one.id for one in overrides)
        # Only the very first worker of a slot may begin with full buckets: its successor would
        # hand a second burst to everybody whose level was not mirrored yet.
        first = self.keeper.first_start and not any(self.restarts.values())
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
            upstreams=self._servers.known(),
            first_start=first,
            guard_started=self._started,
            buckets=tuple(slot.mirror.buckets.values()),
            shares=self._rebalancing.held_by(slot.index),
            overrides=overrides,
        )

    def on_ready(self, slot: Slot) -> None:
        self._tasks.spawn(self.operations.catch_up(slot))
        self._following.catch_up(slot)
        self._servers.catch_up(slot)

    def on_failed_start(self, reason: str) -> None:
        self._fail(reason)

    def on_report(self, slot: Slot, report: Report) -> None:
        self.totals.add(report.delta, time.monotonic())
        if report.relay is not None:
            self.relay.add(slot.mirror.relay, report.relay)
        self.operations.observing.receive(report)
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
