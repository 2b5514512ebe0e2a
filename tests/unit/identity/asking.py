"""An authorizer, its driver and upstream in virtual time."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable

from apiguard.identity.accessreview import Verdict
from apiguard.identity.attributes import Question, attribute_members, question_of, subject_members
from apiguard.identity.authorizer import Authorizer, Limits, Review
from apiguard.identity.cases import Waiting
from apiguard.kube.identity import Identity
from apiguard.kube.requestinfo import parse_request

SEED = 20_261_123


def answer(**status: object) -> bytes:
    review = {"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}
    return json.dumps({**review, "metadata": {}, "spec": {}, "status": status}).encode()


YES = answer(allowed=True)
NO = answer(allowed=False)


def question(user: str = "alice", target: str = "/api/v1/namespaces/a/pods") -> Question:
    subject = subject_members(Identity(user, ("devs", "system:authenticated")))
    return question_of(user, subject, attribute_members(parse_request("GET", target)))


class World:
    """Upstream says what ``say`` says when a review is asked, ``latency`` seconds later.

    ``say`` returns a body, or None for a failure; answers keep their order.
    """

    def __init__(
        self, rate: float = 50.0, *, limits: Limits | None = None, latency: float = 0.0
    ) -> None:
        self.now = 1_000.0
        self.authorizer = Authorizer(rate, rng=random.Random(SEED), limits=limits)
        self.say: Callable[[Question], bytes | None] = lambda question: YES
        self.latency = latency
        self.asked: deque[float] = deque()
        self.last_asked: dict[bytes, float] = {}
        self._under_way: deque[tuple[float, Review, bytes | None]] = deque()

    def drive(self) -> None:
        """Takes every wish there is and reports every answer that is due."""
        while True:
            while self._under_way and self._under_way[0][0] <= self.now:
                _, review, body = self._under_way.popleft()
                if body is None:
                    self.authorizer.failed(review, self.now)
                else:
                    self.authorizer.answered(review, 201, body, self.now)
            wish = self.authorizer.next_wish(self.now)
            if wish is None:
                return
            self.asked.append(self.now)
            self.last_asked[wish.question.key] = self.now
            self._under_way.append((self.now + self.latency, wish, self.say(wish.question)))

    def run(self, seconds: float, step: float = 0.1) -> None:
        """Lets time pass: a tick every ``step`` seconds, the driver whenever it has a wish."""
        end = self.now + seconds
        tick = self.now + step
        while self.now < end - 1e-9:
            pause = self.authorizer.pause(self.now)
            wish = end if pause is None else self.now + max(pause, 1e-4)
            self.now = min(end, tick, wish)
            if self.now >= tick:
                tick += step
                self.authorizer.tick(self.now)
            self.drive()

    def ask(self, asked: Question) -> list[Verdict]:
        """What was answered so far: empty while the question waits."""
        told: list[Verdict] = []
        found = self.authorizer.ask(asked, self.now, told.append)
        if not isinstance(found, Waiting):
            told.append(found)
        return told

    def verdict(self, asked: Question) -> Verdict:
        """Asks, lets the driver work, and waits as long as it takes."""
        told = self.ask(asked)
        self.drive()
        while not told:
            self.run(0.1)
        assert len(told) == 1
        return told[0]

    def watch_all(self, questions: list[Question], rate: float) -> list[list[Verdict]]:
        """Opens a watch for each, at once, and leaves a budget of ``rate`` from then on."""
        self.authorizer.budget.respec(1e6)
        ended = []
        for asked in questions:
            self.verdict(asked)
            ended.append(self.watch(asked))
        self.authorizer.budget.respec(rate)
        self.asked.clear()
        return ended

    def watch(self, asked: Question) -> list[Verdict]:
        """Opens a watch that is allowed; the list gets why it ended."""
        ended: list[Verdict] = []
        watched = self.authorizer.watch(asked, self.now, ended.append)
        assert not isinstance(watched, Verdict), watched
        return ended


def most_within(times: deque[float], seconds: float) -> int:
    """The largest number of ``times``, ascending, in any window open at its end."""
    most, window = 0, deque[float]()
    for at in times:
        window.append(at)
        while window[0] + seconds <= at:
            window.popleft()
        most = max(most, len(window))
    return most
