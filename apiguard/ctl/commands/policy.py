"""``apiguard policy``: get, diff, apply, history, rollback."""

from __future__ import annotations

import argparse
import sys

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.acting import act, finish, show, write_encoded
from apiguard.ctl.commands.overrides import show_preview
from apiguard.ctl.errors import CtlError, RefusedError, UsageError
from apiguard.ctl.fleet import ask_all
from apiguard.ctl.guard import Guard
from apiguard.ctl.options import EXIT_CODES, Session, on_guards, whole
from apiguard.ctl.output import write
from apiguard.ctl.parsing import Command, Given, here
from apiguard.ctl.printable import printable_lines
from apiguard.ctl.reading import number, pick, text
from apiguard.ctl.views import HISTORY

if TYPE_CHECKING:
    from typing import Any

DIFFERENT = 1  # as kubectl diff's
DIFF_EXIT_CODES = """\
Exit codes:
  0  no difference
  1  they differ, or it failed
  2  the command line is wrong"""


def policy(command: Command) -> None:
    """See, compare, replace and roll back the policy.

    Examples:
      apiguard policy get > policy.yaml
      apiguard policy diff policy.yaml
      apiguard policy apply -f policy.yaml --dry-run
      apiguard policy apply -f policy.yaml --reason 'INC-7: slower lists' --generation 12
      apiguard policy rollback --reason 'INC-7: wrong rule'
    """
    commands = {
        "get": here(get),
        "diff": here(diff),
        "apply": here(apply),
        "history": here(history),
        "rollback": here(rollback),
    }
    command.holds({"Commands": commands}, epilog=EXIT_CODES)


def _generation_flag(command: Command, flag: str, said: str) -> None:
    command.add_argument(flag, dest="generation", type=whole(1), metavar="N", help=said)


def get(command: Command) -> None:
    """Print the active policy, or an earlier generation, as it was written."""
    _generation_flag(command, "--generation", "An earlier one of the history.")
    on_guards(command, _get, formats=("yaml", "json"))


def _get(session: Session, given: Given) -> None:
    generation: int | None = given.generation
    if session.form == "json":
        if generation is not None:
            raise UsageError("-o json shows the active policy; leave out --generation")
        answers = ask_all(session.guards, lambda guard: guard.get("/v1/policy"))
        write_encoded(session, answers)
    else:
        answers = ask_all(session.guards, lambda guard: _text_of(guard, generation))
        for answer in answers:
            if answer.error is None:
                if len(answers) > 1:
                    write(f"---\n# guard: {ascii(answer.guard.name)[1:-1]}\n")
                write(_shown(answer.value))
    finish(session, answers)


def _text_of(guard: Guard, generation: int | None) -> str:
    path = "/v1/policy" if generation is None else f"/v1/policy/history/{generation}"
    return guard.text(path)[0]


def _shown(policy_text: str) -> str:
    """As it is for a file or a pipe; without anything that steers it for a terminal."""
    return printable_lines(policy_text) if sys.stdout.isatty() else policy_text


def diff(command: Command) -> None:
    """Show what applying FILE would change in the text; - reads standard input."""
    _takes_file(command)
    on_guards(
        command,
        lambda session, given: _diff(session, _file_of(given)),
        "FILE",
        formats=(),
        epilog=DIFF_EXIT_CODES,
    )


def _takes_file(command: Command) -> None:
    """With kubectl's ``-f`` or without."""
    command.add_argument("file", metavar="FILE", nargs="?", help=argparse.SUPPRESS)
    command.add_argument("-f", "--filename", metavar="FILE", help="- reads stdin.")


def _file_of(given: Given) -> str:
    """Raises UsageError unless there is one."""
    named = [name for name in (given.file, given.filename) if name is not None]
    if len(named) != 1:
        raise UsageError("name one policy: -f/--filename FILE")
    return str(named[0])


def _diff(session: Session, file: str) -> None:
    import difflib

    wanted = _read(file)
    answers = ask_all(session.guards, lambda guard: _text_of(guard, None))
    different = False
    for answer in answers:
        if answer.error is None and answer.value != wanted:
            different = True
            lines = difflib.unified_diff(
                answer.value.splitlines(),
                wanted.splitlines(),
                f"{session.prefix(answer.guard)}active",
                file,
                lineterm="",
            )
            write(_shown("\n".join(lines) + "\n"))
    finish(session, answers)
    if different:
        sys.exit(DIFFERENT)


def apply(command: Command) -> None:
    """Make FILE the policy of every guard of the context.

    Without --generation it replaces whatever is active; with it, nothing that somebody else has
    put meanwhile.
    """
    _takes_file(command)
    command.add_argument("--reason", default="", metavar="TEXT", help="Kept with the generation.")
    command.add_argument(
        "--dry-run", action="store_true", help="Check it and say what it would have done."
    )
    _generation_flag(command, "--generation", "Only replace this one.")
    on_guards(command, _apply)


def _apply(session: Session, given: Given) -> None:
    file = _file_of(given)
    wanted = _read(file)
    generation = "" if given.generation is None else str(given.generation)
    query = {"reason": given.reason, "generation": generation}

    def ask(guard: Guard) -> Any:
        try:
            return guard.put_text("/v1/policy", wanted, query)
        except RefusedError as error:
            raise _explained(error, file) from None

    if given.dry_run:
        query["dryRun"] = "All"
        show_preview(session, ask)
    else:
        act(session, ask, lambda answer: f"policy applied: {_generation(answer)}")


def _explained(error: RefusedError, file: str) -> RefusedError:
    """Stale: what to do about it. Invalid: which file."""
    if error.code == 409:
        return RefusedError(
            409, f"{error}; run apiguard policy get, merge, then apply --generation of that one"
        )
    return RefusedError(error.code, f"{file}: {error}") if error.code == 422 else error


def _generation(answer: Any) -> str:
    late = [text(w, "worker") for w in pick(answer, "workers", []) if not pick(w, "applied")]
    said = f"generation {number(answer, 'generation'):.0f}, {number(answer, 'rules'):.0f} rules"
    return f"{said}; not yet confirmed by worker {', '.join(late)}" if late else said


def history(command: Command) -> None:
    """List the last generations: who, when, why."""
    on_guards(command, _history)


def _history(session: Session, given: Given) -> None:
    show(session, lambda guard: guard.get("/v1/policy/history"), HISTORY)


def rollback(command: Command) -> None:
    """Return every guard of the context to an earlier generation, as a new one."""
    _generation_flag(command, "--to", "[default: the one before]")
    command.add_argument(
        "--reason", required=True, metavar="TEXT", help="Kept with the generation."
    )
    on_guards(command, _rollback)


def _rollback(session: Session, given: Given) -> None:
    body: dict[str, Any] = {"reason": given.reason}
    if given.generation is not None:
        body["generation"] = given.generation
    act(
        session,
        lambda guard: guard.send("POST", "/v1/policy/rollback", body),
        lambda answer: f"policy rolled back: {_generation(answer)}",
    )


def _read(path: str) -> str:
    """The file's text, as it is. Raises CtlError."""
    try:
        if path == "-":
            return sys.stdin.buffer.read().decode()
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except UnicodeDecodeError:
        raise CtlError(f"{path}: is not UTF-8") from None
    except OSError as error:
        raise CtlError(f"{path}: {error.strerror}") from None
