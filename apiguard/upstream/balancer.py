"""Lesser load of two among the fit; among none, the least bad.

Two candidates drawn at random and the less loaded taken: nearly as even as asking for the least
loaded of all, without every worker running to the same one at the same moment (M. Mitzenmacher,
"The Power of Two Choices in Randomized Load Balancing", 2001).

A fit endpoint at its ceiling is waited for: its excess does not spill onto unfit ones. When probes
exclude every endpoint the guard still tries: probes can be wrong about all of them at once, and a
server whose etcd check fails may yet answer reads.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from apiguard.upstream.endpoint import Ceilings, Endpoint, Lane


def candidates(endpoints: Sequence[Endpoint], now: float) -> list[Endpoint]:
    """Those a request may go to, before ceilings; empty when none can be asked."""
    fit = [e for e in endpoints if e.fit(now)]
    if fit:
        return fit
    usable = [e for e in endpoints if e.usable(now)]
    # A fit one in its backoff counts as better than those that probes exclude, but waiting for
    # it would hold up requests that a bad server might answer now.
    least = min((e.verdict.condition for e in usable), default=None)
    return [e for e in usable if e.verdict.condition is least]


def pick(
    endpoints: Sequence[Endpoint], lane: Lane, ceilings: Ceilings, now: float, rng: random.Random
) -> Endpoint | None:
    """A candidate with room in ``lane``, or None."""
    room = [e for e in candidates(endpoints, now) if e.has_room(lane, ceilings)]
    count = len(room)
    if count < 2:
        return room[0] if room else None
    # Two indices by hand: random.sample costs 3 us for them, this 0.2. In either order, for
    # equally loaded ones must take turns.
    first = int(rng.random() * count)
    second = int(rng.random() * (count - 1))
    one, other = room[first], room[second + (second >= first)]
    return one if one.load <= other.load else other
