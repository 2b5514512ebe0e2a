"""Built bodies are charged to the cache they are of."""

from __future__ import annotations

from apiguard.relay.bodies import BodyCache
from apiguard.relay.listing import ListQuery, Reading, ServeList, answer
from apiguard.relay.store import WatchCache

from .building import pod, selection, whole, with_pods


def _read(cache: WatchCache, bodies: BodyCache, namespace: str) -> None:
    query = ListQuery(selection(namespace), Reading.ANY)
    whole(answer(ServeList(query, cache.snapshot()), cache, bodies))


def test_bytes_of_bodies_are_known_by_cache() -> None:
    bodies = BodyCache()
    first = with_pods([pod("a/x", 1), pod("b/y", 2)], 5)
    second = with_pods([pod("a/x", 1, pad=1_000)], 5)
    for cache, namespace in ((first, ""), (first, "a"), (second, "")):
        _read(cache, bodies, namespace)
    bodies.settle()
    found = bodies.by_owner()
    assert found.keys() == {first, second}
    assert found[second] > 1_000 > found[first] > 0
    assert sum(found.values()) == bodies.bytes
