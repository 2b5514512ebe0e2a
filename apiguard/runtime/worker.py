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
import os
import random
import signal
import socket
import sys
import time
from typing import Final

import uvloop

from apiguard.errors import ApiguardError, ConfigError
from apiguard.gateway.gateway import Gateway
from apiguard.identity.authenticator import Authenticator
from apiguard.limiter.limiter import FirstLevel, Limiter
from apiguard.limiter.shares import Shares
from apiguard.policy.compile import compile_policy
from apiguard.policy.config import Enforcement, GuardConfig
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
    Explain,
    Explained,
    Failed,
    Line,
    Ready,
    Report,
    SetEnforcement,
    SetShares,
    SetTokens,
    Start,
    Traffic,
    read_command,
)
from apiguard.runtime.explaining import explain
from apiguard.runtime.log import Bridge, Field, RelayLog
from apiguard.runtime.process import resident_bytes
from apiguard.runtime.reload import compile_off_loop
from apiguard.runtime.settings import parse_settings
from apiguard.runtime.tls import server_context, upstream_context
from apiguard.runtime.traffic import TrafficServer, TrafficView
from apiguard.telemetry.bounds import BUCKETS
from apiguard.telemetry.counters import Counters

REPORT_SECONDS: Final = 0.2

NICENESS: Final = 5
"""Below the supervisor, whose admin port must answer while workers use up the machine."""

EXIT_CANNOT_SERVE: Final = 1


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
        policy = compile_policy(start.policy, start.policy_name)
        limiter = Limiter(
            config.bounds.process.buckets,
            started=start.guard_started,
            first_level=FirstLevel.FULL if start.first_start else FirstLevel.ONE_SECOND,
            shares=Shares(start.workers, start.shares),
        )
        limiter.respec(policy.limits(), now)
        limiter.restore(start.buckets, now)
        counters = Counters()
        gateway = Gateway(
            policy=policy,
            limiter=limiter,
            authenticator=Authenticator.from_static_tokens(start.tokens),
            counters=counters,
            random=random.Random(),  # noqa: S311  spreads retries, guards nothing
            enforcement=Enforcement(start.enforcement),
            config=config,
            wall=time.time,
        )
        traffic = _traffic_server(config, gateway, counters)
        traffic.listen(self._listening)
        return Serving(self._channel, self._log, gateway, traffic, self._listening)

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


def _traffic_server(config: GuardConfig, gateway: Gateway, counters: Counters) -> TrafficServer:
    tls = config.listen.tls
    encrypted = any(server.startswith("https:") for server in config.upstream.servers)
    return TrafficServer(
        loop=asyncio.get_running_loop(),
        gateway=gateway,
        config=config,
        counters=counters,
        tls=server_context(tls.cert_file, tls.key_file, tls.client_ca_file) if tls else None,
        upstream_tls=upstream_context(config.upstream.ca_file) if encrypted else None,
    )


class Serving:
    """A worker that serves: carries out commands one after the other, reports every 200 ms."""

    def __init__(
        self,
        channel: Channel[Command],
        log: RelayLog,
        gateway: Gateway,
        traffic: TrafficServer,
        listening: socket.socket,
    ) -> None:
        self._listening = listening
        self._channel = channel
        self._log = log
        self._gateway = gateway
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._due = time.monotonic()

    async def run(self, commands: asyncio.Queue[Command]) -> int:
        """Until a drain is over: 0. A cancellation closes everything at once."""
        self._channel.send(Ready(self._gateway.policy.digest))
        self._report()
        try:
            while True:
                command = await commands.get()
                if isinstance(command, Drain):
                    await self._drain(command.seconds)
                    return 0
                await self._carry_out(command)
        finally:
            self._traffic.close()

    async def _drain(self, seconds: float) -> None:
        draining = self._loop.create_task(self._traffic.drain(seconds))
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
            case SetTokens():
                self._set_tokens(command)
            case SetShares():
                self._gateway.limiter.set_shares(command.shares, time.monotonic())
                self._channel.send(Done(command.id))
            case Explain():
                self._explain(command)
            case Start() | Drain():
                self._log.error("command out of place", command=type(command).__name__)

    async def _apply_policy(self, command: ApplyPolicy) -> None:
        try:
            policy = await compile_off_loop(command.text, command.name)
        except ConfigError as error:
            self._done(command.id, problem=str(error))
            return
        self._gateway.apply_policy(policy, time.monotonic())
        self._done(command.id, digest=policy.digest)

    def _set_enforcement(self, command: SetEnforcement) -> None:
        try:
            self._gateway.set_enforcement(Enforcement(command.enforcement))
        except ValueError as error:
            self._done(command.id, problem=str(error))
            return
        self._done(command.id)

    def _set_tokens(self, command: SetTokens) -> None:
        try:
            authenticator = Authenticator.from_static_tokens(command.tokens)
        except ConfigError as error:
            self._done(command.id, problem=str(error))
            return
        self._gateway.set_authenticator(authenticator)
        self._done(command.id)

    def _explain(self, command: Explain) -> None:
        try:
            answer = explain(self._gateway, command.question, time.monotonic())
        except ValueError as error:
            self._channel.send(Explained(command.id, problem=str(error)[:MAX_TEXT]))
            return
        self._channel.send(Explained(command.id, answer))

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
        times = os.times()
        self._channel.send(
            Report(
                delta=counters.take_delta(),
                buckets=tuple(limiter.changed(BUCKETS_PER_REPORT)),
                traffic=_traffic(self._traffic.view()),
                loop_lag=lag,
                resident=resident_bytes(),
                cpu=times.user + times.system,
                remembered=limiter.size,
            )
        )


def _traffic(view: TrafficView) -> Traffic:
    return Traffic(
        connections=view.connections,
        exchanges=view.exchanges,
        watches=view.watches,
        endpoints=tuple(
            Endpoint(e.server[:MAX_TEXT], e.usable, e.open, e.detail[:MAX_TEXT])
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

    return uvloop.run(serve())


if __name__ == "__main__":
    sys.exit(main())
