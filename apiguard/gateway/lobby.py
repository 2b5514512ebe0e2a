"""Lobby: everybody at the relay's desk, in whose turn they go on, and the ways out of it."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable

from apiguard.gateway import replies
from apiguard.gateway.asking import reads_errors
from apiguard.gateway.driver import Driver
from apiguard.gateway.feeds import Feed, Level
from apiguard.gateway.serving import Serving
from apiguard.identity.attributes import Question
from apiguard.identity.cases import Waiting, Watched
from apiguard.kube.identity import Caller
from apiguard.kube.status import Status
from apiguard.relay.selection import Selection

PASSED_TOGETHER = 16
"""Of those who waited in vain for one thing: so many go upstream at once. It has just failed to do
for all of them together what each would ask of it."""

LONGEST_RETRY = 8
"""Seconds of Retry-After, at most: those turned away together must not come back together."""

STEPS_AT_ONCE = 4
"""Steps of sending between two flushes: 1 MiB to be encrypted, which takes 1 ms."""

_TOO_MANY = "too many requests wait for the relay to be ready, please try again later"


class Place:
    """What the desk keeps for one serving until it leaves."""

    __slots__ = (
        "caller",
        "deadline",
        "feed",
        "level",
        "proving",
        "question",
        "ready",
        "relaxed",
        "resume",
        "waiting",
        "watched",
    )

    def __init__(self, caller: Caller) -> None:
        self.caller = caller  # as its token has told, once that is confirmed
        self.relaxed = False  # may be answered from what is held where it names no revision
        self.deadline = 0.0  # 0: waits for nothing, or for somebody who has a deadline
        self.feed: Feed | None = None
        self.question: Question | None = None
        self.waiting: Waiting | None = None
        self.watched: Watched | None = None
        self.level: Level | None = None
        self.proving: Selection | None = None
        self.resume = False
        self.ready = False  # has a turn coming: never two, or it would send twice as much in each


class Lobby:
    """``bypasses``: reason -> requests that went upstream; ``refusals``: status code -> requests
    answered with it here; ``waits``: what for -> requests that had to wait. ``most``: who may wait
    at the same time."""

    def __init__(self, driver: Driver, rng: random.Random, most: int) -> None:
        self.bypasses: Counter[str] = Counter()
        self.refusals: Counter[int] = Counter()
        self.waits: Counter[str] = Counter()
        self.places: dict[Serving, Place] = {}
        self.waiting: dict[Serving, None] = {}  # those of places with a deadline
        self._driver = driver
        self._rng = rng
        self._most = most
        self._ready: deque[Serving] = deque()

    def enter(self, serving: Serving) -> Place:
        place = self.places[serving] = Place(serving.forward.caller)
        return place

    def leave(self, serving: Serving) -> Place | None:
        """The place to be cleared; None when it was already."""
        self.waiting.pop(serving, None)
        return self.places.pop(serving, None)

    # -- waiting and going on ------------------------------------------------------------------

    def wait(self, serving: Serving, place: Place, deadline: float, what: str) -> None:
        """For ``what``, one word for a metric; somebody who waits already has another deadline."""
        if serving not in self.waiting:
            self.waits[what] += 1
        place.deadline = deadline
        self.waiting[serving] = None

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return len(self.waiting) >= self._most

    def stop_waiting(self, serving: Serving, place: Place) -> None:
        place.deadline = 0.0
        self.waiting.pop(serving, None)

    def soon(self, serving: Serving) -> None:
        """Another step of sending, in the next turn."""
        place = self.places.get(serving)
        if place is not None and not place.ready:
            place.ready = True
            self._ready.append(serving)
            self._driver.wake()

    def resume(self, serving: Serving) -> None:
        """What it waited for is there: it is answered in the next turn."""
        place = self.places.get(serving)
        if place is not None:
            place.resume = True
            self.soon(serving)

    def work(
        self, answer: Callable[[Serving, Place], None], until: float, clock: Callable[[], float]
    ) -> bool:
        """A few of those who are ready by one step each, until the clock says ``until``;
        ``answer`` takes those who resume. Returns whether somebody is left."""
        for _ in range(min(len(self._ready), STEPS_AT_ONCE)):
            serving = self._ready.popleft()
            place = self.places.get(serving)
            if place is not None:
                try:
                    self._go_on(serving, place, answer)
                except Exception:
                    serving.cut()  # a defect of ours: this one pays for it, nobody else
                    raise
            if clock() >= until:
                break
        return bool(self._ready)

    def _go_on(
        self, serving: Serving, place: Place, answer: Callable[[Serving, Place], None]
    ) -> None:
        place.ready = False
        if place.resume:
            place.resume = False
            answer(serving, place)
        elif serving.step():
            self.soon(serving)

    # -- ways out ------------------------------------------------------------------------------

    def bypass(self, serving: Serving, reason: str, feed: Feed | None = None) -> None:
        """Upstream, as it came."""
        self.bypasses[reason] += 1
        if feed is not None:
            feed.counts.bypasses[reason] += 1
        serving.pass_upstream()
        self._driver.wake()

    def disperse(self, servings: Iterable[Serving], reason: str, feed: Feed) -> None:
        """What they waited for together does not come: the first go upstream, whose words they
        get, the others are told to come back."""
        here = [serving for serving in servings if serving in self.places]
        for serving in here[:PASSED_TOGETHER]:
            self.bypass(serving, reason, feed)
        for serving in here[PASSED_TOGETHER:]:
            self.turn_away(serving)

    def refuse(self, serving: Serving, status: Status, *, sniff: bool = False) -> None:
        """What upstream would say, where the client reads it in a form that can be written."""
        if reads_errors(serving.block.get(b"accept").decode("latin-1")):
            self.refusals[status.code] += 1
            serving.refuse_with(status, sniff=sniff)
            self._driver.wake()
        else:
            self.bypass(serving, "accept")

    def turn_away(self, serving: Serving) -> None:
        """429: too many wait, or it waited too long."""
        self.refusals[429] += 1
        retry = self._rng.randint(1, LONGEST_RETRY)
        serving.refuse(replies.too_busy(_TOO_MANY, retry, serving.error_form))
        self._driver.wake()
