"""A read is proven by a list that began after it, and as few lists as that allows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.relay.freshness import Freshness, Proof, ProveNarrow, ProveWide

from .building import selection

ALL, ONE = selection(), selection("a")


def test_a_herd_that_comes_at_once_costs_two_lists() -> None:
    """The first begins one; all others come while it runs and share the next."""
    fresh: Freshness[int] = Freshness()
    assert fresh.ask(ALL, 0) == [ProveNarrow(ALL)]
    assert all(fresh.ask(ALL, at) == [] for at in range(1, 2_000))
    assert fresh.done(ProveNarrow(ALL)) == ([0], [ProveNarrow(ALL)])
    answered, begun = fresh.done(ProveNarrow(ALL))
    assert answered == list(range(1, 2_000))
    assert begun == []
    assert (fresh.proofs, fresh.asked, len(fresh)) == (2, 2_000, 0)


def test_many_different_reads_share_one_wide_list() -> None:
    fresh: Freshness[int] = Freshness(wide_from=3)
    each = [selection(f"ns{at}") for at in range(20)]
    begun = [fresh.ask(chosen, at) for at, chosen in enumerate(each)]
    assert begun[:4] == [[ProveNarrow(each[0])], [ProveNarrow(each[1])], [ProveWide()], []]
    assert fresh.done(ProveWide()) == ([2], [ProveWide()])
    assert fresh.done(ProveWide()) == (list(range(3, 20)), [])
    assert fresh.done(ProveNarrow(each[0])) == ([0], [])
    assert fresh.proofs == 4


def test_waiting_is_bounded() -> None:
    fresh: Freshness[int] = Freshness(most=2)
    fresh.ask(ALL, 1)
    fresh.ask(ALL, 2)
    assert fresh.ask(ALL, 3) is None
    assert fresh.ask(ONE, 3) is None


def test_who_leaves_is_not_answered() -> None:
    fresh: Freshness[int] = Freshness()
    fresh.ask(ALL, 1)
    fresh.ask(ALL, 2)
    fresh.leave(ALL, 1)
    fresh.leave(ALL, 2)
    fresh.leave(ONE, 9)
    assert len(fresh) == 0
    assert fresh.done(ProveNarrow(ALL)) == ([], [])


def test_who_comes_after_everybody_left_is_not_answered_by_their_read() -> None:
    """It began before he came, though nobody waits for it any more."""
    fresh: Freshness[int] = Freshness()
    fresh.ask(ALL, 1)
    fresh.leave(ALL, 1)
    assert fresh.ask(ONE, 2) == [ProveNarrow(ONE)]
    assert fresh.done(ProveNarrow(ONE)) == ([2], [])
    assert fresh.ask(ALL, 3) == []
    assert fresh.done(ProveNarrow(ALL)) == ([], [ProveNarrow(ALL)])
    assert fresh.done(ProveNarrow(ALL)) == ([3], [])


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 5)), st.tuples(st.just("done"), st.integers(0, 9))
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
    answered: set[int] = set()

    def begin(proofs: list[Proof]) -> None:
        for proof in proofs:
            assert proof not in running
            running[proof] = when

    def finish(proof: Proof) -> None:
        began = running.pop(proof)
        done, following = fresh.done(proof)
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
            begun = fresh.ask(chosen, when)
            assert begun is not None
            begin(begun)
        elif running:
            finish(sorted(running, key=running.__getitem__)[number % len(running)])
    while running:
        when += 1
        finish(next(iter(running)))
    assert answered == set(asked)
    assert len(fresh) == 0
