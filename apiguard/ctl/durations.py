"""Durations as operators write them; ``ages`` has them as tables show them."""

from __future__ import annotations

_UNITS = (86_400, 3_600, 60, 1)
_MOST_DIGITS = 9


def parse_duration(text: str) -> int:
    """Seconds of ``30m``, ``1h30m``, ``45s`` or ``2d``: units once each, largest first.

    Raises ValueError with what to write instead.
    """
    seconds, rest = 0, text
    # A regular expression would say the same, and compiling it takes half a per cent of ``status``.
    for unit, name in zip(_UNITS, "dhms", strict=True):
        number, found, behind = rest.partition(name)
        if found and _is_number(number):
            seconds, rest = seconds + int(number) * unit, behind
    if rest or not text:
        hint = f"; did you mean {text}m or {text}s?" if text.isascii() and text.isdigit() else ""
        raise ValueError(f"{text[:64]!r} is no duration{hint or ', write 30m, 1h30m, 45s or 2d'}")
    if not seconds:
        raise ValueError(f"{text!r} is no time at all, write 30m, 1h30m, 45s or 2d")
    return seconds


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def exact(seconds: float) -> str:
    """As ``parse_duration`` reads it: 5400 -> ``1h30m``."""
    left = round(seconds)
    parts: list[str] = []
    for unit, name in zip(_UNITS, "dhms", strict=True):
        number, left = divmod(left, unit)
        if number:
            parts.append(f"{number}{name}")
    return "".join(parts) or "0s"
