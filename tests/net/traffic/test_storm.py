"""Among a hundred thousand requests no answer goes astray and no write arrives twice."""

from __future__ import annotations

import random

import pytest

from apiguard.runtime import downstream

from .conftest import StartEcho, StartGuard
from .storm import Storm
from .upstreams import EchoUpstream


async def storm(rng: random.Random, echo: StartEcho, guard: StartGuard, total: int) -> None:
    server = await echo(EchoUpstream(rng, faults=0.02))
    started = await guard(server.url)
    asking = Storm(rng, started.port, total=total, width=64, cancels=0.02)
    tally = await asking.run()

    assert tally.mixed == []
    assert server.bodies_broken == 0
    twice = {tag for tag, times in server.seen.items() if times > 1}
    assert not twice, "nothing is sent again, whatever its method"
    assert tally.complete + tally.broken + tally.cancelled == tally.started == total
    # The storm was one: most answers arrived, and each kind of fault happened.
    assert tally.statuses[200] > total * 0.85
    assert min(tally.statuses[503], tally.statuses[504], tally.broken, tally.cancelled) > 0
    assert len(tally.writes & server.seen.keys()) > total * 0.3
    await started.rest()


@pytest.mark.timeout(300)  # 25 s where it has a core to itself
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_hundred_thousand_requests(
    rng: random.Random, echo: StartEcho, guard: StartGuard
) -> None:
    await storm(rng, echo, guard, 100_000)


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_ten_thousand_requests_on_the_other_loop(
    rng: random.Random, echo: StartEcho, guard: StartGuard
) -> None:
    await storm(rng, echo, guard, 10_000)


async def test_connections_that_rest_after_each_read_lose_nothing(
    rng: random.Random, echo: StartEcho, guard: StartGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downstream, "READS_PER_TURN", 0)
    await storm(rng, echo, guard, 5_000)
