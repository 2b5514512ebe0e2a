"""A read is proven by a list that began after it, and as few lists as that allows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.relay.freshness import (
    AT_ONCE,
    LONGEST_REST,
    SPACING,
    Freshness,
    Proof,
    ProveNarrow,
    ProveWide,
)

from .building import selection

ALL, ONE = selection(), selection("a")


def test_a_herd_that_comes_at_once_costs_two_lists() -> None:
    """The first begins one; all others come while it runs and share the next."""
    fresh: Freshness[int] = Freshness()
    assert fresh.ask(ALL, 0, 0.0) == [ProveNarrow(ALL)]
    assert all(fresh.ask(ALL, at, 0.0) == [] for at in range(1, 2_000))
    assert fresh.done(ProveNarrow(ALL), 0.0) == ([0], [ProveNarrow(ALL)])
    answered, begun = fresh.done(ProveNarrow(ALL), 0.0)
    assert answered == list(range(1, 2_000))
    assert begun == []
    assert (fresh.proofs, fresh.asked, len(fresh)) == (2, 2_000, 0)


def test_many_different_reads_share_one_wide_list() -> None:
    fresh: Freshness[int] = Freshness(wide_from=3)
    each = [selection(f"ns{at}") for at in range(20)]
    begun = [fresh.ask(chosen, at, 0.0) for at, chosen in enumerate(each)]
    assert begun[:4] == [[ProveNarrow(each[0])], [ProveNarrow(each[1])], [ProveWide()], []]
    assert fresh.done(ProveWide(), 0.0) == ([2], [ProveWide()])
    assert fresh.done(ProveWide(), 0.0) == (list(range(3, 20)), [])
    assert fresh.done(ProveNarrow(each[0]), 0.0) == ([0], [])
    assert fresh.proofs == 4


def test_waiting_is_bounded() -> None:
    fresh: Freshness[int] = Freshness(most=2)
    fresh.ask(ALL, 1, 0.0)
    fresh.ask(ALL, 2, 0.0)
    assert fresh.ask(ALL, 3, 0.0) is None
    assert fresh.ask(ONE, 3, 0.0) is None


def test_who_leaves_is_not_answered() -> None:
    fresh: Freshness[int] = Freshness()
    fresh.ask(ALL, 1, 0.0)
    fresh.ask(ALL, 2, 0.0)
    fresh.leave(ALL, 1)
    fresh.leave(ALL, 2)
    fresh.leave(ONE, 9)
    assert len(fresh) == 0
    assert fresh.done(ProveNarrow(ALL), 0.0) == ([], [])


def test_who_comes_after_everybody_left_is_not_answered_by_their_read() -> None:
    """It began before he came, though nobody waits for it any more."""
    fresh: Freshness[int] = Freshness()
    fresh.ask(ALL, 1, 0.0)
    fresh.leave(ALL, 1)
    assert fresh.ask(ONE, 2, 0.0) == [ProveNarrow(ONE)]
    assert fresh.done(ProveNarrow(ONE), 0.0) == ([2], [])
    assert fresh.ask(ALL, 3, 0.0) == []
    assert fresh.done(ProveNarrow(ALL), 0.0) == ([], [ProveNarrow(ALL)])
    assert fresh.done(ProveNarrow(ALL), 0.0) == ([3], [])


def test_one_after_the_other_share_proofs_when_many_come() -> None:
    """Ten a second in the long run; nobody waits for longer than that says."""
    fresh: Freshness[int] = Freshness()
    waited: list[float] = []
    asked: dict[int, float] = {}
    now, begun = 0.0, list[Proof]()
    for at in range(1_000):  # a hundred a second, each proof takes 4 ms
        now = at * 0.01
        asked[at] = now
        begun += fresh.ask(ALL, at, now) or []
        begun += fresh.due(now)
        while begun:
            begun.pop()
            answered, begun = fresh.done(ProveNarrow(ALL), now + 0.004)
            waited += [now + 0.004 - asked[waiter] for waiter in answered]
    assert len(waited) > 980
    assert fresh.proofs == AT_ONCE - 1 + 10 / SPACING
    assert max(waited) < SPACING + 0.005
    assert sum(waited[:3]) < 0.02


def test_few_are_not_made_to_wait() -> None:
    fresh: Freshness[int] = Freshness()
    for at in range(20):
        assert fresh.ask(ALL, at, at * 0.11) == [ProveNarrow(ALL)]
        assert fresh.done(ProveNarrow(ALL), at * 0.11 + 0.01) == ([at], [])


def test_long_proofs_leave_half_of_the_time() -> None:
    fresh: Freshness[int] = Freshness()
    now, running = 0.0, 0.0
    for at in range(100):
        begun = fresh.ask(ALL, at, now)
        while not begun:
            now += 0.01
            begun = fresh.due(now)
        now += 0.3
        running += 0.3
        assert fresh.done(ProveNarrow(ALL), now) == ([at], [])
    assert 0.45 < running / now < 0.55


def test_a_proof_that_took_very_long_is_not_rested_from_for_long() -> None:
    fresh: Freshness[int] = Freshness()
    fresh.ask(ALL, 1, 0.0)
    fresh.done(ProveNarrow(ALL), 30.0)
    assert fresh.ask(ALL, 2, 30.0 + LONGEST_REST) == [ProveNarrow(ALL)]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 5)),
        st.tuples(st.just("done"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.integers(0, 9)),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(2, 6))
def test_nobody_is_answered_by_a_read_older_than_himself(
    script: list[tuple[str, int]], wide_from: int
) -> None:
    """Everybody is answered once, by a proof of his selection or a wide one begun after him."""
    fresh: Freshness[int] = Freshness(wide_from=wide_from)
    running: dict[Proof, int] = {}  # when each began
    asked: dict[int, Proof] = {}
    when = 0
    now = 0.0
    answered: set[int] = set()

    def begin(proofs: list[Proof]) -> None:
        for proof in proofs:
            assert proof not in running
            running[proof] = when

    def finish(proof: Proof) -> None:
        began = running.pop(proof)
        done, following = fresh.done(proof, now)
        for waiter in done:
            assert waiter not in answered
            assert began >= waiter
            assert proof in (asked[waiter], ProveWide())
            answered.add(waiter)
        begin(following)

    for verb, number in script:
        when += 1
        if verb == "ask":
            chosen = selection(f"ns{number}")
            asked[when] = ProveNarrow(chosen)
            begun = fresh.ask(chosen, when, now)
            assert begun is not None
            begin(begun)
        elif verb == "wait":
            now += number * 0.05
            begin(fresh.due(now))
        elif running:
            finish(sorted(running, key=running.__getitem__)[number % len(running)])
    while running or len(fresh):
        when += 1
        now += SPACING
        if running:
            finish(next(iter(running)))
        begin(fresh.due(now))
    assert answered == set(asked)
    assert len(fresh) == 0
