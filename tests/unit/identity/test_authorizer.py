"""Who is answered from a cache, how old a decision may be, and what it costs upstream."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiguard.identity.accessreview import Allowed, Denied, Verdict
from apiguard.identity.attributes import Question
from apiguard.identity.authorizer import (
    BUSY,
    LATE,
    UNANSWERED,
    UNPERMITTED,
    Limits,
)
from apiguard.identity.cases import Waiting
from tests.unit.identity.asking import NO, SEED, YES, World, answer, most_within, question

PODS = question()


def readers(number: int) -> list[Question]:
    return [question(f"user-{n}") for n in range(number)]


def unexpected(verdict: Verdict) -> None:
    raise AssertionError(verdict)


# -- one question ------------------------------------------------------------------------------


def test_a_question_is_asked_once_for_everybody_who_has_it() -> None:
    world = World()
    told = [world.ask(PODS) for _ in range(100)]
    assert told == [[]] * 100
    world.drive()
    assert told == [[Allowed(world.now)]] * 100
    assert len(world.asked) == 1


def test_those_who_ask_while_the_review_is_under_way_share_it() -> None:
    world = World(latency=0.5)
    first = world.ask(PODS)
    world.drive()
    second = world.ask(PODS)
    world.run(0.5)
    assert len(first) == len(second) == len(world.asked) == 1


def test_a_renewal_under_way_is_waited_for_even_with_the_budget_spent() -> None:
    world = World(1.0)
    world.verdict(PODS)
    world.latency = 0.5
    world.run(10.0)
    world.say = lambda question: NO
    first = world.ask(PODS)
    world.drive()
    second = world.ask(PODS)
    assert first == second == []
    world.run(0.6)
    assert first == second == [Denied("", world.asked[-1])]


@pytest.mark.parametrize("body", [YES, NO])
def test_a_decision_holds_ten_seconds_from_when_it_was_asked(body: bytes) -> None:
    world = World(latency=0.5)
    world.say = lambda question: body
    verdict = world.verdict(PODS)
    asked = world.asked[0]
    world.now = asked + 9.99
    assert world.ask(PODS) == [verdict]
    world.now = asked + 10.0
    assert world.ask(PODS) == []
    world.drive()
    assert len(world.asked) == 2


def test_a_denial_carries_upstream_s_reason() -> None:
    world = World()
    world.say = lambda question: answer(allowed=False, reason="not you")
    assert world.verdict(PODS) == Denied("not you", world.now)


def test_a_removed_binding_stops_new_reads_within_ten_seconds() -> None:
    world = World()
    world.verdict(PODS)
    world.run(3.0)
    world.say = lambda question: NO
    removed = world.now
    while not isinstance(world.verdict(PODS), Denied):
        world.run(0.1)
    assert world.now <= removed + 10.0


def test_one_user_s_answer_is_no_other_s() -> None:
    world = World()
    world.say = lambda asked: YES if asked.user == "alice" else NO
    assert isinstance(world.verdict(question("alice")), Allowed)
    assert isinstance(world.verdict(question("bob")), Denied)
    other = "/api/v1/namespaces/b/pods"
    assert world.ask(question("alice", other)) == []


def test_whoever_gives_up_is_told_nothing_and_leaves_nothing() -> None:
    world = World()
    told: list[Verdict] = []
    waiting = world.authorizer.ask(PODS, world.now, told.append)
    assert isinstance(waiting, Waiting)
    world.authorizer.give_up(waiting)
    world.authorizer.give_up(waiting)
    world.run(5.0)
    view = world.authorizer.view(world.now)
    assert told == []
    assert (view.waiting, view.queued, len(world.asked)) == (0, 0, 0)


def test_what_is_told_may_ask_again() -> None:
    world = World()
    told: list[Verdict | Waiting] = []
    other = question("bob")
    world.authorizer.ask(
        PODS,
        world.now,
        lambda verdict: told.append(world.authorizer.ask(other, world.now, told.append)),
    )
    world.drive()
    assert isinstance(told[0], Waiting)
    assert told[1:] == [Allowed(world.now)]


# -- no answer ---------------------------------------------------------------------------------


def test_an_error_is_no_answer() -> None:
    world = World()
    world.say = lambda question: None
    assert world.verdict(PODS) is UNANSWERED


@pytest.mark.parametrize("status", [200, 201, 403, 409, 429, 500, 503])
def test_only_a_created_review_is_an_answer(status: int) -> None:
    world = World()
    told = world.ask(PODS)
    review = world.authorizer.next_wish(world.now)
    assert review is not None
    world.authorizer.answered(review, status, YES, world.now)
    assert isinstance(told[0], Allowed) is (status in (200, 201))


def test_a_recent_yes_outlives_errors_for_fifteen_minutes_and_no_longer() -> None:
    world = World()
    world.verdict(PODS)
    asked = world.now
    world.say = lambda question: None
    world.run(100.0)
    assert world.verdict(PODS) == Allowed(asked)
    world.now = asked + 899.9
    assert world.verdict(PODS) == Allowed(asked)
    world.now = asked + 900.0
    assert world.verdict(PODS) is UNANSWERED


def test_a_no_does_not_outlive_errors() -> None:
    world = World()
    world.say = lambda question: NO
    world.verdict(PODS)
    world.say = lambda question: None
    world.run(11.0)
    assert world.verdict(PODS) is UNANSWERED


def test_a_failed_question_is_not_asked_again_at_once() -> None:
    world = World()
    world.say = lambda question: None
    world.verdict(PODS)
    for _ in range(50):
        world.ask(PODS)
        world.drive()
    assert len(world.asked) == 1
    world.run(2.0)
    world.ask(PODS)
    world.drive()
    assert len(world.asked) == 2


def test_a_silent_upstream_makes_nobody_wait_longer_than_two_seconds() -> None:
    world = World(latency=60.0)
    told = world.ask(PODS)
    world.drive()
    world.run(1.9)
    assert told == []
    world.run(0.1)
    assert told == [UNANSWERED]
    assert world.ask(PODS) == [UNANSWERED]
    assert len(world.asked) == 1


def test_a_silent_upstream_leaves_a_recent_yes_alone() -> None:
    world = World()
    verdict = world.verdict(PODS)
    world.latency = 60.0
    world.run(20.0)
    told = world.ask(PODS)
    world.run(2.1)
    assert told == [verdict]


# -- the budget --------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([0.5, 3.0, 16.7, 50.0]),
    st.floats(0.0, 3.0),
    st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=300),
)
def test_the_budget_is_never_exceeded(
    rate: float, latency: float, asks: list[tuple[int, bool]]
) -> None:
    world, told = World(rate, latency=latency), 0
    pending = []
    for number, pause in asks:
        asked = question(f"user-{number % 9}", f"/api/v1/namespaces/n{number}/pods")
        pending.append(world.ask(asked))
        world.drive()
        if pause:
            world.run(0.4)
    world.run(5.0)
    told = sum(len(one) for one in pending)
    assert told == len(asks)  # everybody is told, once
    assert most_within(world.asked, max(1.0, 1.0 / rate)) <= max(1, int(rate))


def test_while_the_budget_is_spent_known_decisions_stretch_instead_of_failing() -> None:
    world = World(10.0)
    hot = readers(100)
    for asked in hot:
        world.verdict(asked)
    verdicts: list[Verdict] = []
    oldest = 0.0
    for _ in range(300):
        world.run(1.0)
        for asked in hot:
            told = world.ask(asked)
            world.drive()
            verdicts += told
            oldest = max(
                oldest, *(world.now - one.asked for one in told if isinstance(one, Allowed))
            )
    assert all(isinstance(one, Allowed) for one in verdicts)
    assert most_within(world.asked, 1.0) <= 10
    assert (
        10.0 <= oldest < 25.0
    )  # 100 decisions at 10 a second: each about every 11 s or less often
    assert world.authorizer.counts.stretched > 0
    assert world.authorizer.counts.busy == world.authorizer.counts.late == 0


def test_no_decision_stretches_beyond_five_minutes() -> None:
    world = World(1.0)
    verdict = world.verdict(PODS)
    asked = world.now
    keep_budget_spent(world, 290.0)
    assert world.ask(PODS) == [verdict]
    world.now = asked + 300.0
    spend(world)
    assert world.ask(PODS) == []


def spend(world: World) -> None:
    while world.authorizer.budget.take(world.now):
        pass


def keep_budget_spent(world: World, seconds: float) -> None:
    """As if reviews went to others: none is left at any tick."""
    end = world.now + seconds
    spend(world)
    while world.now < end:
        world.now += 0.5
        spend(world)


def test_a_new_question_goes_before_renewals() -> None:
    world = World()
    world.watch_all(readers(1_000), 10.0)
    world.run(100.0)
    assert world.authorizer.view(world.now).lateness > 10.0
    for number in range(10):
        told = world.ask(question(f"new-{number}"))
        world.run(0.2)
        assert isinstance(told[0], Allowed)


def test_a_question_whose_turn_does_not_come_goes_upstream() -> None:
    world = World(1.0)
    told = [world.ask(asked) for asked in readers(10)]
    world.run(2.5)
    assert sum(one == [LATE] for one in told) == 8
    assert sum(isinstance(one[0], Allowed) for one in told) == 2
    world.run(5.0)
    assert len(world.asked) == 2  # nobody waits for the others any more


def test_places_are_bounded_and_the_rest_goes_upstream() -> None:
    world = World(limits=Limits(new_questions=8, new_questions_per_user=4, waiters=10))
    told = [world.ask(asked) for asked in readers(12)]
    assert told == [[]] * 8 + [[BUSY]] * 4
    again = [world.ask(question("user-0")) for _ in range(3)]
    assert again == [[], [], [BUSY]]
    assert world.authorizer.counts.busy == 5
    world.run(1.0)
    assert all(isinstance(one[0], Allowed) for one in told[:8] + again[:2])


def test_one_user_with_many_questions_does_not_hold_up_another() -> None:
    world = World(2.0)
    for number in range(200):
        world.ask(question("mallory", f"/api/v1/namespaces/n{number}/pods"))
    told = world.ask(question("alice"))
    world.drive()
    assert isinstance(told[0], Allowed)


def test_reviews_under_way_are_bounded() -> None:
    world = World(latency=1.0, limits=Limits(open_reviews=3))
    for asked in readers(10):
        world.ask(asked)
    world.drive()
    assert world.authorizer.view(world.now).open == 3
    assert world.authorizer.pause(world.now) is None


def test_pause_names_the_time_of_the_next_wish() -> None:
    world = World(1.0)
    authorizer = world.authorizer
    assert authorizer.pause(world.now) is None
    world.verdict(PODS)
    world.watch(PODS)
    pause = authorizer.pause(world.now)
    assert pause is not None
    assert 45.0 <= pause <= 57.0
    world.ask(question("bob"))
    assert authorizer.pause(world.now) == pytest.approx(1.0)
    assert authorizer.next_wish(world.now + 0.99) is None
    assert authorizer.next_wish(world.now + 1.0) is not None


# -- watches -----------------------------------------------------------------------------------


def test_a_removed_binding_ends_watches_within_sixty_seconds() -> None:
    world = World()
    ended = world.watch_all(readers(2_000), 50.0)
    world.run(120.0)
    assert ended == [[]] * 2_000
    world.say = lambda question: NO
    removed = world.now
    world.run(60.0)
    assert all(len(one) == 1 and isinstance(one[0], Denied) for one in ended)
    assert world.authorizer.counts.ended == 2_000
    assert most_within(world.asked, 1.0) <= 50
    assert world.now - removed <= 60.1
    assert world.authorizer.view(world.now).watched == 0


def test_two_hundred_watches_per_review_a_second_stretch_their_interval_to_200_seconds() -> None:
    """The proportion of 10,000 watches to the default budget of 50."""
    world = World()
    world.watch_all(readers(2_000), 10.0)
    world.run(500.0)
    ages = [world.now - at for at in world.last_asked.values()]
    assert 190.0 < max(ages) < 215.0
    assert 135.0 < world.authorizer.view(world.now).lateness < 165.0
    assert most_within(world.asked, 1.0) == 10
    assert world.authorizer.counts.lapsed == 0


def test_a_flood_of_new_questions_ends_no_watch() -> None:
    world = World()
    ended = world.watch_all(readers(1_000), 10.0)
    for second in range(1_200):
        for number in range(15):
            world.ask(question(f"m{number}", f"/api/v1/namespaces/n{second}/pods"))
        world.run(1.0)
    assert ended == [[]] * 1_000
    assert world.authorizer.counts.late > 1_000


def test_a_flood_of_new_questions_leaves_renewals_a_quarter_of_the_budget() -> None:
    world = World()
    watched = readers(1_000)
    world.watch_all(watched, 20.0)
    world.run(60.0)
    began = world.now
    for second in range(100):
        for number in range(30):
            world.ask(question(f"m{number}", f"/api/v1/namespaces/n{second}/pods"))
        world.run(1.0)
    renewed = sum(world.last_asked[asked.key] > began for asked in watched)
    assert 450 <= renewed <= 550  # of 2,000 reviews


def test_watches_of_one_question_cost_one_review_and_end_together() -> None:
    world = World()
    world.verdict(PODS)
    ended = [world.watch(PODS) for _ in range(100)]
    world.run(60.0)
    assert len(world.asked) == 2
    world.say = lambda question: NO
    world.run(60.0)
    assert ended == [[Denied("", world.asked[2])]] * 100


def test_a_read_s_denial_ends_the_watch_too() -> None:
    world = World()
    world.verdict(PODS)
    ended = world.watch(PODS)
    world.say = lambda question: NO
    world.run(10.0)
    assert isinstance(world.verdict(PODS), Denied)
    assert len(ended) == 1


def test_watches_outlive_errors_for_fifteen_minutes_since_the_last_yes() -> None:
    world = World()
    world.verdict(PODS)
    ended = world.watch(PODS)
    world.run(200.0)
    last = world.asked[-1]
    world.say = lambda question: None
    world.run(last + 899.9 - world.now)
    assert ended == []
    world.run(0.2)
    assert ended == [UNANSWERED]
    assert world.authorizer.counts.lapsed == 1


def test_ten_minutes_without_upstream_end_no_watch_and_are_made_up_for_at_once() -> None:
    world = World()
    ended = world.watch_all(readers(500), 50.0)
    world.say = lambda question: None
    world.run(600.0)
    assert ended == [[]] * 500
    assert most_within(world.asked, 1.0) <= 50
    world.say = lambda question: NO
    world.run(30.0)
    assert all(len(one) == 1 for one in ended)


def test_watches_opened_together_are_asked_about_apart() -> None:
    world = World()
    world.watch_all(readers(1_000), 10_000.0)
    world.run(60.0)
    assert len(world.asked) == 1_000
    assert most_within(world.asked, 1.0) < 200


def test_a_closed_watch_is_asked_about_no_more() -> None:
    world = World()
    world.verdict(PODS)
    ended: list[Verdict] = []
    watched = world.authorizer.watch(PODS, world.now, ended.append)
    assert not isinstance(watched, Verdict)
    world.authorizer.close(watched)
    world.authorizer.close(watched)
    world.run(1_000.0)
    assert (len(world.asked), ended) == (1, [])


def test_no_watch_is_opened_without_a_yes() -> None:
    world = World()
    authorizer = world.authorizer
    assert authorizer.watch(PODS, world.now, unexpected) is UNPERMITTED
    world.say = lambda question: NO
    world.verdict(PODS)
    assert authorizer.watch(PODS, world.now, unexpected) is UNPERMITTED
    world.say = lambda question: YES
    world.run(10.0)
    world.verdict(PODS)
    assert authorizer.watch(PODS, world.now + 900.0, unexpected) is UNPERMITTED


def test_watched_questions_are_bounded() -> None:
    world = World(limits=Limits(watched=1))
    for asked in readers(2):
        world.verdict(asked)
    world.watch(readers(1)[0])
    assert world.authorizer.watch(readers(2)[1], world.now, unexpected) is BUSY


# -- memory ------------------------------------------------------------------------------------


def test_what_is_remembered_is_bounded_whatever_is_asked() -> None:
    world = World(limits=Limits(remembered=100))
    rng = random.Random(SEED)
    for number in range(5_000):
        asked = question("mallory", f"/api/v1/namespaces/n{number}/pods")
        told = world.ask(asked)
        if rng.random() < 0.3:
            world.say = rng.choice([lambda asked: YES, lambda asked: NO, lambda asked: None])
        world.run(0.05, step=0.05)
        if told and isinstance(told[0], Allowed) and rng.random() < 0.5:
            watched = world.authorizer.watch(asked, world.now, lambda verdict: None)
            assert not isinstance(watched, Verdict)
            world.authorizer.close(watched)
    world.run(400.0)
    view = world.authorizer.view(world.now)
    assert view.remembered <= 200
    assert dataclasses.replace(
        view, remembered=0, counts=world.authorizer.counts
    ) == view.__class__(0, 0, 0, 0, 0, 0.0, world.authorizer.counts)
    assert world.authorizer._cases.pinned == 0
