"""What the live screen shows, and what a key does to it.

A key changes the screen and may wish for something that takes time: a look at the guards, a
preview, a ban. The loop grants wishes and hands back what came of them. Whoever bans from here
passes four screens in order: why, for how long, what it would have done, and yes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from apiguard.ctl.durations import exact, parse_duration
from apiguard.ctl.matching import match_of_key
from apiguard.ctl.views import DIMENSIONS, SORTS, WINDOWS

BYS = (*DIMENSIONS, "userAgent,user", "userAgent,source", "userAgent,request", "user,request")
DEFAULT_FOR = "30m"
LONGEST_INPUT = 200

Row = Mapping[str, Any]


class Mode(enum.Enum):
    """What keys mean at the moment."""

    BROWSE = "browse"
    REASON = "reason"
    FOR = "for"
    PREVIEW = "preview"  # waiting for the guards' answer
    CONFIRM = "confirm"
    BANNING = "banning"  # likewise


class Look:
    """A wish: ask the guards for rows again, now."""


class Quit:
    """A wish: end."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A wish: ask what this override would have done."""

    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ban:
    """A wish: lay this override on every guard."""

    body: dict[str, Any]


Wish = Look | Quit | Preview | Ban


@dataclass(frozen=True, slots=True)
class Shown:
    """A row with the guard it came from."""

    guard: str
    row: Row

    @property
    def key(self) -> tuple[object, ...]:
        """What stays the same when figures and order change."""
        return self.guard, *sorted(self.row.get("key", {}).items())


@dataclass(slots=True)
class Screen:
    """All of it. ``message`` is the last outcome, ``errors`` what guards failed with just now."""

    by: str = DIMENSIONS[0]
    over: str = WINDOWS[1]
    sort: str = SORTS[0]
    rows: Sequence[Shown] = ()
    totals: Row = field(default_factory=dict)
    selected: tuple[object, ...] | None = None
    mode: Mode = Mode.BROWSE
    typed: str = ""
    reason: str = ""
    ttl: int = 0
    match: dict[str, Any] = field(default_factory=dict)
    preview: str = ""
    message: str = ""
    errors: tuple[str, ...] = ()

    # -- what comes from the guards

    def show(self, rows: Sequence[Shown], totals: Row, errors: Sequence[str]) -> None:
        """New figures; the selection stays with its client. No rows at all keep the old ones."""
        self.errors = tuple(errors)
        if errors and not rows:
            return
        ordered = sorted(rows, key=lambda shown: -_figure(shown.row, self.sort))
        self.rows, self.totals = ordered, totals
        if self.position is None:
            self.selected = None

    def previewed(self, text: str) -> None:
        """What the ban would have done."""
        if self.mode is Mode.PREVIEW:
            self.preview, self.mode = text, Mode.CONFIRM

    def failed(self, reason: str) -> None:
        """A preview or a ban did not work out."""
        self.mode, self.message = Mode.BROWSE, reason

    def banned(self, message: str) -> None:
        self.mode, self.message = Mode.BROWSE, message

    @property
    def position(self) -> int | None:
        """Index of the selected row; the first when none is selected, None when there is none."""
        if self.selected is None:
            return 0 if self.rows else None
        keys = [shown.key for shown in self.rows]
        return keys.index(self.selected) if self.selected in keys else None

    # -- what comes from the keyboard

    def press(self, key: str) -> Wish | None:
        """``key`` is a character or ``up``, ``down``, ``enter``, ``escape``, ``backspace`` …"""
        match self.mode:
            case Mode.BROWSE:
                return self._browse(key)
            case Mode.REASON | Mode.FOR:
                return self._type(key)
            case Mode.CONFIRM:
                return self._confirm(key)
            case Mode.PREVIEW | Mode.BANNING:
                if key == "escape" and self.mode is Mode.PREVIEW:
                    self.failed("not banned")
                return None

    def _browse(self, key: str) -> Wish | None:
        match key:
            case "q":
                return Quit()
            case "up" | "k":
                self._move(-1)
            case "down" | "j":
                self._move(1)
            case "home" | "g":
                self._move(-len(self.rows))
            case "end" | "G":
                self._move(len(self.rows))
            case "s":
                self.sort = _next(SORTS, self.sort)
                return Look()
            case "w":
                self.over = _next(WINDOWS, self.over)
                return Look()
            case "b":
                self.by, self.rows, self.selected = _next(BYS, self.by), (), None
                return Look()
            case "B":
                self._begin_ban()
        return None

    def _move(self, rows: int) -> None:
        position = self.position
        if position is not None:
            wanted = min(max(position + rows, 0), len(self.rows) - 1)
            self.selected = self.rows[wanted].key

    def _begin_ban(self) -> None:
        position = self.position
        if position is None:
            self.message = "nobody to ban"
            return
        chosen = self.rows[position]
        self.selected = chosen.key
        try:
            self.match = match_of_key(chosen.row.get("key", {}))
        except ValueError as error:
            self.message = f"cannot ban this: {error}"
            return
        self.mode, self.typed, self.message = Mode.REASON, "", ""

    def _type(self, key: str) -> Wish | None:
        match key:
            case "escape":
                self.failed("not banned")
            case "backspace":
                self.typed = self.typed[:-1]
            case "enter" if self.mode is Mode.FOR:
                return self._take_duration()
            case "enter":
                self._take_reason()
            case _ if len(key) == 1 and key.isprintable() and len(self.typed) < LONGEST_INPUT:
                self.typed += key
        return None

    def _take_reason(self) -> None:
        reason = self.typed.strip()
        if not reason:
            self.message = "whoever finds this ban must know why: type a reason, or Esc"
            return
        self.reason, self.mode, self.typed, self.message = reason, Mode.FOR, DEFAULT_FOR, ""

    def _take_duration(self) -> Wish | None:
        try:
            self.ttl = parse_duration(self.typed.strip())
        except ValueError as error:
            self.message = str(error)
            return None
        self.mode, self.typed, self.message = Mode.PREVIEW, "", ""
        return Preview(self.body)

    def _confirm(self, key: str) -> Wish | None:
        if key in ("y", "Y"):
            self.mode = Mode.BANNING
            return Ban(self.body)
        if key in ("n", "N", "escape", "q", "enter"):
            self.failed("not banned")
        return None

    @property
    def body(self) -> dict[str, Any]:
        """The override being asked for, as the HTTP API takes it."""
        return {
            "action": "ban",
            "match": self.match,
            "reason": self.reason,
            "ttlSeconds": self.ttl,
        }

    @property
    def question(self) -> str:
        """What is being asked, "" while browsing."""
        match self.mode:
            case Mode.BROWSE:
                return ""
            case Mode.REASON:
                return "reason: "
            case Mode.FOR:
                return "for: "
            case Mode.PREVIEW:
                return "asking what this would have done …"
            case Mode.CONFIRM:
                return f"ban for {exact(self.ttl)}? [y/N] "
            case Mode.BANNING:
                return "banning …"


def _figure(row: Row, sort: str) -> float:
    value = row.get(sort, 0)
    return float(value) if isinstance(value, int | float) else 0.0


def _next(values: Sequence[str], current: str) -> str:
    at = values.index(current) if current in values else -1
    return values[(at + 1) % len(values)]
