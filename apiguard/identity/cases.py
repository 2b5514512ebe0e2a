"""Everything the authorizer keeps about one question: the last verdict, and who cares about it.

A case somebody cares about is pinned. Any other keeps only its verdict, among a bounded number
of which the oldest half is forgotten at once.
"""

from __future__ import annotations

from collections.abc import Callable

from apiguard.identity.accessreview import Allowed, Denied, Verdict
from apiguard.identity.attributes import Question
from apiguard.memo import Memo

Told = Callable[[Verdict], None]


class Waiting:
    """Somebody who asked and will be told, once, unless it gives up first."""

    __slots__ = ("case", "deadline", "resume")

    def __init__(self, case: Case, resume: Told, deadline: float) -> None:
        self.case = case
        self.resume = resume
        self.deadline = deadline


class Watched:
    """An open watch; ``ended`` is told, once, why it must end, unless it is closed first."""

    __slots__ = ("case", "ended")

    def __init__(self, case: Case, ended: Told) -> None:
        self.case = case
        self.ended = ended


class Case:
    """One question.

    ``question``  held only while pinned
    ``verdict``   the last plain answer, however old
    ``retry_at``  until then nobody asks again: the last review failed
    ``queued``    waits among the new questions
    ``asked_at``  when the review under way was asked, None when none is
    """

    __slots__ = (
        "asked_at",
        "key",
        "question",
        "queued",
        "retry_at",
        "verdict",
        "waiters",
        "watches",
    )

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.question: Question | None = None
        self.verdict: Allowed | Denied | None = None
        self.retry_at = 0.0
        self.queued = False
        self.asked_at: float | None = None
        # Dicts, for their order and for cheap removal; None, as most cases have neither.
        self.waiters: dict[Waiting, None] | None = None
        self.watches: dict[Watched, None] | None = None

    def known(self, now: float, longest: float) -> Allowed | Denied | None:
        """The verdict, if it is younger than ``longest`` seconds."""
        verdict = self.verdict
        return verdict if verdict is not None and now < verdict.asked + longest else None

    def add_waiter(self, waiting: Waiting) -> None:
        if self.waiters is None:
            self.waiters = {}
        self.waiters[waiting] = None

    def remove_waiter(self, waiting: Waiting) -> None:
        if self.waiters is not None:
            self.waiters.pop(waiting, None)

    def add_watch(self, watched: Watched) -> None:
        if self.watches is None:
            self.watches = {}
        self.watches[watched] = None

    def remove_watch(self, watched: Watched) -> bool:
        """Whether this was the last one."""
        if not self.watches or watched not in self.watches:
            return False
        del self.watches[watched]
        return not self.watches

    def take_waiters(self) -> tuple[Waiting, ...]:
        found, self.waiters = tuple(self.waiters or ()), None
        return found

    def take_watches(self) -> tuple[Watched, ...]:
        found, self.watches = tuple(self.watches or ()), None
        return found


class Cases:
    """All cases of one worker: the pinned, and at most ``2 * remembered`` others."""

    __slots__ = ("_memo", "_pinned")

    def __init__(self, remembered: int) -> None:
        self._pinned: dict[bytes, Case] = {}
        self._memo: Memo[bytes, Case] = Memo(remembered)

    @property
    def pinned(self) -> int:
        return len(self._pinned)

    @property
    def remembered(self) -> int:
        return len(self._memo)

    def find(self, key: bytes) -> Case | None:
        return self._pinned.get(key) or self._memo.get(key)

    def pin(self, question: Question) -> Case:
        """The case of ``question``, kept until it is released."""
        case = self.find(question.key) or Case(question.key)
        case.question = question
        self._pinned[question.key] = case
        return case

    def of(self, key: bytes) -> Case:
        """A pinned case."""
        return self._pinned[key]

    def release(self, case: Case) -> None:
        """Nobody cares any more; what is known of it stays for a while."""
        if self._pinned.pop(case.key, None) is not None:
            case.question = case.waiters = case.watches = None
            self._memo.put(case.key, case)
