"""Who may be answered from a cache: decisions by SubjectAccessReview, remembered for a moment.

``ask`` answers at once or makes its caller wait for a review; everybody with the same question
waits for the same one. Reviews are wishes: a driver takes them with ``next_wish`` and reports
what became of each with ``answered`` or ``failed``. ``tick`` keeps the promises about time.

Freshness. A verdict, yes or no, holds ``decision_seconds`` from when upstream was asked. While
the budget of reviews is spent it holds longer, up to ``stretched_seconds``, and is asked about
again when its turn comes (``deadlines``). Open watches are asked about every ``watch_seconds`` in
the same order. New questions go before them: a request is waiting. Not always, though: somebody
who invents questions must not be able to stop the renewals, without which all watches would end.
So every fourth review is a renewal while one is due, and every second one once a renewal is older
than ``stretched_seconds``. What a new question loses by that is little: it goes upstream.

No answer. An error says neither yes nor no. Whoever had a yes keeps it until
``stale_allow_seconds`` after it was asked for; everybody else is Unknown, and goes upstream. So
does a question that finds no place or is not answered within ``wait_seconds``.

Callbacks are called last, when everything is settled: they may ask again. They must not raise.
Everything here is per worker; ``rate`` is this worker's part of the guard's budget.
"""

from __future__ import annotations

import dataclasses
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from apiguard.identity.accessreview import Allowed, Denied, Unknown, Verdict, read_answer
from apiguard.identity.attributes import Question
from apiguard.identity.cases import Case, Cases, Told, Waiting, Watched
from apiguard.identity.deadlines import Deadlines
from apiguard.identity.reviewbudget import ReviewBudget
from apiguard.identity.turns import Turns

BUSY: Final = Unknown("busy")
"""No place to wait for a review."""
LATE: Final = Unknown("late")
"""Its turn did not come in time."""
UNANSWERED: Final = Unknown("unanswered")
"""Upstream gave no answer, and there was no recent yes."""
UNPERMITTED: Final = Unknown("unpermitted")
"""A watch was to be opened without a yes."""

_JITTER: Final = (0.75, 0.95)
"""Of an interval: renewals of what began together spread, and end before the interval does."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds; counts are per worker."""

    decision_seconds: float = 10.0
    stretched_seconds: float = 300.0
    watch_seconds: float = 60.0
    stale_allow_seconds: float = 900.0
    wait_seconds: float = 2.0
    """More than a slow upstream takes; less than clients notice beside going there directly."""
    failed_seconds: float = 2.0
    """A question is not asked again so soon after a review that failed."""
    failed_watch_seconds: float = 15.0
    remembered: int = 10_000
    """Verdicts nobody cares about at present, in each of two generations."""
    new_questions: int = 256
    new_questions_per_user: int = 64
    waiters: int = 4_096
    renewals: int = 4_096
    """Renewals for readers; those for watches are bounded by the watches."""
    open_reviews: int = 64
    watched: int = 100_000
    """Questions of open watches."""


@dataclass(slots=True)
class Counts:
    """What happened since the start; each only grows."""

    hits: int = 0  # answered by a verdict within its interval
    stretched: int = 0  # ... beyond it, for want of budget
    stale: int = 0  # ... by an old yes, for want of an answer
    reviews: int = 0  # asked
    failed: int = 0  # of them, without an answer
    busy: int = 0  # Unknown: no place to wait
    late: int = 0  # Unknown: no turn or no answer in time
    ended: int = 0  # watches ended by a no
    lapsed: int = 0  # watches ended for want of an answer


@dataclass(frozen=True, slots=True)
class AuthorizerView:
    """The state of one worker's authorizer. ``lateness``: seconds intervals are stretched by."""

    remembered: int
    watched: int
    waiting: int
    queued: int
    open: int
    lateness: float
    counts: Counts


@dataclass(frozen=True, slots=True)
class Review:
    """A wish: POST ``body`` to ``accessreview.PATH`` and report the outcome."""

    question: Question
    asked: float

    @property
    def body(self) -> bytes:
        return self.question.body


