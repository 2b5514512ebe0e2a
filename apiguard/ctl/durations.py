"""Durations as operators write them; ``ages`` has them as tables show them."""

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
