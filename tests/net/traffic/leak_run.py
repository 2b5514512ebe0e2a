"""Run in a process of its own: prints what a storm of faults left behind, as JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from collections import Counter

import uvloop

from .guard import Guard, descriptors
from .storm import Storm
from .upstreams import EchoUpstream

WARM_UP, TOTAL = 3_000, 10_000


def objects() -> Counter[str]:
    gc.collect()
    return Counter(type(each).__name__ for each in gc.get_objects())


async def main(seed: int) -> None:
    rng = random.Random(seed)
    server = await EchoUpstream(rng, faults=0.05).start()
    guard = Guard([server.url])
    await storm(rng, guard, WARM_UP)
    before, tasks, open_before = objects(), len(asyncio.all_tasks()), descriptors()
    idle_before = guard.idle_upstream
    await storm(rng, guard, TOTAL)
    after = objects()
    grown = {name: n - before[name] for name, n in after.items() if n - before[name] > 0}
    idle = guard.idle_upstream - idle_before
    left = {
        "tasks": len(asyncio.all_tasks()) - tasks,
        "descriptors": descriptors() - open_before - 2 * idle,  # both ends are in this process
        "idle": idle,
        "connections": {
            n: grown.get(n, 0) for n in ("Downstream", "Exchange", "Session", "_Asking")
        },
    }
    print(json.dumps(left))  # noqa: T201 - the result
    await guard.close()
    await server.close()


async def storm(rng: random.Random, guard: Guard, total: int) -> None:
    await Storm(rng, guard.port, total=total, width=32, cancels=0.05).run()
    await guard.rest()
    for _ in range(50):  # closed transports leave the loop in a few turns
        await asyncio.sleep(0)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
