"""What an incident has shown: on the terminal, as JSON, as one HTML file with charts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

from loadtests.bench.environment import describe

from .figures import STORM, WRITES, Figures, burden, fine, p99, per_second
from .incident import Claim, Incident, Pair
from .plots import Chart, Line, svg
from .stage import Run

_ROWS = (
    ("lease P99, quiet", "lease_quiet", "s"),
    ("lease P99, in trouble", "lease_trouble", "s"),
    ("lease P99, afterwards", "lease_after", "s"),
    ("write P99, quiet", "write_quiet", "s"),
    ("write P99, in trouble", "write_trouble", "s"),
    ("protected operations that failed", "failed", ""),
    ("... that never ended", "unfinished", ""),
    ("... that met a refusal", "refused", ""),
    ("API server CPU in trouble", "cores", "cores"),
    ("API server collapses", "collapses", ""),
    ("offender's requests answered", "storm_admitted", ""),
    ("offender's requests refused", "storm_refused", ""),
    ("time to contain", "contained", "s"),
    ("time to recover", "recovered", "s"),
    ("guard's memory at most", "guard_mib", "MiB"),
    ("guard's CPU in trouble", "guard_cores", "cores"),
)
_GUARDS = frozenset({"guard_mib", "guard_cores"})


@dataclass(frozen=True, slots=True)
class Result:
    """One incident, played."""

    incident: Incident
    pair: Pair
    claims: Sequence[Claim]
    server: str

    @property
    def held(self) -> bool:
        return all(claim.holds for claim in self.claims)


def lines(result: Result) -> list[str]:
    """For the terminal."""
    incident, pair = result.incident, result.pair
    load = "modelled" if pair.without.run.model else "measured"
    out = [f"{incident.name}: {incident.title} ({result.server} API server, load {load})"]
    out.append(f"  contained by: {incident.contains}")
    if incident.limits:
        out.append(f"  not contained: {incident.limits}")
    out.append(f"  {'':36}{'without':>14}{'with guard':>14}")
    for name, key, unit in _ROWS:
        before = "" if key in _GUARDS else _shown(getattr(pair.without.figures, key), unit)
        out.append(f"  {name:36}{before:>14}{_shown(getattr(pair.guarded.figures, key), unit):>14}")
    for typed in pair.guarded.run.typed:
        took = typed.done - typed.begun
        out.append(f"  operator: $ {typed.command}   ({took:.2f} s, exit {typed.code})")
    for claim in result.claims:
        verdict = "holds " if claim.holds else "MISSED"
        out.append(f"  {verdict} {claim.text}: {claim.found}")
    return out


def write(results: Sequence[Result], folder: Path) -> tuple[Path, Path]:
    """``report.html`` and ``report.json``; returns both."""
    folder.mkdir(parents=True, exist_ok=True)
    page, data = folder / "report.html", folder / "report.json"
    page.write_text(html(results))
    data.write_text(json.dumps([document(result) for result in results], indent=1))
    return page, data


def document(result: Result) -> dict[str, Any]:
    """Everything stated, as JSON; NaN becomes null."""
    pair = result.pair
    return {
        "incident": result.incident.name,
        "title": result.incident.title,
        "server": result.server,
        "environment": describe(),
        "containedBy": result.incident.contains,
        "notContained": result.incident.limits,
        "without": _plain(pair.without.figures),
        "with": _plain(pair.guarded.figures),
        "claims": [asdict(claim) for claim in result.claims],
        "marks": [asdict(mark) for mark in pair.guarded.run.marks],
        "operator": [asdict(typed) for typed in pair.guarded.run.typed],
    }


def html(results: Sequence[Result]) -> str:
    body = "\n".join(_section(result) for result in results)
    return f"<!doctype html>\n<meta charset=utf-8>\n<title>Incidents</title>\n{_STYLE}\n{body}\n"


def _section(result: Result) -> str:
    incident, pair = result.incident, result.pair
    rows = "".join(
        f"<tr><td>{escape(name)}<td>"
        f"{'' if key in _GUARDS else _shown(getattr(pair.without.figures, key), unit)}"
        f"<td>{_shown(getattr(pair.guarded.figures, key), unit)}"
        for name, key, unit in _ROWS
    )
    claims = "".join(
        f"<li class={'holds' if claim.holds else 'missed'}>"
        f"{'holds' if claim.holds else 'MISSED'}: {escape(claim.text)}: "
        f"<b>{escape(claim.found)}</b>"
        for claim in result.claims
    )
    typed = "".join(
        f"<pre>$ {escape(t.command)}\n{escape(t.output)}</pre>" for t in pair.guarded.run.typed
    )
    limits = f"<p>Not contained: {escape(incident.limits)}." if incident.limits else ""
    marks = "".join(f"<li>{mark.at:.1f} s: {escape(mark.text)}" for mark in pair.guarded.run.marks)
    charts = "\n".join(svg(chart) for chart in charts_of(pair))
    return (
        f"<h2>{escape(incident.name)}: {escape(incident.title)}</h2>"
        f"<p>{escape(pair.guarded.run.scenario.about)} Contained by: {escape(incident.contains)}."
        f"{limits}<ul>{claims}</ul>"
        f"<table><tr><th><th>without<th>with guard{rows}</table>{charts}<ul>{marks}</ul>{typed}"
    )


def charts_of(pair: Pair) -> list[Chart]:
    """Leases and writes, the API server's load, the offender's requests."""
    seconds = pair.guarded.run.scenario.seconds
    trouble = pair.guarded.run.scenario.trouble
    shaded = (trouble.begin, trouble.end) if trouble else None
    marks = [(mark.at, mark.text) for mark in pair.guarded.run.marks]
    both = (("without", pair.without.run), ("with guard", pair.guarded.run))

    def chart(title: str, unit: str, lines: list[Line], *, logarithmic: bool = False) -> Chart:
        return Chart(title, unit, seconds, lines, logarithmic, shaded, marks)

    charts = [
        chart("slowest lease of each second", "s", [_slowest(n, r, {"lease"}) for n, r in both],
              logarithmic=True),
        chart("slowest write of each second", "s", [_slowest(n, r, WRITES) for n, r in both],
              logarithmic=True),
        chart("API server CPU, cores", "", [_load(n, r) for n, r in both]),
        chart("offender's requests answered", "/s", [_storm(n, r) for n, r in both]),
    ]  # fmt: skip
    return [chart for chart in charts if any(line.points for line in chart.lines)]


def _slowest(name: str, run: Run, operations: set[str] | frozenset[str]) -> Line:
    wanted = [s for s in run.samples if s.operation in operations and s.code != -3]
    points = per_second(wanted, lambda found: p99(map(burden, found)), run.scenario.seconds)
    return Line(name, points)


def _load(name: str, run: Run) -> Line:
    """Cores used, over half a second each."""
    points: list[tuple[float, float]] = []
    last = None
    for load in run.loads:
        if load["at"] < 0.0:
            continue
        if last is None:
            last = load
        elif load["at"] - last["at"] >= 0.5:
            used = (load["cpu"] - last["cpu"]) / (load["at"] - last["at"])
            points.append((load["at"], max(0.0, used)))
            last = load
    return Line(name, points)


def _storm(name: str, run: Run) -> Line:
    admitted = [s for s in run.samples if s.operation == STORM and fine(s)]
    return Line(name, per_second(admitted, len, run.scenario.seconds), step=1e9)


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "never"
    if math.isnan(value):
        return "-"
    text = f"{value:.3f}" if unit == "s" else f"{value:.2f}" if unit == "cores" else f"{value:.0f}"
    return f"{text} {unit}".strip()


def _plain(figures: Figures) -> dict[str, Any]:
    found = {one.name: getattr(figures, one.name) for one in fields(figures)}
    return {
        name: None if value is not None and math.isnan(value) else value
        for name, value in found.items()
    }


_STYLE = """<style>
body {font: 15px/1.4 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem}
svg {width: 49%; font-size: 10px} svg line {stroke: #ddd} svg polyline {fill: none;
stroke-width: 1.5} svg .title {font-size: 12px; font-weight: 600} svg .tick {text-anchor: end}
svg .time {text-anchor: middle} svg .trouble {fill: #fdf2e3} svg line.mark {stroke: #555;
stroke-dasharray: 2 3} table {border-collapse: collapse} td, th {padding: .1rem .8rem;
text-align: right} td:first-child {text-align: left} tr {border-bottom: 1px solid #eee}
.holds b {color: #1e8449} .missed {color: #c0392b} pre {background: #f6f6f6; padding: .5rem;
overflow-x: auto}
</style>"""
