"""Limiter.acquire: which bucket, all limits or none, and what survives a policy change."""

from __future__ import annotations

import math

import pytest

from apiguard.limiter.flow import BucketSpec, Flow, LimitSpec, Per
from apiguard.limiter.limiter import ADMITTED, FirstLevel, Limiter, Shed
from apiguard.limiter.shares import Share, Shares
from apiguard.limiter.table import BucketView

from .requests import LIST_PODS, anonymous, flow, in_namespace, limit, unverified, verified

ALICE = verified("alice")
BOB = verified("bob")


def admitted(
    limiter: Limiter, asked: Flow, times: int, now: float = 0.0, caller: object = ALICE
) -> int:
    assert isinstance(caller, type(ALICE))
    return sum(limiter.acquire(asked, LIST_PODS, caller, now) is ADMITTED for _ in range(times))


def levels(limiter: Limiter) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(view.id, view.values): view.level for view in limiter.changed()}


# -- which bucket


def test_without_per_all_callers_share_one_bucket() -> None:
    limiter, asked = Limiter(), flow(limit(1, 3))
    assert admitted(limiter, asked, 2, caller=ALICE) == 2
    assert admitted(limiter, asked, 2, caller=BOB) == 1


def test_per_user_keeps_users_apart() -> None:
    limiter, asked = Limiter(), flow(limit(1, 3, Per.USER))
    assert admitted(limiter, asked, 5, caller=ALICE) == 3
    assert admitted(limiter, asked, 5, caller=BOB) == 3


def test_unverified_callers_have_one_bucket_per_source_whatever_they_claim() -> None:
    limiter, asked = Limiter(), flow(limit(1, 3, Per.USER))
    assert admitted(limiter, asked, 5, caller=unverified("10.0.0.1", "a/1")) == 3
    assert admitted(limiter, asked, 5, caller=unverified("10.0.0.1", "b/1")) == 0
    assert admitted(limiter, asked, 5, caller=unverified("10.0.0.2")) == 3


def test_a_user_named_like_a_source_does_not_share_its_bucket() -> None:
    limiter, asked = Limiter(), flow(limit(1, 3, Per.USER))
    assert admitted(limiter, asked, 5, caller=unverified("10.0.0.1")) == 3
    assert admitted(limiter, asked, 5, caller=verified("10.0.0.1")) == 3
    assert admitted(limiter, asked, 5, caller=verified("source 10.0.0.1")) == 3


def test_anonymous_is_one_user() -> None:
    limiter, asked = Limiter(), flow(limit(1, 3, Per.USER))
    assert admitted(limiter, asked, 2, caller=anonymous("10.0.0.1")) == 2
    assert admitted(limiter, asked, 2, caller=anonymous("10.0.0.2")) == 1


def test_an_exempt_flow_is_always_admitted() -> None:
    limiter = Limiter(capacity=0)
    assert admitted(limiter, Flow("heartbeats", (), exempt=True), 100) == 100
    assert limiter.size == 0


@pytest.mark.parametrize(
    ("per", "values"),
    [
        (Per.USER, ("alice",)),
        (Per.USER_AGENT, ("kubectl/v1",)),
        (Per.USER_AGENT_FAMILY, ("kubectl",)),
        (Per.SOURCE, ("10.0.0.1",)),
        (Per.NAMESPACE, ("default",)),
        (Per.VERB, ("list",)),
        (Per.RESOURCE, ("pods",)),
    ],
)
def test_every_field_can_key_a_bucket(per: Per, values: tuple[str, ...]) -> None:
    limiter = Limiter()
    limiter.acquire(flow(limit(1, 3, per)), LIST_PODS, ALICE, 0.0)
    assert [view.values for view in limiter.changed()] == [values]


# -- all or none


def test_a_refusal_by_one_limit_charges_no_other() -> None:
    wide = limit(1, 10, id_="rule/all")
    narrow = limit(1, 2, Per.USER, id_="rule/user")
    limiter, asked = Limiter(), flow(wide, narrow)
    assert admitted(limiter, asked, 7) == 2
    assert levels(limiter) == {("rule/all", ()): 8.0, ("rule/user", ("alice",)): 0.0}


def test_a_shed_names_the_limit_that_takes_longest() -> None:
    fast = limit(10, 1, id_="rule/all")
    slow = limit(0.5, 1, Per.USER, id_="rule/user")
    limiter, asked = Limiter(), flow(fast, slow)
    assert admitted(limiter, asked, 1) == 1
    assert limiter.acquire(asked, LIST_PODS, ALICE, 0.0) == Shed(slow, 2.0)


