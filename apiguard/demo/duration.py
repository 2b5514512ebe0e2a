"""Durations as Go's time.ParseDuration reads them, for the ``timeout`` parameter."""

from __future__ import annotations

import re

_UNITS = frozenset({"ns", "us", "µs", "μs", "ms", "s", "m", "h"})
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")


def duration_problem(text: str) -> str:
    """Why ``text`` is no duration, in Go's words; "" when it is one."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return ""
    at = 0
    while at < len(rest) or not at:
        part = _PART.match(rest, at)
        if part is None:
            return f'time: invalid duration "{text}"'
        if not part[2]:
            return f'time: missing unit in duration "{text}"'
        if part[2] not in _UNITS:
            return f'time: unknown unit "{part[2]}" in duration "{text}"'
        at = part.end()
    return ""
