"""What was probably meant."""

from __future__ import annotations

from apiguard.ctl import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest of ``known``, or ""."""
    import difflib  # 5 ms that only a mistake pays

    near = difflib.get_close_matches(name, sorted(known), 1, 0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