def test_rate_zero_refuses_with_an_infinite_wait() -> None:
    limiter, none = Limiter(), limit(0, 0)
    assert limiter.acquire(flow(none), LIST_PODS, ALICE, 1e6) == Shed(none, math.inf)


# -- counting and shadow


def test_shadow_counts_what_it_would_refuse_with_buckets_as_if_enforced() -> None:
    limiter, asked = Limiter(), flow(limit(1, 3))
    answers = [limiter.would_refuse(asked, LIST_PODS, ALICE, 0.0) for _ in range(5)]
    assert answers == [False] * 3 + [True] * 2
    (view,) = limiter.changed()
    assert (view.admitted, view.refused, view.would_refuse, view.level) == (3, 0, 2, 0.0)


def test_shadow_charges_no_limit_for_what_another_would_refuse() -> None:
    limiter, asked = Limiter(), flow(limit(1, 3, id_="rule/all"), limit(1, 1, id_="rule/one"))
    assert [limiter.would_refuse(asked, LIST_PODS, ALICE, 0.0) for _ in range(3)] == [
        False,
        True,
        True,
    ]
    wide, narrow = limiter.changed()
    assert (wide.admitted, wide.would_refuse, wide.level) == (1, 0, 2.0)
    assert (narrow.admitted, narrow.would_refuse, narrow.level) == (1, 2, 0.0)


def test_changed_reports_each_used_bucket_once_in_turn() -> None:
    limiter, asked = Limiter(), flow(limit(1, 3, Per.USER))
    for user in "abc":
        admitted(limiter, asked, 2, caller=verified(user))
    assert [view.values for view in limiter.changed(2)] == [("a",), ("b",)]
    admitted(limiter, asked, 1, caller=verified("a"))
    assert [view.values for view in limiter.changed()] == [("c",), ("a",)]
    assert limiter.changed() == []


# -- peek


def test_peek_answers_as_acquire_would_and_changes_nothing() -> None:
    limiter = Limiter()
    asked = flow(limit(1, 2, Per.USER), limit(1, 5, id_="rule/2"))
    peeked = limiter.peek(asked, LIST_PODS, ALICE, 0.0)
    for _ in range(4):
        peeked = limiter.peek(asked, LIST_PODS, ALICE, 0.0)
        assert limiter.peek(asked, LIST_PODS, ALICE, 0.0) == peeked
        assert limiter.acquire(asked, LIST_PODS, ALICE, 0.0) == peeked.verdict
    assert [view.level for view in peeked.buckets] == [0.0, 3.0]


def test_peek_opens_no_bucket() -> None:
    limiter = Limiter()
    peeked = limiter.peek(flow(limit(1, 2, Per.USER_AGENT)), LIST_PODS, ALICE, 0.0)
    assert peeked.verdict is ADMITTED
    assert peeked.buckets[0].values == ("kubectl/v1",)
    assert limiter.size == 0
    assert limiter.changed() == []


# -- policy changes


def test_a_reload_keeps_levels_under_the_new_rate() -> None:
    limiter, before = Limiter(), limit(1, 10, Per.USER)
    assert admitted(limiter, flow(before), 20) == 10
    after = limit(100, 50, Per.USER)
    limiter.respec([after], 0.0)
    assert admitted(limiter, flow(after), 20) == 0
    assert admitted(limiter, flow(after), 20, now=0.1) == 10


@pytest.mark.parametrize(("seconds", "found"), [(0.5, 0), (3, 3), (1_000, 10)])
def test_a_rate_that_returns_from_zero_has_refilled_since_it_left(
    seconds: float, found: int
) -> None:
    """What nobody was admitted for is there again; opened and closed at once it grants nothing."""
    limiter, asked, closed = Limiter(), flow(limit(1, 10)), flow(limit(0, 0))
    assert admitted(limiter, asked, 20) == 10
    limiter.respec(closed.limits, 0.0)
    assert admitted(limiter, closed, 5, now=seconds / 2) == 0
    limiter.respec(asked.limits, seconds)
    assert admitted(limiter, asked, 20, now=seconds) == found


def test_removing_a_rule_and_adding_it_again_refills_nothing() -> None:
    limiter, spec = Limiter(), limit(0.1, 10, Per.USER)
    assert admitted(limiter, flow(spec), 20) == 10
    limiter.respec([], 1.0)
    limiter.respec([spec], 11.0)
    assert admitted(limiter, flow(spec), 20, now=11.0) == 1


