"""The store: order, history, snapshots, conflicts."""

from __future__ import annotations

import random

import pytest

from apiguard.demo.encoding import Object
from apiguard.demo.resources import CONFIGMAPS, PODS
from apiguard.demo.store import CompactedError, ConflictError, ExistsError, MissingError, Store


def value(name: str, namespace: str = "a", data: str = "") -> Object:
    return {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": ""},
        "data": {"k": data},
    }


def test_order_is_bytewise_on_the_whole_key() -> None:
    """``a-b/x`` precedes ``a/x``: a tuple of namespace and name would sort otherwise."""
    store = Store([CONFIGMAPS])
    for namespace in ("a", "a-b"):
        store.create(CONFIGMAPS, value("x", namespace))
    keys = [item.key for item in store.collections[CONFIGMAPS].items()]
    assert keys == ["a-b/x", "a/x"]


def test_a_stale_revision_is_a_conflict() -> None:
    store = Store([CONFIGMAPS])
    first = store.create(CONFIGMAPS, value("x"))
    store.update(CONFIGMAPS, value("x", data="1"), str(first.revision))
    with pytest.raises(ConflictError):
        store.update(CONFIGMAPS, value("x", data="2"), str(first.revision))
    with pytest.raises(ExistsError):
        store.create(CONFIGMAPS, value("x"))
    with pytest.raises(MissingError):
        store.delete(CONFIGMAPS, "a/none")


def test_writing_the_same_value_is_no_change() -> None:
    store = Store([CONFIGMAPS])
    first = store.create(CONFIGMAPS, value("x", data="1"))
    assert store.update(CONFIGMAPS, value("x", data="1")) is first
    assert store.revision == first.revision


def test_the_revision_is_one_counter_for_all_resources() -> None:
    store = Store([CONFIGMAPS, PODS])
    first = store.create(CONFIGMAPS, value("x"))
    pod = {**value("p"), "kind": "Pod"}
    assert store.create(PODS, pod).revision == first.revision + 1
    assert store.delete(CONFIGMAPS, "a/x").revision == first.revision + 2


@pytest.mark.parametrize("seed", range(10))
def test_every_revision_the_log_reaches_can_be_read_as_it_was(seed: int) -> None:
    rng = random.Random(seed)
    store = Store([CONFIGMAPS], history=60)
    collection = store.collections[CONFIGMAPS]
    seen: dict[int, list[tuple[str, str]]] = {}
    for step in range(150):
        name = f"n{rng.randrange(12)}"
        present = collection.get(f"a/{name}") is not None
        if not present:
            store.create(CONFIGMAPS, value(name, data=str(step)))
        elif rng.random() < 0.4:
            store.delete(CONFIGMAPS, f"a/{name}")
        else:
            store.update(CONFIGMAPS, value(name, data=str(step)))
        seen[store.revision] = [(i.key, i.value["data"]["k"]) for i in collection.items()]
    for revision, expected in seen.items():
        if revision < collection.oldest:
            with pytest.raises(CompactedError):
                collection.items_at(revision)
            continue
        found = [(i.key, i.value["data"]["k"]) for i in collection.items_at(revision)]
        assert found == expected, f"seed {seed} revision {revision}"
    assert len(collection.log) == 60
    assert collection.bytes == sum(len(item.body) for item in collection.items())
