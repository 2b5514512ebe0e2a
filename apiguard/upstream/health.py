"""Health by rise and fall: one odd probe neither excludes a server nor brings one back.

    fit ---- FALL failing probes in a row, or one that says it shuts down ---> unfit
    unfit -- RISE passing probes in a row ------------------------------------> fit

A fit server is probed every two seconds, an unfit one every half second, so that one that returns
is used again within the promised two: HAProxy's ``fastinter``, for the way back only. For the way
out haste would exclude servers for a hiccup.
"""

from __future__ import annotations

from dataclasses import dataclass

from apiguard.upstream.readyz import Condition, Finding

RISE = 2
FALL = 3
PROBE_SECONDS = 2.0
RECOVERY_PROBE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What probes say about a server, as the balancer uses it."""

    fit: bool
    condition: Condition
    detail: str = ""


UNPROBED = Verdict(True, Condition.UNJUDGED, "not probed yet")
"""Before the first probe a server is tried: a guard that starts must not refuse meanwhile."""


class Health:
    """The run of probes of one server."""

    __slots__ = ("_run", "probes", "verdict")

    def __init__(self) -> None:
        self.verdict = UNPROBED
        self.probes = 0
        self._run = 0

    @property
    def interval(self) -> float:
        """Seconds until the next probe."""
        return PROBE_SECONDS if self.verdict.fit else RECOVERY_PROBE_SECONDS

    def probed(self, finding: Finding) -> bool:
        """Takes a finding; True when it changed whether the server is fit."""
        fit = self.verdict.fit
        passes = finding.condition.passes
        self.probes += 1
        self._run = 0 if passes is fit else self._run + 1
        needed = FALL if fit else RISE
        if finding.condition is Condition.LEAVING or self.probes == 1:
            needed = 1  # its own word, or the first: no history outweighs it
        changes = self._run >= needed
        if changes:
            fit = not fit
            self._run = 0
        self.verdict = Verdict(fit, finding.condition, finding.detail)
        return changes
