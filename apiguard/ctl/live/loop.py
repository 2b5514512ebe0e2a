"""Runs the live screen: keys from the terminal, answers from threads, one picture for both."""

from __future__ import annotations

import collections
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live

from apiguard.ctl.fleet import Answer, ask_all
from apiguard.ctl.guard import Guard
from apiguard.ctl.live.drawing import draw
from apiguard.ctl.live.keyboard import keys, one_at_a_time
from apiguard.ctl.live.state import Ban, Look, Preview, Quit, Row, Screen, Shown, Wish
from apiguard.ctl.options import Session
from apiguard.ctl.reading import items, pick

REFRESH_SECONDS = 1.0
MOST_ROWS = 100

Outcome = Callable[[], None]
"""What a thread found out, to be told to the screen by the loop."""


class Top:
    """One run of ``apiguard top``.

    ``ask`` is called with a guard, by, over and sort; ``describe`` words a preview, ``laid`` an
    override.
    """

    def __init__(
        self,
        session: Session,
        screen: Screen,
        title: str,
        ask: Callable[[Guard, str, str, str], Any],
        describe: Callable[[Any], str],
        laid: Callable[[Any], str],
    ) -> None:
        self._session = session
        self._screen = screen
        self._title = title
        self._ask = ask
        self._describe = describe
        self._laid = laid
        self._outcomes: collections.deque[Outcome] = collections.deque()
        self._woken, self._wake = os.pipe()
        self._looking = False
        self._again = False
        self._next_look = 0.0

    def run(self) -> None:
        """Until q. Leaves the terminal as it was, whatever happens."""
        console = Console(markup=False, highlight=False, emoji=False)
        with (
            one_at_a_time() as keyboard,
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            while True:
                if time.monotonic() >= self._next_look:
                    self._look()
                guards = len(self._session.guards)
                size = console.size
                picture = draw(self._screen, self._title, size.height, size.width, guards=guards)
                live.update(picture, refresh=True)
                if not self._wait(keyboard):
                    return

    def _wait(self, keyboard: int) -> bool:
        """Until something happened, and takes it in; false to end."""
        timeout = max(0.0, self._next_look - time.monotonic())
        ready, _, _ = select.select([keyboard, self._woken], [], [], timeout)
        if self._woken in ready:
            os.read(self._woken, 4_096)
        while self._outcomes:
            self._outcomes.popleft()()
        if keyboard in ready:
            data = os.read(keyboard, 1_024)
            if not data:  # the terminal is gone
                return False
            for key in keys(data):
                wish = self._screen.press(key)
                if isinstance(wish, Quit):
                    return False
                self._grant(wish)
        return True

    def _grant(self, wish: Wish | None) -> None:
        match wish:
            case Look():
                self._look()
            case Preview(body):
                self._start(lambda: self._preview(body))
            case Ban(body):
                self._start(lambda: self._ban(body))
            case Quit() | None:
                pass

    # -- in threads

    def _start(self, job: Callable[[], Outcome]) -> None:
        def run() -> None:
            self._outcomes.append(job())
            os.write(self._wake, b"!")

        threading.Thread(target=run, daemon=True).start()

    def _look(self) -> None:
        """One look at a time: a guard that is slow to answer is not asked more often for it."""
        self._next_look = time.monotonic() + REFRESH_SECONDS
        if self._looking:
            self._again = True
            return
        self._looking, self._again = True, False
        wanted = (self._screen.by, self._screen.over, self._screen.sort)

        def look() -> Outcome:
            answers = ask_all(self._session.guards, lambda guard: self._ask(guard, *wanted))
            return lambda: self._looked(wanted, answers)

        self._start(look)

    def _looked(self, wanted: tuple[str, str, str], answers: Sequence[Answer]) -> None:
        self._looking = False
        screen = self._screen
        if wanted == (screen.by, screen.over, screen.sort):
            screen.show(_rows(answers), _totals(answers), self._errors(answers))
        if self._again:
            self._look()

    def _preview(self, body: dict[str, Any]) -> Outcome:
        answers = self._post(body, {"dryRun": "All"})
        errors = self._errors(answers)
        if errors:
            return lambda: self._screen.failed("; ".join(errors))
        text = "\n".join(self._described(answer) for answer in answers)
        return lambda: self._screen.previewed(text)

    def _described(self, answer: Answer) -> str:
        prefix = self._session.prefix(answer.guard)
        return (
            f"{prefix}\n{self._describe(answer.value)}" if prefix else self._describe(answer.value)
        )

    def _ban(self, body: dict[str, Any]) -> Outcome:
        answers = self._post(body, {})
        said = [
            self._session.prefix(answer.guard) + self._laid(answer.value)
            for answer in answers
            if answer.error is None
        ]
        outcome = "; ".join([*said, *self._errors(answers)])
        return lambda: self._screen.banned(outcome)

    def _post(self, body: dict[str, Any], query: dict[str, str]) -> list[Answer]:
        return ask_all(
            self._session.guards, lambda guard: guard.send("POST", "/v1/overrides", body, query)
        )

    def _errors(self, answers: Sequence[Answer]) -> list[str]:
        return [
            f"{self._session.prefix(answer.guard)}{answer.error}"
            for answer in answers
            if answer.error is not None
        ]


def _rows(answers: Sequence[Answer]) -> list[Shown]:
    return [
        Shown(answer.guard.name, row)
        for answer in answers
        if answer.error is None
        for row in items(answer.value, "rows")
    ]


def _totals(answers: Sequence[Answer]) -> Row:
    sums: dict[str, float] = {}
    for answer in answers:
        for key, value in pick(answer.value, "totals", {}).items():
            if isinstance(value, int | float):
                sums[key] = sums.get(key, 0) + value
    return sums
