"""Shedding: what a worker gives up before the kernel kills it for memory.

``gateway.pressure`` says what is due; here it is done. Resident memory is looked at with every
report, which holds it anyway, so it costs requests nothing.

Freed memory does not go back to the kernel by itself: of 86 MiB that 135 clients had held, none
did within seconds of their leaving. Connections end as cycles, which wait for the collector; the
pages then wait for malloc_trim(3): after 33 of 80 were cut, it alone gave back 7 MiB, after a
collection 14 MiB more. A collection takes 3 ms in a worker without relay and grows with what the
relay holds, trimming 1 ms for 5 MiB of what is freed; so both together have a share of time.

Not given back are verdicts of reviews and verified tokens: they are small, and upstream would be
asked for all of them at once.
"""

from __future__ import annotations

import gc
import time
from typing import Final

from apiguard.gateway.gateway import Gateway
from apiguard.gateway.pressure import Holder, Level, Measures, Pressure, may_be_cut, to_cut
from apiguard.runtime import malloc
from apiguard.runtime.downstream import Downstream
from apiguard.runtime.log import Log
from apiguard.runtime.traffic import TrafficServer
from apiguard.telemetry import bounds

TOLD: Final = 5
"""Clients named in the log each time some are cut."""

SHARE: Final = 0.05
"""Of the time, spent on giving freed memory back to the system: requests wait meanwhile."""

IDLE_SECONDS: Final = 5.0
"""Upstream connections unused for so long are closed; those in regular use stay."""


class Shedding:
    """Keeps one worker below ``limit`` bytes."""

    def __init__(self, limit: int, gateway: Gateway, traffic: TrafficServer, log: Log) -> None:
        self._pressure = Pressure(limit)
        self._log = log
        self._gateway = gateway
        self._traffic = traffic
        self._rests_until = 0.0

    @property
    def limit(self) -> int:
        return self._pressure.limit

    @property
    def level(self) -> Level:
        return self._pressure.level

    def look(self, resident: int, now: float) -> None:
        """Does what ``resident`` bytes call for."""
        before = self.level
        measures = self._pressure.look(resident, now)
        if measures.level is not before:
            self._tell(measures.level, before, resident)
        self._gateway.refuse_reads = measures.refuse_reads
        self._traffic.refuse_connections = measures.refuse_connections
        if measures.free:
            self._pressure.cut(self._cut(measures, now))
        if measures.give_back:
            self._give_back(now)

    def _cut(self, measures: Measures, now: float) -> int:
        """The number of clients that were cut."""
        chosen = to_cut(self._holders(now - measures.patience, now), measures.free)
        for holder in chosen[:TOLD]:
            self._tell_cut(holder, now)
        if len(chosen) > TOLD:
            self._log.warning("more clients cut for memory", clients=len(chosen) - TOLD)
        for holder in chosen:
            self._traffic.counters.hit(bounds.MEMORY_CLIENTS)
            holder.client.cut()
        self._traffic.flush()
        return len(chosen)

    def _holders(self, before: float, now: float) -> list[Holder[Downstream]]:
        """Who has read nothing since ``before``."""
        return [
            Holder(downstream, downstream.held, since)
            for downstream in self._traffic.stalled()
            if (since := downstream.stalled_at or now) <= before
            and (exchange := downstream.session.exchange) is not None
            and may_be_cut(exchange.info, exchange.forward.flow)
        ]

    def _give_back(self, now: float) -> None:
        self._traffic.counters.hit(bounds.MEMORY_COMFORT)
        self._gateway.give_back()
        self._traffic.upstream.close_idle(now - IDLE_SECONDS)
        if now < self._rests_until:
            return
        begun = time.monotonic()
        gc.collect()
        malloc.trim()
        self._rests_until = now + (time.monotonic() - begun) / SHARE

    def _tell(self, level: Level, before: Level, resident: int) -> None:
        say = self._log.warning if level > before else self._log.info
        name = f"memory is {level.name.lower()}"
        say(name, residentBytes=resident, limitBytes=self.limit)

    def _tell_cut(self, holder: Holder[Downstream], now: float) -> None:
        exchange = holder.client.session.exchange
        assert exchange is not None
        caller, info = exchange.forward.caller, exchange.info
        self._log.warning(
            "client cut for memory",
            heldBytes=holder.held,
            unreadSeconds=round(now - holder.since, 1),
            verb=info.verb,
            target=info.qualified or info.path,
            user=caller.identity.user if caller.identity is not None else "",
            userAgent=caller.user_agent,
            source=caller.source,
        )
