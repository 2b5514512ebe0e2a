"""Ending many open streams so that their clients do not all return at once."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence

from apiguard.gateway.serving import Carried

LONGEST_STEP = 0.5
SHORTEST_STEP = 0.02
"""Seconds between looks at what is due."""

CUT_SECONDS = 5.0
"""A watch that could not be ended where nothing is lost for this long after its turn is cut."""


async def end_spread(
    exchanges: Sequence[Carried],
    seconds: float,
    *,
    clock: Callable[[], float],
    flush: Callable[[], None],
    cut_after: float = math.inf,
) -> None:
    """Ends ``exchanges`` evenly over ``seconds``, each at a random moment of its own part.

    A watch ends where nothing is lost, asked again until that is possible, and is cut when it is
    not within ``cut_after`` of its turn. Of other streams no clean end could be told from a
    complete one, so they are cut. ``flush`` sends what endings produced.
    """
    begun = clock()
    order = random.sample(exchanges, len(exchanges))
    part = seconds / len(order) if order else 0.0
    turns = [begun + (i + random.random()) * part for i in range(len(order))]  # noqa: S311  spread
    pending = list(zip(turns, order, strict=True))
    step = min(LONGEST_STEP, max(SHORTEST_STEP, seconds / 20))
    while pending:
        now = clock()
        pending = [
            (turn, exchange)
            for turn, exchange in pending
            if now < turn or not _end(exchange, late=now >= turn + cut_after)
        ]
        flush()
        if pending:
            await asyncio.sleep(step)


def _end(exchange: Carried, *, late: bool) -> bool:
    if exchange.finished:
        return True
    if exchange.is_watch and not late:
        return exchange.end_stream()
    exchange.cut()
    return True