def test_a_removed_limit_is_forgotten_once_it_has_refilled() -> None:
    limiter, spec = Limiter(), limit(1, 10, Per.USER)
    assert admitted(limiter, flow(spec), 20) == 10
    limiter.respec([], 0.0)
    limiter.respec([], 10.0)
    assert admitted(limiter, flow(spec), 20, now=10.0) == 10


# -- restarts


def test_after_a_restart_buckets_start_with_one_second_and_grow_as_if_refilling() -> None:
    spec = limit(5, 100, Per.USER)
    limiter = Limiter(started=1000.0, first_level=FirstLevel.ONE_SECOND)
    assert admitted(limiter, flow(spec), 50, 1000.0, verified("a")) == 5
    assert admitted(limiter, flow(spec), 50, 1001.0, verified("b")) == 10
    assert admitted(limiter, flow(spec), 500, 1100.0, verified("c")) == 100


def test_a_successor_starts_from_mirrored_levels() -> None:
    spec = limit(1, 10, Per.USER)
    before = Limiter()
    assert admitted(before, flow(spec), 8, 100.0) == 8
    after = Limiter()
    after.restore(before.changed(), 103.0)
    after.respec([spec], 103.0)
    assert admitted(after, flow(spec), 20, 103.0) == 5
    (view,) = after.changed()
    assert (view.admitted, view.refused) == (13, 15)


def test_a_restored_level_never_raises_a_used_bucket() -> None:
    spec = limit(1, 10)
    limiter = Limiter()
    assert admitted(limiter, flow(spec), 10) == 10
    limiter.restore([BucketView("rule/all", (), 10.0, 0.0, 0, 0, 0, 0.0)], 0.0)
    assert admitted(limiter, flow(spec), 10) == 0


def test_a_successor_knows_which_values_an_owner_has_chosen() -> None:
    """A worker's replacement is no way to ten fresh user-agents."""
    asked = flow(limit(0.001, 1, Per.USER_AGENT))
    before = Limiter()
    for i in range(30):
        admitted(before, asked, 1, caller=verified("mallory", f"agent{i}/1"))
    after = Limiter()
    after.respec(asked.limits, 0.0)
    after.restore(before.changed(), 0.0)
    again = [admitted(after, asked, 1, caller=verified("mallory", f"new{i}/1")) for i in range(30)]
    assert sum(again) == 0


# -- bounds


def test_a_full_table_shares_one_bucket_per_limit() -> None:
    limiter, asked = Limiter(capacity=3), flow(limit(0.001, 2, Per.USER))
    for i in range(3):
        assert admitted(limiter, asked, 2, caller=verified(f"user{i}")) == 2
    assert sum(admitted(limiter, asked, 2, caller=verified(f"late{i}")) for i in range(50)) == 2
    assert limiter.size == 3
    assert limiter.overflowed == 100


def test_eviction_takes_only_buckets_that_are_full_again() -> None:
    limiter, asked = Limiter(capacity=1), flow(limit(1, 2, Per.USER))
    assert admitted(limiter, asked, 5, now=0.0, caller=ALICE) == 2
    assert admitted(limiter, asked, 5, now=1.0, caller=BOB) == 2  # the overflow bucket's
    assert limiter.evicted == 0
    assert admitted(limiter, asked, 5, now=2.0, caller=BOB) == 2
    assert limiter.evicted == 1
    assert admitted(limiter, asked, 5, now=2.0, caller=ALICE) == 1  # overflow, one second on


def test_charging_two_limits_in_a_tiny_table_loses_no_charge() -> None:
    """Opening the second bucket cannot evict the first between look-up and charge."""
    first = limit(0.001, 5, Per.USER, id_="rule/user")
    second = limit(0.001, 5, Per.NAMESPACE, id_="rule/namespace")
    limiter = Limiter(capacity=1)
    asked = flow(first, second)
    done = sum(
        limiter.acquire(asked, in_namespace(f"n{i}"), ALICE, 0.0) is ADMITTED for i in range(50)
    )
    assert done == 5


def test_invented_user_agents_get_ten_buckets_and_one_for_the_rest() -> None:
    limiter, asked = Limiter(), flow(limit(0.001, 2, Per.USER_AGENT))
    got = [admitted(limiter, asked, 3, caller=verified("m", f"agent{i}")) for i in range(100)]
    assert got == [2] * 10 + [2] + [0] * 89
    ids = {(view.id, view.values) for view in limiter.changed()}
    assert ("rule/all!owner", ("m",)) in ids
    assert len(ids) == 11


