"""Spans of time as kubectl shows ages.

Source: k8s.io/apimachinery/pkg/util/duration/duration.go, HumanDuration.
"""

from __future__ import annotations


def rough(seconds: float) -> str:
    """Two figures at most: ``45s``, ``4m10s``, ``3h30m``, ``12d``; less than none is ``0s``."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3_600, whole // 86_400
    if minutes < 10:
        return two_units(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return two_units(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    return two_units(days, "d", hours % 24, "h") if days < 8 else f"{days}d"


def two_units(large: int, large_unit: str, small: int, small_unit: str) -> str:
    """``3h30m``, and ``3h`` without a second part."""
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"
