"""What a change would have done, in words: who would be hit, how much, how that is known."""

from __future__ import annotations

from apiguard.ages import rough
from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.output import MOST_CHOSEN, align, shortened
from apiguard.ctl.printable import printable
from apiguard.ctl.reading import count, items, number, pick, seconds, share, size, text
from apiguard.ctl.views import UNVERIFIED

if TYPE_CHECKING:
    from typing import Any

    from apiguard.ctl.output import Row

EFFECTS = (
    ("newlyRefused", "would be refused"),
    ("newlyAdmitted", "would be admitted"),
    ("exempted", "would be exempt"),
    ("wouldRefuse", "would be counted, not refused"),
)


def describe(answer: Any) -> str:
    """The answer to a dry run as lines of text, printable."""
    report = pick(answer, "preview", {})
    if not number(report, "sampledRequests"):
        return (
            "No request is on record that says what this would do; is observability.samples on?\n"
        )
    lines = [_basis(report), *_effects(pick(report, "totals", {}))]
    said = align([[line] for line in lines])
    for key, heading in (("clients", "CLIENT"), ("rules", "RULE")):
        changed = [row for row in items(report, key) if _changed(row)]
        if changed:
            said += "\n" + _table(heading, changed)
            said += _left_out(number(report, f"{key}LeftOut"), key)
    notes = [text({"note": note}, "note") for note in pick(report, "caveats", [])]
    return said + ("\n" + align([[f"note: {note}"] for note in notes]) if notes else "")


def _basis(report: Any) -> str:
    """What the figures rest on."""
    ago, covered = number(report, "secondsAgo"), rough(max(1.0, number(report, "seconds")))
    basis = (
        f"in {f'{covered} until {rough(ago)} ago' if ago >= 10 else f'the last {covered}'}:"
        f" {count(report, 'representedRequests')} requests, judged by"
        f" {count(report, 'sampledRequests')} samples"
    )
    method = text(report, "method")
    return f"{basis} ({method})." if method else f"{basis}."


def _effects(totals: Any) -> list[str]:
    """Requests refused are always stated, the other effects where there are any."""
    return [
        _effect(totals, key, words)
        for key, words in EFFECTS
        if key == "newlyRefused" or number(totals, f"{key}.requests")
    ]


def _effect(totals: Any, key: str, words: str) -> str:
    requests, all_requests = number(totals, f"{key}.requests"), number(totals, "total.requests")
    part = share({"part": requests / all_requests}, "part") if all_requests else "0%"
    return (
        f"{words}: {requests:.0f} requests ({part}), {size(totals, f'{key}.bytes')} bytes,"
        f" {seconds(totals, f'{key}.upstreamSeconds')} of upstream time"
    )


def _changed(row: Row) -> bool:
    return any(number(row, f"effects.{key}.requests") for key, _ in EFFECTS)


def _table(heading: str, rows: list[Row]) -> str:
    header = [heading, "OF", "REFUSED", "ADMITTED", "EXEMPT", "BYTES", "UPSTREAM"]
    return align([header, *(_row(row) for row in rows)])


def _row(row: Row) -> list[str]:
    hit = next((k for k, _ in EFFECTS if number(row, f"effects.{k}.requests")), "newlyRefused")
    return [
        _name(row),
        count(row, "effects.total.requests"),
        *(count(row, f"effects.{key}.requests") for key, _ in EFFECTS[:3]),
        size(row, f"effects.{hit}.bytes"),
        seconds(row, f"effects.{hit}.upstreamSeconds"),
    ]


def _name(row: Row) -> str:
    if "rule" in row:
        return text(row, "rule")
    family = text(row, "userAgentFamily") or "(no user-agent)"
    user = text(row, "user") or UNVERIFIED
    return f"{_cut(family)} as {_cut(user)}"


def _cut(name: str) -> str:
    return shortened(printable(name), MOST_CHOSEN)


def _left_out(number_left: float, what: str) -> str:
    return f"and {number_left:.0f} more {what}\n" if number_left else ""
