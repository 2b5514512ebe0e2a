"""Runs a command against every guard of a context and prints what came of it."""

from __future__ import annotations

import sys
import time

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.fleet import Answer, ask_all
from apiguard.ctl.guard import Guard
from apiguard.ctl.options import Session
from apiguard.ctl.output import View, align, cells, complain, encoded, header, merged, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Ask = Callable[[Guard], Any]

INTERRUPTED = 130  # what a shell reports for Ctrl-C


def act(session: Session, ask: Ask, said: Callable[[Any], str]) -> None:
    """Changes something on every guard: a line each, exit 1 if any failed."""
    answers = ask_all(session.guards, ask)
    if session.tabular:
        for answer in answers:
            if answer.error is None:
                write(align([[session.prefix(answer.guard) + said(answer.value)]]))
    else:
        write_encoded(session, answers)
    finish(session, answers)


def show(session: Session, ask: Ask, view: View) -> None:
    """Prints what every guard says, exit 1 if any did not."""
    answers = ask_all(session.guards, ask)
    if session.tabular:
        write_table(session, view, answers)
    else:
        write_encoded(session, answers)
    finish(session, answers)


def write_table(session: Session, view: View, answers: Sequence[Answer]) -> None:
    """One table for all guards, or the sentence for none."""
    lines = list(cells(view, answers, wide=session.wide).values())
    if lines:
        write(align([header(view, len(session.guards), wide=session.wide), *lines]))
    elif any(answer.error is None for answer in answers):
        complain(view.none)  # kubectl too keeps stdout empty for nothing


def write_encoded(session: Session, answers: Sequence[Answer]) -> None:
    if any(answer.error is None for answer in answers):
        write(encoded(merged(answers), session.form))


def finish(session: Session, answers: Sequence[Answer]) -> None:
    """Says which guards failed and ends the command with 1 if there are any."""
    failed = [answer for answer in answers if answer.error is not None]
    for answer in failed:
        complain(f"Error: {session.prefix(answer.guard)}{answer.error}")
    if failed:
        sys.exit(1)


def watch(session: Session, ask: Ask, view: View, seconds: float) -> None:
    """Asks every ``seconds`` and prints rows that are new or changed, until Ctrl-C.

    A guard that fails is reported once, and asked again: in an incident it comes back.
    """
    try:
        _watch(session, ask, view, seconds)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _watch(session: Session, ask: Ask, view: View, seconds: float) -> None:
    seen: dict[object, list[str]] = {}
    errors: dict[str, str] = {}
    widths: list[int] = []
    written = ""
    while True:
        answers = ask_all(session.guards, ask)
        _report(session, answers, errors)
        if session.tabular:
            found = cells(view, answers, wide=session.wide)
            changed = [line for key, line in found.items() if seen.get(key) != line]
            if changed and not seen:
                changed.insert(0, header(view, len(session.guards), wide=session.wide))
            seen |= found
            write(align(changed, widths))
        elif any(answer.error is None for answer in answers):
            document = encoded(merged(answers), session.form)
            if document != written:
                write(document)
                written = document
        time.sleep(seconds)


def _report(session: Session, answers: Sequence[Answer], errors: dict[str, str]) -> None:
    """Errors that are new since the last look."""
    for answer in answers:
        said = str(answer.error or "")
        if said and errors.get(answer.guard.name) != said:
            complain(f"Error: {session.prefix(answer.guard)}{said}")
        errors[answer.guard.name] = said
