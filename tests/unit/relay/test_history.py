"""Whatever happens upstream, on lines and in clients, every informer sees one true history.

Order, uniqueness, completeness, honest bookmarks and resumability are asserted by ``Informer`` at
every event; here things are made to happen.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.relay.eventlog import LogBounds
from apiguard.relay.reflector import ListFrom, Phase, WatchFrom
from apiguard.relay.watching import BeginExpired, WatchQuery, decide_watch

from .building import selection
from .model import Informer, ModelServer, Stand

KEYS = ["a/p", "a/q", "a-b/p", "b/p", "b/r"]
SELECTIONS = [
    selection(),
    selection("a"),
    selection("b", labels="app=x"),
    selection(labels="app!=x"),
    selection(fields="spec.nodeName=n1"),
    selection("a", fields="metadata.name=p"),
    selection(fields="metadata.name=p,spec.nodeName!=n2"),
    selection(fields="spec.nodeName="),
]
key = st.sampled_from(KEYS)
steps = st.one_of(
    st.tuples(st.just("write"), key, st.sampled_from("xy"), st.sampled_from(["", "n1", "n2"])),
    st.tuples(st.just("write"), key, st.sampled_from("xy"), st.sampled_from(["", "n1", "n2"])),
    st.tuples(st.just("delete"), key),
    st.tuples(st.just("pass by")),
    st.tuples(st.just("fulfil")),
    st.tuples(st.just("receive"), st.integers(1, 6)),
    st.tuples(st.just("receive"), st.integers(1, 6)),
    st.tuples(st.just("bookmark")),
    st.tuples(st.just("end")),
    st.tuples(st.just("lose")),
    st.tuples(st.just("expire")),
    st.tuples(st.just("compact")),
    st.tuples(st.just("up"), st.booleans()),
    st.tuples(
        st.just("join"), st.integers(0, len(SELECTIONS) - 1), st.integers(1, 4), st.booleans()
    ),
    st.tuples(st.just("drain"), st.integers(0, 9)),
    st.tuples(st.just("drain"), st.integers(0, 9)),
    st.tuples(st.just("connect"), st.integers(0, 9)),
    st.tuples(st.just("hang up"), st.integers(0, 9)),
    st.tuples(st.just("tick"), st.sampled_from([0.5, 5.0, 61.0])),
)


def do(stand: Stand, step: tuple[object, ...]) -> None:
    match step:
        case ("write", str(where), str(labels), str(node)):
            stand.server.write(where, labels, node)
        case ("delete", str(where)):
            stand.server.delete(where)
        case ("pass by",):
            stand.server.pass_by()
        case ("fulfil",):
            if not isinstance(stand.wish, WatchFrom):
                stand.fulfil()
        case ("receive", int(most)):
            stand.receive(most)
        case ("bookmark",):
            stand.receive_bookmark()
        case ("end",):
            stand.drop()
        case ("lose",):
            stand.drop(code=0)
        case ("expire",):
            stand.server.compact()
            stand.drop(code=410)
        case ("compact",):
            stand.server.compact()
        case ("up", bool(up)):
            stand.up = up
        case ("join", int(which), int(capacity), bool(watch_list)):
            if len(stand.informers) < 10:
                stand.join(SELECTIONS[which], capacity, watch_list=watch_list)
        case ("tick", float(seconds)):
            stand.tick(seconds)
        case (verb, int(which)):
            if stand.informers:
                with_informer(stand, str(verb), stand.informers[which % len(stand.informers)])


def with_informer(stand: Stand, verb: str, informer: Informer) -> None:
    if verb == "drain":
        stand.drain(informer)
    elif verb == "connect":
        stand.connect(informer)
    else:
        stand.hang_up(informer)


def started(log: LogBounds | None = None, seed: int = 0) -> Stand:
    server = ModelServer()
    for at, where in enumerate(KEYS[:3]):
        server.write(where, "xy"[at % 2], "n1")
    stand = Stand(server, seed, log)
    stand.fulfil()
    stand.fulfil()
    return stand


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, max_size=120), st.sampled_from([1, 4, 1_000]), st.integers(0, 99))
def test_every_interleaving_is_one_true_history(
    script: list[tuple[object, ...]], fewest: int, seed: int
) -> None:
    """With logs so short that cursors and resumes fall out of them, and with long ones."""
    stand = started(LogBounds(seconds=3.0, fewest=fewest), seed)
    for step in script:
        do(stand, step)
    stand.settle()
    stand.check_settled()


@pytest.mark.parametrize("seed", range(6))
def test_long_runs_end_where_the_server_does(seed: int) -> None:
    """Thousands of writes under drops, losses, expiries, stalls and reconnects."""
    stand = started(LogBounds(seconds=20.0, fewest=50), seed)
    rng = stand.rng
    for at in range(40):
        stand.join(SELECTIONS[at % len(SELECTIONS)], rng.randint(1, 8), watch_list=at % 2 == 0)
    for _ in range(2_500):
        turn = rng.random()
        if turn < 0.5:
            stand.server.write(
                f"{rng.choice('abc')}/p{rng.randrange(30)}",
                rng.choice("xy"),
                rng.choice(["", "n1", "n2"]),
            )
        elif turn < 0.6:
            stand.server.delete(f"{rng.choice('abc')}/p{rng.randrange(30)}")
        elif turn < 0.95:
            stand.receive(rng.randint(1, 20))
        else:
            do(stand, rng.choice([("end",), ("lose",), ("expire",), ("bookmark",), ("tick", 5.0)]))
        if not isinstance(stand.wish, WatchFrom):
            stand.fulfil()
        for informer in rng.sample(stand.informers, 6):
            verb = rng.choices(["drain", "connect", "hang up"], [8, 8, 1])[0]
            with_informer(stand, verb, informer)
    stand.settle()
    stand.check_settled()
    assert sum(informer.told for informer in stand.informers) > 9_000


def test_a_lost_watch_costs_nobody_a_list() -> None:
    """Upstream is away, then back: neither the relay nor its clients list again."""
    stand = started()
    informers = [stand.join(s, 100, watch_list=at % 2 == 0) for at, s in enumerate(SELECTIONS)]
    lists = stand.reflector.lists
    for round_ in range(20):
        stand.up = False
        stand.drop(code=0)
        for _ in range(10):
            stand.fulfil()
        stand.server.write(f"a/new{round_}", "x", "n1")
        stand.up = True
        while not isinstance(stand.wish, WatchFrom):
            stand.fulfil()
        stand.receive(10)
        for informer in informers:
            stand.drain(informer)
    stand.settle()
    stand.check_settled()
    assert stand.reflector.lists == lists == 1
    assert [informer.relists for informer in informers] == [0] * len(informers)


def test_an_expired_watch_is_bridged_without_the_clients_noticing() -> None:
    """One list by the relay; streams go on by difference."""
    stand = started()
    informers = [stand.join(s, 100, watch_list=True) for s in SELECTIONS]
    stand.server.delete("a/p")
    stand.server.write("a/p", "x", "n2")
    stand.server.write("b/r", "x", "n1")
    stand.server.write("b/s", "y", "n2")
    stand.server.compact()
    stand.drop(code=0)
    while stand.cache.revision < stand.server.revision:
        stand.fulfil()
    for informer in informers:
        stand.drain(informer)
        assert informer.revision == stand.server.revision  # all may resume behind the gap
    stand.settle()
    stand.check_settled()
    assert stand.reflector.lists == 2
    assert [informer.relists for informer in informers] == [0] * len(informers)
    assert stand.reflector.breaks == 0


def test_who_would_hear_of_several_deletions_starts_over() -> None:
    """Others go on; nobody who starts over hears a part of it."""
    stand = started()
    everything, one = (stand.join(s, 100, watch_list=True) for s in (selection(), selection("b")))
    stand.drain(everything)
    stand.server.delete("a/p")
    stand.server.delete("a/q")
    stand.server.write("b/r", "x", "n1")
    stand.drop(code=410)
    told = everything.told
    stand.fulfil()
    stand.drain(everything)
    assert everything.told == told
    stand.settle()
    stand.check_settled()
    assert (everything.relists, one.relists) == (1, 0)


unseen = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(KEYS), st.sampled_from("xy"), st.just("n1")),
    st.tuples(st.just("delete"), st.sampled_from(KEYS)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(unseen, max_size=10), st.integers(0, 6))
def test_who_leaves_in_the_middle_of_a_difference_can_go_on_upstream(
    script: list[tuple[object, ...]], read: int
) -> None:
    """The relay may die on the way; what its client was not told any more, the server tells."""
    stand = started()
    informers = [stand.join(s, 100, watch_list=False) for s in SELECTIONS]
    for step in script:
        do(stand, step)
    stand.drop(code=410)
    stand.fulfil()
    for informer in informers:
        assert informer.line is not None
        del informer.line.waiting[read:]
        informer.forgiving = True
        informer.receive(stand.server)
        assert informer.revision
        stand._upstream(informer)
        now = stand.server.visible(stand.server.revision, informer.selection)
        assert informer.store == now


def test_who_knows_more_than_the_relay_is_not_told_a_difference() -> None:
    """A client comes from upstream, ahead; then the relay bridges what the client has seen."""
    stand = started()
    informer = stand.join(selection(), 100, watch_list=True)
    stand.server.write("a/p", "y", "n1")
    stand.receive(10)
    stand.drain(informer)
    stand.hang_up(informer)
    stand.server.delete("a/p")
    stand.server.write("a/p", "x", "n2")
    ahead = stand.server.revision
    stand._upstream(informer)
    assert informer.revision == ahead > stand.cache.revision
    stand.connect(informer)
    stand.server.delete("a/p")
    stand.server.write("a/p", "x", "n2")
    stand.server.compact()
    stand.drop(code=410)
    stand.settle()
    stand.check_settled()
    assert informer.relists == 1


def test_a_revision_of_the_relays_choosing_is_no_resume_point_upstream() -> None:
    """Long after the log forgot the difference, 410 is told, not passed."""
    stand = started(LogBounds(seconds=1.0, fewest=0))
    low = stand.cache.revision
    stand.server.delete("a/p")
    stand.server.delete("a/q")
    stand.server.write("b/r", "x", "n1")
    stand.server.compact()
    stand.drop(code=410)
    stand.fulfil()
    stand.tick(100.0)
    assert stand.cache.log.floor > low + 1
    query = WatchQuery(selection(), low + 1, False, bookmarks=True)
    assert isinstance(decide_watch(query, stand.cache), BeginExpired)


def test_an_upstream_that_went_back_in_time_ends_everything() -> None:
    """Restored from a backup: no stream is continued, no old state is shown as new."""
    stand = started()
    informers = [stand.join(s, 100, watch_list=True) for s in SELECTIONS]
    for at in range(10):
        stand.server.write(f"a/new{at}", "x", "n1")
    stand.receive(100)
    for informer in informers:
        stand.drain(informer)
    stand.server = stand.server.restored(stand.server.revision - 6)
    stand.server.write("b/after", "x", "n1")
    stand.wish = stand.reflector.contradicted(stand.now)
    while not isinstance(stand.wish, WatchFrom):
        stand.fulfil()
    assert stand.cache.revision == stand.server.revision
    for informer in informers:
        assert informer.line is not None
        assert informer.line.ending is not None
        stand.drain(informer)
        assert informer.revision == 0  # 410 was told; the client starts over
        informer.seen = 0
    stand.settle()
    stand.check_settled()


def test_until_the_first_list_there_is_nothing() -> None:
    stand = Stand(ModelServer(), 0)
    stand.up = False
    for _ in range(5):
        stand.fulfil()
        informer = stand.join(selection(), 10, watch_list=False)
        assert informer.line is None
        assert informer.store == {}
        assert informer.relists == -1
    assert stand.reflector.phase is Phase.PENDING
    assert not stand.cache.ready
    stand.up = True
    while not isinstance(stand.wish, ListFrom):
        stand.fulfil()
    stand.settle()
    stand.check_settled()