class Authorizer:
    """The decisions of one worker.

    ``rate``    reviews a second that it may ask; ``budget.respec`` changes it
    ``rng``     spreads renewals
    ``wished``  called when a driver that got no wish should look again
    """

    __slots__ = (
        "_cases",
        "_lapses",
        "_limits",
        "_new",
        "_open",
        "_renewals",
        "_rng",
        "_since_renewal",
        "_waiters",
        "budget",
        "counts",
        "wished",
    )

    def __init__(
        self,
        rate: float,
        *,
        rng: random.Random,
        limits: Limits | None = None,
        wished: Callable[[], None] = lambda: None,
    ) -> None:
        self._limits = limits = limits or Limits()
        self._rng = rng
        self._cases = Cases(limits.remembered)
        self._new = Turns(limits.new_questions, limits.new_questions_per_user)
        self._renewals = Deadlines()
        self._lapses = Deadlines()  # of watched cases: when their last yes is too old
        self._open: dict[bytes, Case] = {}
        self._waiters: OrderedDict[Waiting, None] = OrderedDict()  # in order of their deadlines
        self._since_renewal = 0
        self.budget = ReviewBudget(rate)
        self.counts = Counts()
        self.wished = wished

    # -- requests ----------------------------------------------------------------------------

    def ask(self, question: Question, now: float, resume: Told) -> Verdict | Waiting:
        """The verdict, or a place in the queue: then ``resume`` is told it later, exactly once.

        Costs 0.7 us where a verdict holds (CPython 3.11, a busy machine).
        """
        limits = self._limits
        case = self._cases.find(question.key)
        if case is None:
            return self._wait_for_review(question, None, now, resume)
        known = case.known(now, limits.decision_seconds)
        if known is not None:
            self.counts.hits += 1
            return known
        if now < case.retry_at or self._hangs(case, now):
            return self._without_answer(case, now)
        usable = case.known(now, limits.stretched_seconds)
        under_way = case.queued or case.asked_at is not None
        if usable is not None and not under_way and not self._room(now):
            self._renew_later(question, usable)
            self.counts.stretched += 1
            return usable
        return self._wait_for_review(question, usable, now, resume)

    def give_up(self, waiting: Waiting) -> None:
        """Whoever waited is gone; it is told nothing any more."""
        if waiting in self._waiters:
            del self._waiters[waiting]
            waiting.case.remove_waiter(waiting)
            self._settle(waiting.case)

    def _hangs(self, case: Case, now: float) -> bool:
        """Whether a review is under way from which nobody should expect anything any more."""
        return case.asked_at is not None and now >= case.asked_at + self._limits.wait_seconds

    def _room(self, now: float) -> bool:
        """Whether one more new question would be asked at once."""
        queued = len(self._new)
        free = self._limits.open_reviews - len(self._open)
        return queued < free and queued < self.budget.left(now)

    def _renew_later(self, question: Question, known: Allowed | Denied) -> None:
        renewals = self._renewals
        if question.key in renewals or len(renewals) < self._limits.renewals + len(self._lapses):
            self._cases.pin(question)
            renewals.hasten(question.key, known.asked + self._limits.decision_seconds)

    def _wait_for_review(
        self, question: Question, usable: Allowed | Denied | None, now: float, resume: Told
    ) -> Verdict | Waiting:
        """``usable`` is the answer where no place is left."""
        if len(self._waiters) >= self._limits.waiters:
            return self._no_place(usable)
        case = self._cases.pin(question)
        if not case.queued and case.asked_at is None:
            if not self._new.put(question.user, question.key):
                self._settle(case)
                return self._no_place(usable)
            case.queued = True
            self.wished()
        waiting = Waiting(case, resume, now + self._limits.wait_seconds)
        case.add_waiter(waiting)
        self._waiters[waiting] = None
        return waiting

    def _no_place(self, usable: Allowed | Denied | None) -> Verdict:
        if usable is not None:
            self.counts.stretched += 1
            return usable
        self.counts.busy += 1
        return BUSY

    def _without_answer(self, case: Case, now: float) -> Verdict:
        verdict = case.known(now, self._limits.stale_allow_seconds)
        if isinstance(verdict, Allowed):
            self.counts.stale += 1
            return verdict
        return UNANSWERED

    # -- watches -----------------------------------------------------------------------------

    def watch(self, question: Question, now: float, ended: Told) -> Watched | Unknown:
        """Keeps a watch authorised from now on: right after ``ask`` said yes.

        ``ended`` is told Denied after a no, or Unknown when no yes came for too long.
        """
        case = self._cases.find(question.key)
        verdict = case.known(now, self._limits.stale_allow_seconds) if case is not None else None
        if case is None or not isinstance(verdict, Allowed):
            return UNPERMITTED
        if not case.watches:
            if len(self._lapses) >= self._limits.watched:
                self.counts.busy += 1
                return BUSY
            self._cases.pin(question)
            self._keep_watch(case, verdict)
        watched = Watched(case, ended)
        case.add_watch(watched)
        return watched

    def close(self, watched: Watched) -> None:
        """The watch is over for another reason; it is told nothing any more."""
        case = watched.case
        if case.remove_watch(watched):
            self._forget_watch(case)
            self._settle(case)

    def _keep_watch(self, case: Case, verdict: Allowed) -> None:
        self._lapses.set(case.key, verdict.asked + self._limits.stale_allow_seconds)
        if case.asked_at is None:
            due = verdict.asked + self._limits.watch_seconds * self._rng.uniform(*_JITTER)
            self._renewals.hasten(case.key, due)

    def _forget_watch(self, case: Case) -> None:
        self._lapses.discard(case.key)
        self._renewals.discard(case.key)

    # -- reviews -----------------------------------------------------------------------------

    def next_wish(self, now: float) -> Review | None:
        """The review to ask now. Whoever takes it must report what became of it."""
        if len(self._open) >= self._limits.open_reviews or not self.budget.left(now):
            return None
        case = self._next_case(now)
        if case is None:
            return None
        assert case.question is not None
        self._renewals.discard(case.key)
        self._open[case.key] = case
        case.asked_at = now
        case.queued = False
        self.counts.reviews += 1
        return Review(case.question, now)

    def answered(self, review: Review, status: int, body: bytes, now: float) -> None:
        """Upstream answered; anything but a plain yes or no counts as failed."""
        verdict = None
        if status in (200, 201):
            try:
                verdict = read_answer(body, review.asked)
            except ValueError:
                verdict = None
        if verdict is None:
            self.failed(review, now)
            return
        case = self._open.pop(review.question.key)
        case.asked_at = None
        case.verdict = verdict
        case.retry_at = 0.0
        ended: tuple[Watched, ...] = ()
        if isinstance(verdict, Denied):
            ended = case.take_watches()
            self.counts.ended += len(ended)
            self._forget_watch(case)
        elif case.watches:
            self._keep_watch(case, verdict)
        self._tell(case, verdict, ended)

    def failed(self, review: Review, now: float) -> None:
        """There was no answer."""
        limits = self._limits
        self.counts.failed += 1
        case = self._open.pop(review.question.key)
        case.asked_at = None
        case.retry_at = now + limits.failed_seconds
        if case.watches:
            pause = limits.failed_watch_seconds * self._rng.uniform(0.5, 1.0)
            self._renewals.set(case.key, now + pause)
        if case.waiters:
            self._tell(case, self._without_answer(case, now))
        else:
            self._settle(case)

    def _tell(self, case: Case, verdict: Verdict, ended: tuple[Watched, ...] = ()) -> None:
        waiters = case.take_waiters()
        for waiting in waiters:
            del self._waiters[waiting]
        self._settle(case)
        for watched in ended:
            watched.ended(verdict)
        for waiting in waiters:
            waiting.resume(verdict)

    def _next_case(self, now: float) -> Case | None:
        """Whose review is next; its part of the budget is taken."""
        renewal = self._due(now)
        if renewal is None or self._since_renewal < self._new_before(renewal, now):
            case = self._next_new()
            if case is not None:
                self.budget.take(now)
                self._since_renewal += renewal is not None
                return case
        self._since_renewal = 0
        if renewal is not None:
            self.budget.take(now, spaced=True)
        return renewal

    def _due(self, now: float) -> Case | None:
        """The renewal that may be asked now."""
        first = self._renewals.first()
        if first is None or first[0] > now or self.budget.pause(now, spaced=True) > 0.0:
            return None
        return self._cases.of(first[1])

    def _new_before(self, renewal: Case, now: float) -> int:
        """How many new questions go before ``renewal``."""
        return 3 if renewal.known(now, self._limits.stretched_seconds) is not None else 1

    def _next_new(self) -> Case | None:
        """The first new question that is not yet asked and still has somebody waiting."""
        while (key := self._new.pop()) is not None:
            case = self._cases.find(key)
            if case is not None and case.queued:
                if case.waiters:
                    return case
                case.queued = False
                self._settle(case)
        return None

    # -- time --------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """To be called ten times a second or so; idle it costs 2.5 us."""
        while self._waiters:
            waiting = next(iter(self._waiters))
            if now < waiting.deadline:
                break
            self.give_up(waiting)
            waiting.resume(self._overdue(waiting.case, now))
        while (first := self._lapses.first()) is not None and first[0] <= now:
            self._lapse(self._cases.of(first[1]))
        if self.pause(now) == 0.0:
            self.wished()

    def pause(self, now: float) -> float | None:
        """Seconds until ``next_wish`` has one again; None: not before something happens.

        A driver that sleeps so long uses its whole budget; one that looks at ticks only, 86 %.
        """
        if len(self._open) >= self._limits.open_reviews:
            return None
        if len(self._new):
            return self.budget.pause(now)
        first = self._renewals.first()
        return None if first is None else max(first[0] - now, self.budget.pause(now, spaced=True))

    def _overdue(self, case: Case, now: float) -> Verdict:
        """For somebody who waited long enough: because upstream is silent, or for its turn."""
        if case.asked_at is not None:
            verdict = self._without_answer(case, now)
        else:
            verdict = case.known(now, self._limits.stretched_seconds) or LATE
            self.counts.stretched += verdict is not LATE
        if isinstance(verdict, Unknown):
            self.counts.late += 1
        return verdict

    def _lapse(self, case: Case) -> None:
        ended = case.take_watches()
        self.counts.lapsed += len(ended)
        self._forget_watch(case)
        self._settle(case)
        for watched in ended:
            watched.ended(UNANSWERED)

    def _settle(self, case: Case) -> None:
        """Unpins a case that nobody cares about."""
        idle = not (case.waiters or case.watches or case.queued or case.asked_at is not None)
        if idle and case.key not in self._renewals:
            self._cases.release(case)

    def view(self, now: float) -> AuthorizerView:
        return AuthorizerView(
            remembered=self._cases.remembered,
            watched=len(self._lapses),
            waiting=len(self._waiters),
            queued=len(self._new),
            open=len(self._open),
            lateness=self._renewals.lateness(now),
            counts=dataclasses.replace(self.counts),
        )
