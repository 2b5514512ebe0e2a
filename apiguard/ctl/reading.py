"""Reads answers that another version of the guard may have written: what is missing is empty."""

from __future__ import annotations

import time

from apiguard.ages import rough
from apiguard.ctl import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def pick(value: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of mappings, ``default`` where there is none or null."""
    for key in path.split("."):
        if not isinstance(value, dict):
            return default
        value = value.get(key)
    return default if value is None else value


def items(value: Any, path: str) -> list[Mapping[str, Any]]:
    """The mappings in the list at a dotted path."""
    found = pick(value, path, [])
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def text(value: Any, path: str) -> str:
    """A value as one cell: "" for none, lists with commas, truth as yes and no."""
    return _text(pick(value, path))


def _text(found: Any) -> str:
    if found is None:
        return ""
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, list | tuple):
        return ",".join(_text(item) for item in found)
    if isinstance(found, dict):
        return " ".join(f"{key}={_text(item)}" for key, item in found.items())
    return f"{found:g}" if isinstance(found, float) else str(found)


def number(value: Any, path: str) -> float:
    """A number, 0 where there is none."""
    found = pick(value, path, 0)
    return found if isinstance(found, int | float) else 0


def count(value: Any, path: str) -> str:
    """A whole number as a cell, rounded."""
    return f"{round(number(value, path))}"


def size(value: Any, path: str) -> str:
    """Bytes in binary units, three figures: ``1.5Mi``."""
    left = float(number(value, path))
    for unit in ("", "Ki", "Mi", "Gi"):
        if left < 1_000:
            return f"{left:.0f}{unit}" if left >= 10 or not unit else f"{left:.1f}{unit}"
        left /= 1_024
    return f"{left:.1f}Ti"


def share(value: Any, path: str) -> str:
    """A part of one as per cent: ``31%``, ``<1%``."""
    part = float(number(value, path))
    return "<1%" if 0 < part < 0.01 else f"{part:.0%}"


def seconds(value: Any, path: str) -> str:
    """A measured time: ``0.3s``, then as ages are shown."""
    found = float(number(value, path))
    return f"{found:.1f}s" if found < 10 else rough(found)


def moment(stamp: Any) -> float | None:
    """Unix seconds of an RFC 3339 time, None when it is none."""
    if not isinstance(stamp, str):
        return None
    from datetime import datetime

    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None


def age(value: Any, path: str) -> str:
    """Time since an instant, "" when there is none."""
    at = moment(pick(value, path))
    return "" if at is None else rough(max(0.0, time.time() - at))


def clock(value: Any, path: str) -> str:
    """An instant as local time of day."""
    at = moment(pick(value, path))
    return "" if at is None else time.strftime("%H:%M:%S", time.localtime(at))
