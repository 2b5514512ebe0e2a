"""What one client of a LIST and a WATCH may be told, checked against what was written.

``History`` listens to every write of an embedded API server and knows, per selection, which events
a watcher hears and which objects a list shows at every revision; it judges by the server's own
transition rule, not by the relay's. A ``Witness`` is told what a client received and raises
``Violation`` at the first word that is not that history:

- exact: each event is the next one of its selection, with its type and revision
- a difference: where history was forgotten (compaction, an expired watch), a relay may list anew
  and continue by the difference; everything up to its last revision was told before, revisions
  ascend, versions are real, types fit what the client holds, and when it is over the client's
  state is the true one
- a bookmark's revision is one whose events were all told before, a list's state is that of its
  revision, and no list is older than what the client knows already
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlencode

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.options import Selectors
from apiguard.demo.resources import PODS
from apiguard.demo.store import Change
from apiguard.demo.verbs import select
from apiguard.demo.watching import transition
from apiguard.kube.selectors import parse_field_selector, parse_label_selector

State = dict[str, int]
"""Key -> resourceVersion."""

_CHECKPOINT_EVERY = 256
_TRAIL = 24
_INSTANT = 64
"""Writes between the arrival of a request and its answer, at most."""


class Violation(AssertionError):  # noqa: N818 - a finding, not a failure of the checker
    """Something no API server would have said."""


class Selection(NamedTuple):
    """One scope of pods as it is asked for; "" where nothing is."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""

    @property
    def path(self) -> str:
        scope = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"/api/v1{scope}/pods"

    def query(self, **parameters: str) -> str:
        named = {"labelSelector": self.labels, "fieldSelector": self.fields} | parameters
        return urlencode({name: value for name, value in named.items() if value})


class Told(NamedTuple):
    """One event: its type, the object's key, and the revision it carries."""

    kind: str
    key: str
    revision: int


class Truth:
    """Everything one selection ever showed, from ``revision`` on."""

    def __init__(self, revision: int, state: State) -> None:
        self.events: list[Told] = []
        self._revisions: list[int] = []
        self._checkpoints: list[tuple[int, State]] = [(revision, state)]
        self._latest = dict(state)

    def append(self, told: Told) -> None:
        self.events.append(told)
        self._revisions.append(told.revision)
        _apply(self._latest, told)
        if len(self.events) % _CHECKPOINT_EVERY == 0:
            self._checkpoints.append((told.revision, dict(self._latest)))

    def after(self, revision: int) -> int:
        """How many events are not above ``revision``: the index of the first that is."""
        return bisect_right(self._revisions, revision)

    def state(self, revision: int) -> State:
        at = bisect_right(self._checkpoints, revision, key=lambda one: one[0]) - 1
        if at < 0:
            raise Violation(f"revision {revision} is older than anything there was")
        begun, state = self._checkpoints[at]
        found = dict(state)
        for told in self.events[self.after(begun) : self.after(revision)]:
            _apply(found, told)
        return found


def _apply(state: State, told: Told) -> None:
    if told.kind == "DELETED":
        del state[told.key]
    else:
        state[told.key] = told.revision


class History:
    """All truths; ``forgotten`` are revisions at which history was, ``bridged`` those between
    which a relay that listed anew may tell a difference."""

    def __init__(self, server: EmbeddedApiServer, selections: Iterable[Selection]) -> None:
        self.forgotten: list[int] = []
        self.bridged: list[tuple[int, int]] = []
        self.versions: set[tuple[str, int]] = set()
        self._store = server.store
        self._selectors = {one: _selectors(one) for one in selections}
        items = self._store.collections[PODS].items()
        self.truths = {
            one: Truth(
                self._store.revision,
                {item.key: item.revision for item in select(items, one.namespace, chosen)},
            )
            for one, chosen in self._selectors.items()
        }
        self._store.collections[PODS].listeners.append(self._written)

    @property
    def revision(self) -> int:
        return self._store.revision

    def forget(self) -> None:
        """From here on nobody may rely on history up to now."""
        self.forgotten.append(self.revision)

    def is_forgotten(self, revision: int) -> bool:
        """Whether a client that resumes there may be told 410."""
        return bool(self.forgotten) and self.forgotten[-1] >= revision

    def relisted(self, low: int) -> None:
        """A relay that knows all up to ``low`` lists what there is now, or in an instant."""
        self.bridged.append((low, self.revision + _INSTANT))

    def _written(self, change: Change) -> None:
        if change.item is not None:
            self.versions.add((change.item.key, change.revision))
        for selection, truth in self.truths.items():
            heard = transition(change, selection.namespace, self._selectors[selection])
            if heard is not None:
                truth.append(Told(heard[0], heard[1].key, change.revision))


def _selectors(one: Selection) -> Selectors:
    labels, fields = parse_label_selector(one.labels), parse_field_selector(one.fields)
    return Selectors(labels, fields, (one.labels, one.fields))


@dataclass(slots=True)
class Counts:
    """What a witness saw."""

    events: int = 0
    bookmarks: int = 0
    lists: int = 0
    differences: int = 0
    forgotten: int = 0


