"""Upstream servers as probes and operators judge them, told to every worker."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from apiguard.runtime.control import SetUpstreams, Upstream
from apiguard.runtime.fleet import NO_ANSWER, Acknowledgement, Fleet, Slot
from apiguard.runtime.log import Log
from apiguard.runtime.probe import Prober, Server


@dataclass(frozen=True, slots=True)
class Drained:
    """A server was drained or undrained."""

    acknowledged: tuple[Acknowledgement, ...]


@dataclass(frozen=True, slots=True)
class LastServer:
    """Every other server is drained: without this one nobody would be served."""


class Servers:
    """Owns what workers know of upstream servers; ``prober.changed`` must be ``judged``."""

    def __init__(self, prober: Prober, fleet: Fleet, log: Log) -> None:
        self._prober = prober
        self._fleet = fleet
        self._log = log

    def known(self) -> tuple[Upstream, ...]:
        """One entry per configured server, in order."""
        return tuple(
            Upstream(v.fit, v.condition.value, v.detail, server.drained)
            for server in self._prober.servers
            for v in (server.health.verdict,)
        )

    def is_last(self, server: Server) -> bool:
        """Whether draining ``server`` would leave none."""
        return all(other.drained for other in self._prober.servers if other is not server)

    def restore(self, drained: Collection[str]) -> None:
        """Drains by server before the guard was restarted. None where they would be all there is:
        the configuration may name other servers now."""
        found = [server for server in self._prober.servers if server.url in drained]
        if found and len(found) == len(self._prober.servers):
            self._log.error("every server was drained, so none stays drained")
            return
        for server in found:
            server.drained = True
            self._log.warning("server stays drained", server=server.url)

    def drained_with(self, server: Server, drained: bool) -> tuple[str, ...]:
        """Which would be, if ``server`` were or were not."""
        return tuple(
            one.url for one in self._prober.servers if (drained if one is server else one.drained)
        )

    async def set_drained(self, server: Server, drained: bool, actor: str) -> Drained | LastServer:
        """Keeps new requests from a server, or lets them come again."""
        if drained and self.is_last(server):
            return LastServer()
        server.drained = drained
        self._log.warning("server drained" if drained else "server undrained", server=server.url,
                          actor=actor)  # fmt: skip
        return Drained(await self._fleet.all(self._apply))

    def judged(self, server: Server, turned: bool) -> None:
        """A probe changed what is known of a server: workers are told, nobody waits."""
        if turned:
            verdict = server.health.verdict
            self._log.warning(
                "server is fit" if verdict.fit else "server is not fit",
                server=server.url,
                condition=verdict.condition.name.lower(),
                detail=verdict.detail,
            )
        self._fleet.tell(SetUpstreams(NO_ANSWER, self.known()))

    def catch_up(self, slot: Slot) -> None:
        """A worker has just started."""
        if slot.worker is not None:
            slot.worker.send(SetUpstreams(NO_ANSWER, self.known()))

    async def _apply(self, slot: Slot) -> Acknowledgement:
        return await self._fleet.ask(slot, lambda number: SetUpstreams(number, self.known()))
