"""TokenReviews: who is asked about, how often, and how long an answer holds."""

from __future__ import annotations

import base64
import json

import pytest

from apiguard.identity.budget import Budget
from apiguard.identity.reviews import GOOD_SECONDS, OPEN_REVIEWS, Review, Reviews
from apiguard.kube.identity import Identity

NOW = 50.0
WALL = 1_700_000_000

ALICE = Identity("alice", ("devs", "system:authenticated"), "u1", {"scopes": ("a", "b")})


def reviews_of(rate: float = 100.0, remembered: int = 100) -> Reviews:
    return Reviews(secret=b"secret", budget=Budget(rate, NOW), remembered=remembered)


def answer(**status: object) -> bytes:
    return json.dumps({"kind": "TokenReview", "status": status}).encode()


GOOD = answer(
    authenticated=True,
    user={
        "username": "alice",
        "uid": "u1",
        "groups": ["devs", "system:authenticated"],
        "extra": {"scopes": ["a", "b"]},
    },
)


def wish(reviews: Reviews) -> Review:
    found = reviews.next_wish()
    assert found is not None
    return found


def test_an_unknown_token_is_asked_about_once_and_waits_for_nobody() -> None:
    reviews = reviews_of()
    woken: list[int] = []
    reviews.wished = lambda: woken.append(1)
    for _ in range(5):
        assert reviews.lookup("t", NOW).identity is None
    assert woken == [1]
    review = wish(reviews)
    assert json.loads(review.body)["spec"] == {"token": "t"}
    assert reviews.next_wish() is None
    assert reviews.lookup("t", NOW).identity is None
    assert reviews.next_wish() is None
    assert (reviews.asked, reviews.open) == (1, 1)


def test_a_good_answer_holds_two_minutes() -> None:
    reviews = reviews_of()
    reviews.lookup("t", NOW)
    reviews.answered(wish(reviews), GOOD, NOW + 1)
    assert reviews.open == 0
    assert reviews.lookup("t", NOW + 120.9).identity == ALICE
    assert reviews.lookup("t", NOW + 121).identity is None
    assert reviews.asked == 2


@pytest.mark.parametrize(
    "body",
    [
        answer(),
        answer(authenticated=False, user={"username": "alice"}),
        answer(authenticated="true", user={"username": "alice"}),
        answer(authenticated=1, user={"username": "alice"}),
        answer(authenticated=True, user={"username": ""}),
        answer(authenticated=True, user={"username": "system:anonymous"}),
        answer(authenticated=True, user={"username": "a\x00"}),
    ],
)
def test_a_bad_answer_holds_ten_seconds(body: bytes) -> None:
    reviews = reviews_of()
    reviews.lookup("t", NOW)
    reviews.answered(wish(reviews), body, NOW)
    assert reviews.lookup("t", NOW + 9.9).identity is None
    assert reviews.asked == 1
    reviews.lookup("t", NOW + 10)
    assert reviews.asked == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        answer(authenticated=True),
        answer(authenticated=True, user={"username": 1}),
        answer(authenticated=True, user={"username": "a", "groups": "b"}),
        answer(authenticated=True, user={"username": "a", "extra": {"k": [1]}}),
    ],
)
def test_what_is_no_answer_is_tried_again_soon_and_proves_nothing(body: bytes) -> None:
    reviews = reviews_of()
    reviews.lookup("t", NOW)
    reviews.answered(wish(reviews), body, NOW)
    assert reviews.lookup("t", NOW + 1.9).identity is None
    assert reviews.asked == 1
    reviews.lookup("t", NOW + 2)
    assert reviews.asked == 2


def test_ten_thousand_distinct_tokens_in_a_second_cause_bounded_reviews_and_memory() -> None:
    reviews = reviews_of(rate=20.0, remembered=100)
    for n in range(10_000):
        now = NOW + n / 10_000
        assert reviews.lookup(f"t{n}", now).identity is None
        review = reviews.next_wish()
        if review is not None:
            reviews.answered(review, answer(), now)
    assert reviews.asked <= 40  # 20 saved up and 20 of this second
    assert reviews.shed >= 9_960
    assert reviews.remembered <= 200
    assert reviews.open == 0


def test_reviews_that_get_no_answer_hold_a_bounded_number_of_tokens() -> None:
    reviews = reviews_of(rate=1e6)
    for n in range(1_000):
        reviews.lookup(f"t{n}", NOW)
    assert reviews.open == OPEN_REVIEWS
    assert reviews.lookup("another", NOW).shed


def test_bad_answers_push_no_good_one_out() -> None:
    reviews = reviews_of(rate=1e6, remembered=10)
    reviews.lookup("good", NOW)
    reviews.answered(wish(reviews), GOOD, NOW)
    for n in range(1_000):
        reviews.lookup(f"t{n}", NOW)
        reviews.answered(wish(reviews), answer(), NOW)
    assert reviews.lookup("good", NOW + 1).identity == ALICE


def jwt(claims: str) -> str:
    """Unsigned parts of a JWT; nobody here verifies."""
    parts = (b'{"alg":"RS256"}', claims.encode(), b"signature")
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def confirmed(token: str = "t") -> Reviews:
    reviews = reviews_of()
    reviews.lookup(token, NOW)
    reviews.answered(wish(reviews), GOOD, NOW)
    return reviews


def test_a_confirmation_outlives_its_time_only_for_who_asks_for_that() -> None:
    reviews = confirmed()
    later = NOW + GOOD_SECONDS + 1.0
    assert reviews.lookup("t", later).identity is None
    reviews.failed(wish(reviews), later)
    assert reviews.lately("t", later, WALL, 900.0) == ALICE
    assert reviews.lately("t", NOW + 899.0, WALL, 900.0) == ALICE
    assert reviews.lately("t", NOW + 900.0, WALL, 900.0) is None
    assert reviews.lately("another", later, WALL, 900.0) is None


@pytest.mark.parametrize("body", [answer(), answer(authenticated=True, user={"username": ""})])
def test_a_no_ends_a_confirmation_for_good(body: bytes) -> None:
    """Also after reviews that get no answer any more."""
    reviews = confirmed()
    later = NOW + GOOD_SECONDS + 1.0
    reviews.lookup("t", later)
    reviews.answered(wish(reviews), body, later)
    assert reviews.lately("t", later, WALL, 900.0) is None
    later += 11.0
    reviews.lookup("t", later)
    reviews.failed(wish(reviews), later)
    assert reviews.lately("t", later, WALL, 900.0) is None


@pytest.mark.parametrize(
    ("claims", "holds"),
    [
        (json.dumps({"exp": WALL + 1}), True),
        (json.dumps({"exp": WALL}), False),
        ('{"sub":"x"}', True),
        ('{"exp":"soon"}', False),
        ('{"exp":1800000000,"exp":1800000000}', False),
    ],
)
def test_a_confirmation_never_outlives_the_token(claims: str, holds: bool) -> None:
    token = jwt(claims)
    assert (confirmed(token).lately(token, NOW + 1.0, WALL, 900.0) is not None) is holds


def test_a_review_keeps_its_token_out_of_logs() -> None:
    reviews = reviews_of()
    reviews.lookup("secret-token", NOW)
    assert "secret" not in repr(wish(reviews))