@dataclass(slots=True)
class Witness:
    """One client. ``revision`` is where it resumes, 0 when it must list first."""

    history: History
    selection: Selection
    counts: Counts = field(default_factory=Counts)
    store: State = field(default_factory=dict)
    revision: int = 0
    known: int = 0
    """The highest revision of anything it was told: nothing may lead back behind it."""
    _at: int = 0
    _until: int = 0
    """While a difference is told: the revision at which it is over at the latest. Else 0."""
    _initial: State | None = None
    _trail: deque[str] = field(default_factory=lambda: deque(maxlen=_TRAIL))

    def __repr__(self) -> str:
        return f"{tuple(self.selection)} at {self.revision} after {', '.join(self._trail)}"

    @property
    def truth(self) -> Truth:
        return self.history.truths[self.selection]

    @property
    def behind(self) -> int:
        """Events that are still to come; 0 while that cannot be said."""
        return 0 if self._until or not self.revision else len(self.truth.events) - self._at

    @property
    def bridging(self) -> bool:
        return self._until > 0

    @property
    def level(self) -> bool:
        """Whether it holds what there is now."""
        return self.store == self.truth.state(self.history.revision)

    # -- what the client receives --------------------------------------------------------------

    def listed(self, state: State, revision: int) -> None:
        """A whole list."""
        self.counts.lists += 1
        self._trail.append(f"list {revision}")
        self._replace(state, revision)

    def connected(self, *, initial: bool) -> None:
        """A stream begins: where this client is, or with ``initial`` events."""
        self._trail.append(f"connected at {self.revision}")
        if initial:
            self._initial = {}

    def stream_ended(self) -> None:
        """Before its end bookmark a beginning is worth nothing."""
        self._initial = None

    def heard(self, told: Told) -> None:
        self.counts.events += 1
        self._trail.append(f"{told.kind} {told.key}@{told.revision}")
        if self._initial is not None:
            self._hear_initial(self._initial, told)
            return
        if told.revision <= self.revision:
            raise Violation(f"{told} after {self.revision}: out of order, or twice")
        if self._until and told.revision > self._until:
            self._end_difference(told)
        if not self._until and not self._is_next(told):
            self._begin_difference(told)
        if self._until:
            self._hear_difference(told)
        _apply(self.store, told)
        self.revision = told.revision
        self.known = max(self.known, told.revision)

    def bookmarked(self, revision: int, *, initial_end: bool) -> None:
        self.counts.bookmarks += 1
        self._trail.append(f"bookmark {revision}")
        if initial_end is (self._initial is None):
            raise Violation(f"a bookmark at {revision} out of place")
        if self._initial is not None:
            initial, self._initial = self._initial, None
            self._replace(initial, revision)
            return
        if revision < self.revision:
            raise Violation(f"a bookmark at {revision} after {self.revision}")
        if self._until:
            self._is_true(revision)
        elif self.truth.after(revision) == self._at:
            pass
        elif revision <= self._bridged():  # a difference in which nothing of this client's was left
            self._is_true(revision)
        else:
            raise Violation(
                f"a bookmark at {revision} before {self.truth.events[self._at]} was told"
            )
        self.revision = revision
        self.known = max(self.known, revision)

    def expired(self, message: str = "", *, slow: bool) -> None:
        """410: to be told only where history is gone. ``slow``: this client let it go by."""
        self.counts.forgotten += 1
        self._trail.append("410")
        excused = slow or self.bridging or self.history.is_forgotten(self.revision)
        # Where a difference begins, too: told all up to the relay's last revision, though the last
        # thing in it may have been no concern of this client's.
        if not excused and self.revision > self._bridged():
            raise Violation(f"410 at {self.revision}, which nobody forgot: {message}")
        self._initial = None
        self._until = 0
        self.revision = 0

    # -- judging -------------------------------------------------------------------------------

    def _replace(self, state: State, revision: int) -> None:
        if revision < self.known:
            raise Violation(f"a state of {revision} for a client that knows {self.known}")
        if revision > self.history.revision:
            raise Violation(f"a state of {revision}, which is yet to come")
        self.store = state
        self.revision = self.known = revision
        self._is_true(revision)

    def _is_next(self, told: Told) -> bool:
        events = self.truth.events
        if self._at < len(events) and events[self._at] == told:
            self._at += 1
            return True
        return False

    def _is_true(self, revision: int) -> None:
        """The client's state must be that of ``revision``; from there on events are exact."""
        expected = self.truth.state(revision)
        if self.store != expected:
            extra = sorted(self.store.items() - expected.items())[:4]
            missing = sorted(expected.items() - self.store.items())[:4]
            raise Violation(f"not the state of {revision}: {extra} for {missing}")
        self._until = 0
        self._at = self.truth.after(revision)

    def _bridged(self) -> int:
        """Up to which revision this client may be told a difference from where it is; 0 for none.

        Everything up to the relay's last revision was told before.
        """
        truth, at = self.truth, self._at
        return max(
            (high for low, high in self.history.bridged if truth.after(low) <= at), default=0
        )

    def _begin_difference(self, told: Told) -> None:
        highest = self._bridged()
        if not highest:
            events = self.truth.events
            due = events[self._at] if self._at < len(events) else "nothing"
            raise Violation(f"{told} after {self.revision}, where {due} was due")
        self.counts.differences += 1
        self._trail.append("which began a difference")
        if told.revision <= highest:
            self._until = highest
            return
        self._is_true(told.revision - 1)  # one in which nothing of this client's was left
        if not self._is_next(told):
            raise Violation(f"{told} is no event of this selection")

    def _end_difference(self, told: Told) -> None:
        """Unless another one follows at once."""
        highs = [high for low, high in self.history.bridged if low < told.revision <= high]
        if highs:
            self._until = max(highs)
        else:
            self._is_true(told.revision - 1)

    def _hear_difference(self, told: Told) -> None:
        if (told.key in self.store) is (told.kind == "ADDED"):
            raise Violation(f"{told} does not fit what was told before")
        if told.kind != "DELETED" and (told.key, told.revision) not in self.history.versions:
            raise Violation(f"{told}: there was no such version")

    def _hear_initial(self, initial: State, told: Told) -> None:
        if told.kind != "ADDED" or (initial and told.key <= next(reversed(initial))):
            raise Violation(f"{told} among the initial events: of another type, or not in order")
        initial[told.key] = told.revision
