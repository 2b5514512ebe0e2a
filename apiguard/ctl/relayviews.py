"""Which columns show what of the relay, and what of it an operator should not have to look for."""

from __future__ import annotations

from apiguard.ages import rough
from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.output import Column, View
from apiguard.ctl.reading import count, items, number, pick, size, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from apiguard.ctl.output import Row


def _of(path: str) -> Callable[[Row], str]:
    return lambda row: text(row, path)


def _count(path: str) -> Callable[[Row], str]:
    return lambda row: count(row, path)


def _since(path: str) -> Callable[[Row], str]:
    """ "" where it never happened."""
    return lambda row: "" if pick(row, path) is None else rough(number(row, path))


def _sum(row: Row, path: str) -> float:
    """Of the numbers in a mapping of them."""
    found = pick(row, path, {})
    return sum(number(found, key) for key in found) if isinstance(found, dict) else 0


def _state(row: Row) -> str:
    state, why = text(row, "state"), text(row, "why")
    return f"{state} ({why})" if why else state


def _lag(row: Row) -> str:
    """For how long upstream is lost; while it is heard, when it last said something."""
    lost = number(row, "lag.lostSeconds")
    return rough(lost) if lost else _since("lag.heardSecondsAgo")(row)


def _key(row: Row) -> object:
    return tuple(text(row, name) for name in ("group", "version", "resource", "form"))


RELAY = View(
    lambda answer: items(answer, "caches"),
    (
        Column("RESOURCE", _of("name")),
        Column("FORM", _of("form")),
        Column("STATE", _state),
        Column("OBJECTS", _count("objects")),
        Column("SIZE", lambda row: size(row, "bytes.objects")),
        Column("RV", _of("resourceVersion")),
        Column("LAG", _lag),
        Column("WATCHERS", _count("watchers")),
        Column("HITS", lambda row: f"{_sum(row, 'lists') + number(row, 'watches'):.0f}"),
        Column("BYPASSES", lambda row: f"{_sum(row, 'bypasses'):.0f}"),
        Column("SLOW", _count("slowWatchers"), wide=True),
        Column("WAITING", _count("waiting"), wide=True),
        Column("EVENTS", _count("events"), wide=True),
        Column("STALE-READS", _count("staleReads"), wide=True),
        Column("PROVEN", _since("lag.provenSecondsAgo"), wide=True),
        Column("CHANGED", _since("lag.eventSecondsAgo"), wide=True),
        Column("REBUILDS", _count("rebuilds"), wide=True),
        Column("INDEXES", lambda row: size(row, "bytes.indexes"), wide=True),
        Column("BODIES", lambda row: size(row, "bytes.bodies"), wide=True),
        Column("LOG", lambda row: size(row, "bytes.log"), wide=True),
        Column("WHY-BYPASSED", _of("bypasses"), wide=True),
    ),
    _key,
    "The relay is off: relay.resources in the guard's configuration names none.",
)


def _standing_out(answer: Any, field: str) -> list[Row]:
    return [
        {**one, "form": cache.get("form")}
        for cache in items(answer, "caches")
        for one in items(cache, field)
    ]


def _object(row: Row) -> object:
    return text(row, "object"), text(row, "form")


ELEPHANTS = View(
    lambda answer: _standing_out(answer, "elephants"),
    (
        Column("ELEPHANT", _of("object")),
        Column("FORM", _of("form")),
        Column("SIZE", lambda row: size(row, "bytes")),
    ),
    _object,
    "No objects are held.",
)

HOT_KEYS = View(
    lambda answer: _standing_out(answer, "hotKeys"),
    (
        Column("HOT-KEY", _of("object")),
        Column("FORM", _of("form")),
        Column("CHANGES/MIN", lambda row: f"{number(row, 'changesPerMinute'):.1f}"),
    ),
    _object,
    "Nothing changed in the last minute.",
)


def relay_problems(answer: Any) -> list[str]:
    """What readers suffer from, or soon will."""
    problems = [
        f"{text(cache, 'name')} {text(cache, 'form')}: upstream is not heard"
        f" for {rough(number(cache, 'lag.lostSeconds'))}"
        for cache in items(answer, "caches")
        if number(cache, "lag.lostSeconds") >= 1
    ]
    stretched = number(answer, "reviews.stretchedSeconds")
    if stretched >= 1:
        budget = number(answer, "reviews.budgetPerSecond")
        problems.append(
            f"reviews are {rough(stretched)} late: the budget of {budget:g} a second is spent"
        )
    return problems


def relay_sums(answer: Any) -> list[str]:
    """What became of reads of all resources since the guard began, where no cache answered: most
    that go upstream do so before any is chosen."""
    named = {"went upstream": "bypasses", "refused": "refusals"}
    said = {name: text(answer, field) for name, field in named.items()}
    return [f"{name}: {numbers}" for name, numbers in said.items() if numbers]