def test_unverified_callers_are_rationed_by_source() -> None:
    limiter, asked = Limiter(), flow(limit(0.001, 1, Per.USER_AGENT_FAMILY))
    same = [admitted(limiter, asked, 1, caller=unverified("10.0.0.1", f"a{i}")) for i in range(50)]
    assert sum(same) == 11
    other = [admitted(limiter, asked, 1, caller=unverified("10.0.0.2", f"b{i}")) for i in range(50)]
    assert sum(other) == 11


def test_a_family_is_one_bucket_for_all_users() -> None:
    """What caps a DaemonSet: as many users as nodes, one program."""
    limiter, asked = Limiter(), flow(limit(0.001, 3, Per.USER_AGENT_FAMILY))
    total = sum(
        admitted(limiter, asked, 1, caller=verified(f"node{i}", "agent/v1")) for i in range(50)
    )
    assert total == 3


def test_a_chosen_value_is_given_back_when_its_bucket_has_refilled() -> None:
    limiter, asked = Limiter(), flow(limit(1, 2, Per.USER_AGENT))
    for i in range(10):
        assert admitted(limiter, asked, 2, caller=verified("m", f"agent{i}")) == 2
    assert admitted(limiter, asked, 9, now=1.9, caller=verified("m", "eleventh")) == 2
    assert admitted(limiter, asked, 9, now=2.0, caller=verified("m", "twelfth")) == 2
    views = {view.values for view in limiter.changed()}
    assert ("twelfth",) in views
    assert ("eleventh",) not in views


def test_a_rerated_limit_gives_no_value_back_early() -> None:
    """The time to fill counts from the change: what refilled slowly before is not full yet."""
    limiter = Limiter()
    slow, fast = limit(0.001, 5, Per.USER_AGENT), limit(1, 5, Per.USER_AGENT)
    for i in range(10):
        admitted(limiter, flow(slow), 5, now=0.0, caller=verified("m", f"agent{i}"))
    limiter.respec([fast], 100.0)
    got = sum(
        admitted(limiter, flow(fast), 9, now=101.0, caller=verified("m", f"new{i}"))
        for i in range(10)
    )
    assert got == 5


def test_long_user_agents_share_the_bucket_of_their_beginning() -> None:
    limiter, asked = Limiter(), flow(limit(0.001, 1, Per.USER_AGENT))
    got = [admitted(limiter, asked, 1, caller=verified("m", "x" * 300 + str(i))) for i in range(5)]
    assert sum(got) == 1


# -- shares


def test_a_worker_enforces_its_part() -> None:
    spec = limit(10, 20)
    limiter = Limiter(shares=Shares(workers=4))
    assert admitted(limiter, flow(spec), 50) == 5
    assert admitted(limiter, flow(spec), 50, now=1.0) == 2


def test_a_growing_share_grants_no_level_and_a_shrinking_one_clips() -> None:
    spec = limit(10, 20)
    limiter = Limiter(shares=Shares(workers=2))
    limiter.respec([spec], 0.0)
    assert admitted(limiter, flow(spec), 4) == 4
    limiter.set_shares([Share("rule/all", (), 1.0)], 0.0)
    assert limiter.peek(flow(spec), LIST_PODS, ALICE, 0.0).buckets[0].level == 6.0
    limiter.set_shares([Share("rule/all", (), 0.1)], 0.0)
    assert limiter.peek(flow(spec), LIST_PODS, ALICE, 0.0).buckets[0].level == 2.0
    assert admitted(limiter, flow(spec), 50, now=10.0) == 2


def test_a_bucket_opened_after_its_share_grew_starts_with_the_ordinary_part() -> None:
    spec = limit(10, 20, Per.USER)
    limiter = Limiter(shares=Shares(workers=2))
    limiter.set_shares([Share("rule/all", ("alice",), 1.0)], 0.0)
    assert admitted(limiter, flow(spec), 50) == 10
    assert admitted(limiter, flow(spec), 50, now=10.0) == 20


def test_a_part_below_one_token_says_when_the_whole_would_have_one() -> None:
    spec = LimitSpec("rule/all", BucketSpec(0.5, 1.0))
    limiter = Limiter(shares=Shares(workers=2))
    assert limiter.acquire(flow(spec), LIST_PODS, ALICE, 0.0) == Shed(spec, 2.0)
    limiter.set_shares([Share("rule/all", (), 1.0)], 0.0)
    assert admitted(limiter, flow(spec), 5, now=1.0) == 1
