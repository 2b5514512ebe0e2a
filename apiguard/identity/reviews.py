"""TokenReviews: which are wanted, and what the answered ones said.

Nothing waits here. The first request with an unknown token wishes for a review and counts as
unverified; requests that come while the review is under way wish for nothing more; later ones
find the answer. Tokens are remembered under a keyed hash only; the token itself is held no
longer than its review takes.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from apiguard.identity.budget import Budget
from apiguard.identity.claims import BadClaimsError, checked_identity
from apiguard.identity.jwt import expiry_of
from apiguard.kube.identity import Identity
from apiguard.memo import Memo

GOOD_SECONDS = 120.0
BAD_SECONDS = 10.0
FAILED_SECONDS = 2.0
"""After a review that got no answer: upstream may be back by then."""

ASKED_SECONDS = 0.05
"""How soon a request looks again while its review is wished for or under way."""

SHED_SECONDS = 1.0
"""How soon a token is tried again that found the budget spent."""

OPEN_REVIEWS = 64
"""Reviews wished for or under way, per worker."""

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"


@dataclass(frozen=True, slots=True)
class Review:
    """A wish: POST ``body`` to ``PATH`` and hand the answer to ``Reviews.answered``."""

    key: bytes
    token: str

    def __repr__(self) -> str:
        return "Review()"  # the token stays out of logs

    @property
    def body(self) -> bytes:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": self.token},
        }
        return json.dumps(review, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What is known of a token until ``until`` (monotonic seconds); no identity: unverified.

    ``shed`` when nobody was asked because too many reviews are wanted; ``bad`` when upstream said
    no, as opposed to nothing.
    """

    identity: Identity | None
    until: float
    reason: str = ""
    shed: bool = False
    bad: bool = False


class Reviews:
    """The reviews of one worker.

    ``secret`` keys the hash, ``budget`` is this worker's part of the guard's reviews a second,
    ``remembered`` bounds good and bad answers each. ``wished`` is called when the first wish
    stands in an empty queue. Counts only grow: ``asked``, ``shed`` (no budget or no place).
    """

    __slots__ = (
        "_bad",
        "_budget",
        "_good",
        "_open",
        "_queue",
        "_secret",
        "asked",
        "shed",
        "wished",
    )

    def __init__(
        self,
        *,
        secret: bytes,
        budget: Budget,
        remembered: int,
        wished: Callable[[], None] = lambda: None,
    ) -> None:
        self._secret = secret
        self._budget = budget
        self._good: Memo[bytes, Reviewed] = Memo(remembered)
        self._bad: Memo[bytes, Reviewed] = Memo(remembered)
        self._open: set[bytes] = set()
        self._queue: deque[Review] = deque()
        self.wished = wished
        self.asked = 0
        self.shed = 0

    @property
    def open(self) -> int:
        """Reviews wished for or under way."""
        return len(self._open)

    @property
    def remembered(self) -> int:
        """Answers kept."""
        return len(self._good) + len(self._bad)

    def lookup(self, token: str, now: float) -> Reviewed:
        """What is known of ``token``; wishes for a review if nothing is and one may be had."""
        key = self._key(token)
        for answers in (self._good, self._bad):
            answer = answers.get(key)
            if answer is not None and now < answer.until:
                return answer
        if key in self._open:
            return Reviewed(None, now + ASKED_SECONDS, "the token is being reviewed")
        if len(self._open) >= OPEN_REVIEWS or not self._budget.take(now):
            self.shed += 1
            return Reviewed(None, now + SHED_SECONDS, "too many tokens to review", shed=True)
        self.asked += 1
        self._open.add(key)
        self._queue.append(Review(key, token))
        if len(self._queue) == 1:
            self.wished()
        return Reviewed(None, now + ASKED_SECONDS, "the token is being reviewed")

    def lately(self, token: str, now: float, wall: float, seconds: float) -> Identity | None:
        """Whom upstream named for ``token`` at most ``seconds`` ago, for as long as it cannot be
        asked again. Not where it has said no since, nor where the token names an end (``exp``,
        Unix seconds as ``wall``) that has passed."""
        known = self._good.get(self._key(token))
        if known is None or known.identity is None or wall >= expiry_of(token):
            return None
        return known.identity if now < known.until - GOOD_SECONDS + seconds else None

    def next_wish(self) -> Review | None:
        """The oldest wish nobody has taken yet. Whoever takes it must report what became of it."""
        return self._queue.popleft() if self._queue else None

    def answered(self, review: Review, body: bytes, now: float) -> None:
        """Upstream answered 200 or 201 with ``body``."""
        try:
            identity = read_answer(body)
        except BadClaimsError as reason:
            self._refuse(review, str(reason), now)
        except ValueError:
            self.failed(review, now)
        else:
            if identity is None:
                self._refuse(review, "the review found the token bad", now)
            else:
                self._close(review, identity, now + GOOD_SECONDS, "")

    def failed(self, review: Review, now: float) -> None:
        """There was no answer: nothing new is known of the token, and nothing is assumed."""
        known = self._bad.get(review.key)
        bad = known is not None and known.bad
        self._close(review, None, now + FAILED_SECONDS, "the review got no answer", bad=bad)

    def _refuse(self, review: Review, reason: str, now: float) -> None:
        if self._good.get(review.key) is not None:
            self._good.put(review.key, Reviewed(None, 0.0, reason))
        self._close(review, None, now + BAD_SECONDS, reason, bad=True)

    def _close(
        self,
        review: Review,
        identity: Identity | None,
        until: float,
        reason: str,
        *,
        bad: bool = False,
    ) -> None:
        self._open.discard(review.key)
        answers = self._bad if identity is None else self._good
        answers.put(review.key, Reviewed(identity, until, reason, bad=bad))

    def _key(self, token: str) -> bytes:
        return blake2b(
            token.encode("latin-1", "replace"), digest_size=16, key=self._secret
        ).digest()


def read_answer(body: bytes) -> Identity | None:
    """The user of a TokenReview, None when it is not authenticated.

    Raises ValueError for what is no TokenReview, BadClaimsError for a user nothing can be decided
    on.
    """
    try:
        review = json.loads(body)
    except RecursionError:
        raise ValueError("no TokenReview") from None
    status = _object(_object(review).get("status"))
    if status.get("authenticated") is not True:
        return None
    user = _object(status.get("user"))
    extra = {key: _texts(values) for key, values in _object(user.get("extra") or {}).items()}
    return checked_identity(
        _text(user.get("username")), _texts(user.get("groups")), _text(user.get("uid")), extra
    )


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("no TokenReview")
    return value


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("no TokenReview")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError("no TokenReview")
    return tuple(value)
