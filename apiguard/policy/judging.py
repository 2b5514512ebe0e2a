"""Whether a flow's limits refuse a request or only count that they would.

That depends on the flow's mode and on what the guard as a whole does, and where two flows apply
to one request (see ``Policy.match``) on each of the two by itself. Limits that refuse are asked
first, together; those that only count are asked when the request goes on, so that a refused
request is charged to none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiguard.limiter.flow import Flow, Mode
from apiguard.limiter.limiter import ADMITTED, Limiter, Peek, Permit, Shed
from apiguard.limiter.staging import Stage

from .config import Enforcement

if TYPE_CHECKING:
    from apiguard.kube.identity import Caller
    from apiguard.kube.requestinfo import RequestInfo

_SPLITS = 8_192  # joint flows remembered between policy changes

# What of a flow refuses, and what only counts; None where that is nothing.
Split = tuple[Flow | None, Flow | None]


class Judge:
    """Applies flows of any mode under one ``enforcement``, which is not OFF when it is asked to
    charge.

    The gateway asks here for all but the usual mode, ENFORCE, which it decides by itself.
    """

    __slots__ = ("_limiter", "_splits", "_stages", "enforcement")

    def __init__(self, limiter: Limiter, enforcement: Enforcement) -> None:
        self._limiter = limiter
        self.enforcement = enforcement
        self._stages: dict[Flow, Stage] = {}
        self._splits: dict[tuple[Flow, tuple[bool, ...]], Split] = {}

    def forget(self) -> None:
        """Drop what is remembered of a policy's flows; to be called when the policy changes."""
        self._stages.clear()
        self._splits.clear()

    def judge(
        self, flow: Flow, info: RequestInfo, caller: Caller, now: float
    ) -> tuple[Permit | Shed, bool]:
        """Charge one request. The second value: whether limits that only count would refuse it."""
        refusing, counting = self.split(flow, info, caller)
        if refusing is not None:
            verdict = self._limiter.acquire(refusing, info, caller, now)
            if isinstance(verdict, Shed):
                return verdict, False
        if counting is not None:
            return ADMITTED, self._limiter.would_refuse(counting, info, caller, now)
        return ADMITTED, False

    def peek(self, flow: Flow, info: RequestInfo, caller: Caller, now: float) -> tuple[Peek, bool]:
        """What ``judge`` would answer, charging nothing, with every bucket of the flow.

        The second value says of a Shed what it does there, otherwise whether all limits refuse.
        """
        whole = self._limiter.peek(flow, info, caller, now)
        refusing, counting = self.split(flow, info, caller)
        if refusing is None or counting is None:
            return whole, counting is None
        first = self._limiter.peek(refusing, info, caller, now).verdict
        if isinstance(first, Shed):
            return Peek(first, whole.buckets), True
        return whole, False

    def enforces(self, flow: Flow, info: RequestInfo, caller: Caller) -> bool:
        """Whether ``flow``, which has no parts, refuses what is over its limits here."""
        mode = flow.mode
        if mode is Mode.ALWAYS:
            return self.enforcement is not Enforcement.OFF
        if mode is Mode.SHADOW or self.enforcement is not Enforcement.ENFORCE:
            return False
        return mode is Mode.ENFORCE or self._chosen(flow, info, caller)

    def _chosen(self, flow: Flow, info: RequestInfo, caller: Caller) -> bool:
        stage = self._stages.get(flow)
        if stage is None:
            stage = self._stages[flow] = Stage(flow)
        return stage.chosen(info, caller)

    def split(self, flow: Flow, info: RequestInfo, caller: Caller) -> Split:
        """What of ``flow`` refuses here, and what only counts."""
        if not flow.parts:
            return (flow, None) if self.enforces(flow, info, caller) else (None, flow)
        enforced = tuple([self.enforces(part, info, caller) for part in flow.parts])
        split = self._splits.get((flow, enforced))
        if split is None:
            if len(self._splits) >= _SPLITS:
                self._splits.clear()
            split = self._splits[flow, enforced] = (
                _together(flow, enforced, True),
                _together(flow, enforced, False),
            )
        return split


def _together(flow: Flow, enforced: tuple[bool, ...], wanted: bool) -> Flow | None:
    """The parts of ``flow`` that are enforced, or not, as one flow: one object per answer, since
    the limiter knows flows by identity."""
    parts = [
        part
        for part, is_enforced in zip(flow.parts, enforced, strict=True)
        if is_enforced is wanted
    ]
    if len(parts) == len(flow.parts):
        return flow
    limits = tuple([limit for part in parts for limit in part.limits])
    return Flow(flow.name, limits) if parts else None
