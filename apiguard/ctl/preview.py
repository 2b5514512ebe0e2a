"""What a change would have done, in words: who would be hit, how much, how that is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiguard.ctl.durations import rough
from apiguard.ctl.output import align
from apiguard.ctl.reading import count, items, number, pick, seconds, share, size, text

Amounts = Mapping[str, Any]

EFFECTS = (
    ("newlyRefused", "would be refused"),
    ("newlyAdmitted", "would be admitted"),
    ("exempted", "would be exempt"),
)


def describe(answer: Any) -> str:
    """The answer to a dry run as lines of text, printable."""
    report = pick(answer, "preview", {})
    lines = [_basis(report)]
    lines += [_effect(report, key, words) for key, words in EFFECTS]
    said = align([[line] for line in lines if line])
    for key, first in (("clients", "CLIENT"), ("rules", "RULE")):
        rows = items(report, key)
        if rows:
            said += "\n" + _table(first, rows)
    return said


def _basis(report: Any) -> str:
    """What the figures rest on."""
    sampled = int(number(report, "sampledRequests"))
    if not sampled:
        return "nothing sampled yet: no recorded request says what this would do"
    return (
        f"the last {rough(number(report, 'seconds'))}: {count(report, 'representedRequests')}"
        f" requests, judged by {sampled} sampled ones"
        + (f" ({text(report, 'how')})" if text(report, "how") else "")
    )


def _effect(report: Any, key: str, words: str) -> str:
    amounts = pick(report, key, {})
    requests = number(amounts, "requests")
    if not requests and key != "newlyRefused":
        return ""
    represented = number(report, "representedRequests")
    part = share({"part": requests / represented}, "part") if represented else "0%"
    return (
        f"{words}: {requests:.0f} requests ({part}), {size(amounts, 'bytes')} bytes,"
        f" {seconds(amounts, 'upstreamSeconds')} of upstream time"
    )


def _table(first: str, rows: list[Mapping[str, Any]]) -> str:
    header = [first, "REFUSED", "ADMITTED", "EXEMPT", "BYTES", "UPSTREAM"]
    return align([header, *(_row(row) for row in rows)])


def _row(row: Amounts) -> list[str]:
    amounts = [pick(row, key, {}) for key, _ in EFFECTS]
    hit = amounts[0] if number(amounts[0], "requests") else amounts[1]
    return [
        _client(row),
        *(count(amount, "requests") for amount in amounts),
        size(hit, "bytes"),
        seconds(hit, "upstreamSeconds"),
    ]


def _client(row: Amounts) -> str:
    if "rule" in row:
        return text(row, "rule")
    family = text(row, "family") or text(row, "userAgent") or "(no user-agent)"
    return f"{family} as {text(row, 'user') or '(unverified)'}"
