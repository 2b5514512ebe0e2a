"""``apiguard policy``: get, diff, apply, history, rollback."""

from __future__ import annotations

import sys
from typing import Any

import click

from apiguard.ctl.acting import act, finish, show, write_encoded
from apiguard.ctl.commands.overrides import show_preview
from apiguard.ctl.errors import CtlError, RefusedError
from apiguard.ctl.fleet import ask_all
from apiguard.ctl.grouping import Commands
from apiguard.ctl.guard import Guard
from apiguard.ctl.options import EXIT_CODES, Session, on_guards
from apiguard.ctl.output import write
from apiguard.ctl.printable import printable_lines
from apiguard.ctl.reading import number, pick, text
from apiguard.ctl.views import HISTORY

DIFFERENT = 1  # as kubectl diff's

GENERATION = click.IntRange(min=1)


@click.group(cls=Commands, epilog=EXIT_CODES)
def policy() -> None:
    """See, compare, replace and roll back the policy.

    \b
    Examples:
      apiguard policy get > policy.yaml
      apiguard policy diff policy.yaml
      apiguard policy apply -f policy.yaml --dry-run
      apiguard policy apply -f policy.yaml --reason 'INC-7: slower lists' --generation 12
      apiguard policy rollback --reason 'INC-7: wrong rule'
    """


@policy.command(epilog=EXIT_CODES)
@click.option("--generation", type=GENERATION, help="An earlier one of the history.")
@on_guards(formats=("yaml", "json"))
def get(session: Session, generation: int | None) -> None:
    """Print the active policy, or an earlier generation, as it was written."""
    if session.form == "json":
        if generation is not None:
            raise click.UsageError("-o json shows the active policy; leave out --generation")
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


@policy.command(
    epilog="\b\nExit codes:\n  0  no difference\n  1  they differ, or it failed\n"
    "  2  the command line is wrong"
)
@click.argument("file", metavar="FILE")
@on_guards(output=False)
def diff(session: Session, file: str) -> None:
    """Show what applying FILE would change in the text; - reads standard input."""
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
        click.get_current_context().exit(DIFFERENT)


@policy.command(epilog=EXIT_CODES)
@click.option("-f", "--filename", "file", required=True, metavar="FILE", help="- reads stdin.")
@click.option("--reason", default="", metavar="TEXT", help="Kept with the generation.")
@click.option("--dry-run", is_flag=True, help="Check it and say what it would have done.")
@click.option("--generation", type=GENERATION, help="Only replace this one.")
@on_guards()
def apply(session: Session, file: str, reason: str, dry_run: bool, generation: int | None) -> None:
    """Make FILE the policy of every guard of the context.

    Without --generation it replaces whatever is active; with it, nothing that somebody else has
    put meanwhile.
    """
    wanted = _read(file)
    query = {"reason": reason, "generation": "" if generation is None else str(generation)}

    def ask(guard: Guard) -> Any:
        try:
            return guard.put_text("/v1/policy", wanted, query)
        except RefusedError as error:
            raise _explained(error, file) from None

    if dry_run:
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


@policy.command(epilog=EXIT_CODES)
@on_guards()
def history(session: Session) -> None:
    """List the last generations: who, when, why."""
    show(session, lambda guard: guard.get("/v1/policy/history"), HISTORY)


@policy.command(epilog=EXIT_CODES)
@click.option("--to", "generation", type=GENERATION, help="[default: the one before]")
@click.option("--reason", required=True, metavar="TEXT", help="Kept with the generation.")
@on_guards()
def rollback(session: Session, generation: int | None, reason: str) -> None:
    """Return every guard of the context to an earlier generation, as a new one."""
    body: dict[str, Any] = {"reason": reason}
    if generation is not None:
        body["generation"] = generation
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
