"""Lesser load of two.

Two candidates drawn at random and the less loaded taken: nearly as even as asking for the least
loaded of all, without every worker running to the same one at the same moment (M. Mitzenmacher,
"The Power of Two Choices in Randomized Load Balancing", 2001).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from apiguard.upstream.endpoint import Endpoint, Lane


def pick(
    endpoints: Sequence[Endpoint], lane: Lane, ceiling: int, now: float, rng: random.Random
) -> Endpoint | None:
    """A usable endpoint with room in ``lane``, or None."""
    fit = [e for e in endpoints if e.active[lane] + e.opening[lane] < ceiling and e.usable(now)]
    if len(fit) > 2:
        fit = rng.sample(fit, 2)
    return min(fit, key=_load, default=None)


def _load(endpoint: Endpoint) -> int:
    return endpoint.load
