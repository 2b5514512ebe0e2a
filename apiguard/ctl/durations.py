"""Durations as operators write them, and as tables show them."""

from __future__ import annotations

import re

_PATTERN = r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?"
_UNITS = (86_400, 3_600, 60, 1)


def parse_duration(text: str) -> int:
    """Seconds of ``30m``, ``1h30m``, ``45s`` or ``2d``: units once each, largest first.

    Raises ValueError with what to write instead.
    """
    match = re.fullmatch(_PATTERN, text, re.ASCII)
    if match is None or not text:
        hint = f"; did you mean {text}m or {text}s?" if text.isascii() and text.isdigit() else ""
        raise ValueError(f"{text[:64]!r} is no duration{hint or ', write 30m, 1h30m, 45s or 2d'}")
    seconds = sum(
        int(number) * unit for number, unit in zip(match.groups("0"), _UNITS, strict=True)
    )
    if not seconds:
        raise ValueError(f"{text!r} is no time at all, write 30m, 1h30m, 45s or 2d")
    return seconds


def exact(seconds: float) -> str:
    """As ``parse_duration`` reads it: 5400 -> ``1h30m``."""
    left = round(seconds)
    parts: list[str] = []
    for unit, name in zip(_UNITS, "dhms", strict=True):
        number, left = divmod(left, unit)
        if number:
            parts.append(f"{number}{name}")
    return "".join(parts) or "0s"


def rough(seconds: float) -> str:
    """Two figures at most, as kubectl shows ages.

    Source: k8s.io/apimachinery/pkg/util/duration/duration.go, HumanDuration.
    """
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3_600, whole // 86_400
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    return _two(days, "d", hours % 24, "h") if days < 8 else f"{days}d"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"
