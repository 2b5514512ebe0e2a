"""The incidents, by the names of the field notes they come from, and the day nothing happens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadtests.clients.recording import BROKEN, LATE, UNFINISHED
from loadtests.scenario import Scenario, Trouble

from .figures import MIB, fine, noted, of, p99, spans
from .incident import BOUNDS, LEASES_AND_WRITES, MODEL, Claim, Incident, Pair
from .server import CUSTOM_GROUP
from .stage import Run, Stage, Step

FAR = 5.0  # times the quiet value: what "far over" means
SECOND = 1.0
QUICK = 1.0  # seconds within which a ban must be in force
FLOOR = 0.05  # seconds: below it, a machine's noise is larger than any difference


def _trouble(scenario: Scenario) -> Trouble:
    assert scenario.trouble is not None
    return scenario.trouble


def _within(what: str, found: float, bound: float, unit: str = "s") -> Claim:
    text = f"{what} is at most {bound:g} {unit}"
    return Claim(text, f"{found:.3f} {unit}", found <= bound)


def _none(what: str, number: int) -> Claim:
    return Claim(f"no {what}", str(number), number == 0)


def _hurts(pair: Pair) -> Claim:
    """Without the guard it is an incident at all."""
    quiet = max(pair.before.lease_quiet, FLOOR)
    trouble = pair.before.lease_trouble
    text = f"without the guard lease P99 is over {FAR:g} times its quiet value"
    return Claim(text, f"{trouble:.3f} s after {quiet:.3f} s", trouble > FAR * quiet)


def _leases_live(pair: Pair) -> Claim:
    found = (pair.after.lease_trouble, pair.after.lease_after)
    worst = max((value for value in found if not math.isnan(value)), default=math.nan)
    return _within("with the guard lease P99", worst, SECOND * pair.headroom)


# -- the operator


def _look_and_ban(agent: str, *more: str) -> Callable[[Stage], None]:
    """Finds who it is, and bans it."""

    def act(stage: Stage) -> None:
        operator = stage.operator()
        operator.type("top", "--over", "10s", "--sort", "upstreamSeconds", "--limit", "3")
        banned = operator.type(
            "ban", "--user-agent", f"{agent}/*", *more, "--for", "10m", "--reason", "INC-1"
        )
        stage.mark("the ban is in force")
        stage.run.facts["banned"] = banned.begun - stage.origin
        stage.run.facts["ban command"] = banned.done - banned.begun

    return act


def _ban_claim(pair: Pair) -> Claim:
    """The last request that was sent after the ban was typed and still admitted."""
    banned = pair.guarded.facts.get("banned", math.nan)
    admitted = [s.sent for s in of(pair.guarded, "storm") if fine(s) and s.sent > banned]
    took = max(admitted, default=banned) - banned
    what = "from typing a ban to the last request it let through"
    return Claim(
        f"{what} it takes at most {QUICK * pair.headroom:g} s",
        f"{took:.3f} s",
        took <= QUICK * pair.headroom,
    )


# -- S1: a telemetry agent is rolled out


def _s1_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    at = trouble.begin + 0.6 * (trouble.end - trouble.begin)
    ban = _look_and_ban("telemetry-agent")
    return [
        Step(trouble.begin, "the agent's rollout begins", _nothing),
        Step(at, "the operator looks, and bans the agent", ban, guard_only=True),
        Step(trouble.end, "the agent is gone", _nothing),
    ]


def _s1_claims(pair: Pair) -> Sequence[Claim]:
    return [_hurts(pair), _leases_live(pair), _ban_claim(pair)]


# -- S3: kubelets restart while answers are slow


def _s3_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    half = (trouble.begin + trouble.end) / 2
    return [
        Step(trouble.begin, "upstream is five times slower; all kubelets restart", _slow(5.0)),
        Step(half, "upstream is as fast as before", _order("normal")),
    ]


def _s3_claims(pair: Pair) -> Sequence[Claim]:
    worst = max((s.seconds for s in of(pair.guarded, "sync", KUBELETS)), default=math.nan)
    lost = [s for s in of(pair.guarded, "sync", KUBELETS) if not fine(s)]
    before, after = _late_lists(pair.without), _late_lists(pair.guarded)
    return [
        Claim("without the guard lists are given up after 10 s", f"{before} were", before > 0),
        Claim("with the guard a fifth of that at most", f"{after} were", 5 * after <= before),
        Claim(
            "with the guard every kubelet is in step again, by itself",
            f"{len(lost)} are not; the last took {worst:.1f} s",
            not lost,
        ),
        _leases_live(pair),
    ]


KUBELETS = "restarting"


def _late_lists(run: Run) -> int:
    return sum(s.code == LATE for s in of(run, "list", KUBELETS))


# -- S4: API servers are upgraded


def _s4_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    third = (trouble.end - trouble.begin) / 3
    down = min(1.0, third / 3)
    return [
        Step(
            trouble.begin + n * third,
            f"restart {n + 1}: history is gone",
            _order("restart", down=down),
        )
        for n in range(3)
    ]


def _s4_claims(pair: Pair) -> Sequence[Claim]:
    quiet, *_ = spans(pair.guarded)
    relisted = len(noted(pair.without, "relist", "informers", quiet.end))
    still = len(noted(pair.guarded, "relist", "informers", quiet.end))
    return [
        Claim("without the guard informers relist", f"{relisted} did", relisted > 0),
        _none("informer relists behind the relay", still),
        _none("list comes back empty", len(noted(pair.guarded, "emptied"))),
    ]


# -- S5: informers of big secrets


def _s5_claims(pair: Pair) -> Sequence[Claim]:
    unserved = [s for s in of(pair.guarded, "sync", "informers") if not fine(s)]
    growth = pair.after.guard_mib - _resident_before(pair.guarded)
    held = pair.guarded.scenario.cluster
    mib = held.secrets * held.secretBytes / MIB
    return [
        Claim(
            "without the guard the API server runs out of memory",
            f"{pair.before.collapses} times",
            pair.before.collapses > 0,
        ),
        _none("collapse with the relay", pair.after.collapses),
        Claim("every informer is served", f"{len(unserved)} are not", not unserved),
        # Stored, built, compressed, and under way once.
        _within("the guard's memory grows by as much as", growth, 64 + 6 * mib, "MiB"),
        _leases_live(pair),
    ]


def _resident_before(run: Run) -> float:
    quiet, *_ = spans(run)
    return max((u.resident for u in run.usage if u.at < quiet.end), default=0) / MIB


# -- S7: a burst of changes for many watchers


def _s7_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    rate = 2.0 * scenario.cluster.stamped
    return [
        Step(0.5 * trouble.begin, "a few changes", _order("stamp", rate=rate / 10)),
        Step(trouble.begin, f"{rate:g} changes a second", _order("stamp", rate=rate)),
        Step(trouble.end, "calm again", _order("stamp", rate=0.0)),
    ]


def _s7_claims(pair: Pair) -> Sequence[Claim]:
    quiet, trouble, _ = spans(pair.guarded)
    delivered = noted(pair.guarded, "delivery", "informers", trouble.begin)
    cut = noted(pair.guarded, "watch ended", "informers", quiet.end)
    return [
        Claim(
            "without the guard writes suffer from the fan-out",
            f"P99 {pair.before.write_trouble:.3f} s after {pair.before.write_quiet:.3f} s",
            pair.before.write_trouble > 2 * max(pair.before.write_quiet, FLOOR),
        ),
        _within("with the relay write P99", pair.after.write_trouble, SECOND * pair.headroom),
        _within(
            "delivery P99 to healthy watchers",
            p99(s.seconds for s in delivered),
            SECOND * pair.headroom,
        ),
        _none("watch of a healthy client is ended", len(cut)),
    ]


# -- S8: a client with a bug


def _s8_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    at = trouble.begin + 0.6 * (trouble.end - trouble.begin)
    return [
        Step(trouble.begin, "the client's bug begins", _nothing),
        Step(
            at, "the operator looks, and bans it", _look_and_ban("buggy-operator"), guard_only=True
        ),
        Step(trouble.end, "the client is gone", _nothing),
    ]


# -- S9: an agent restarts on all nodes


def _s9_claims(pair: Pair) -> Sequence[Claim]:
    quiet, *_ = spans(pair.guarded)
    unserved = [s for s in of(pair.guarded, "sync", "agents") if not fine(s)]
    sent = len(of(pair.guarded, "list", "agents"))
    return [
        Claim(
            "without the guard every agent costs upstream a LIST",
            f"{_upstream_lists(pair.without, quiet.end)} LISTs",
            _upstream_lists(pair.without, quiet.end) >= pair.without.scenario.clients[0].count,
        ),
        # Ordinary clients list as well: kubectl does, and controllers that start.
        Claim(
            "behind the relay their LISTs cost upstream one",
            f"{_upstream_lists(pair.guarded, quiet.end)} for {sent}, others' included",
            _upstream_lists(pair.guarded, quiet.end) <= 1 + _others(pair.guarded),
        ),
        Claim("every agent is served", f"{len(unserved)} are not", not unserved),
        _leases_live(pair),
    ]


def _upstream_lists(run: Run, since: float) -> int:
    """LISTs the embedded server has counted from then on."""
    counts = [load["lists"] for load in run.loads if load["at"] >= since and "lists" in load]
    return int(counts[-1] - counts[0]) if counts else 0


def _others(run: Run) -> int:
    """LISTs by others than the agents, with one of relaying and one to look again."""
    kubectl = of(run, "kubectl")
    return len(kubectl) + len([s for s in of(run, "list") if s.group != "agents"])


# -- S11: the control plane is gone


def _s11_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    down = trouble.end - trouble.begin
    return [
        Step(trouble.begin, f"upstream is gone for {down:g} s", _order("restart", down=down)),
        Step(trouble.end, "upstream is back", _nothing),
    ]


def _s11_claims(pair: Pair) -> Sequence[Claim]:
    lost, _ = _poor_reads(pair.without, SECOND * pair.headroom)
    poor, reads = _poor_reads(pair.guarded, SECOND * pair.headroom)
    _, trouble, _ = spans(pair.guarded)
    relists = noted(pair.guarded, "relist", "informers", trouble.begin)
    return [
        Claim("without the guard reads fail or hang", f"{lost} did", lost > 0),
        Claim("behind the relay reads go on", f"{poor} of {reads} did not", reads > 0 == poor),
        _none("list comes back empty", len(noted(pair.guarded, "emptied"))),
        _none("informer relists", len(relists)),
    ]


def _poor_reads(run: Run, bound: float) -> tuple[int, int]:
    """Reads sent while upstream was gone that failed or took long, and how many there were."""
    _, trouble, _ = spans(run)
    reads = [s for s in of(run, "read", "readers") if trouble.holds(s)]
    poor = [s for s in reads if s.seconds > bound or not (fine(s) or s.code == UNFINISHED)]
    return len(poor), len(reads)


# -- nothing happens


def _quiet_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    return [
        Step(trouble.begin, "kubelets are upgraded, one after the other", _nothing),
        Step((trouble.begin + trouble.end) / 2, "the guard restarts", _restart, guard_only=True),
    ]


def _restart(stage: Stage) -> None:
    stage.run.facts["left"] = time.monotonic() - stage.origin
    stage.guard.restart()
    stage.run.facts["back"] = time.monotonic() - stage.origin
    stage.mark("the guard is back")


def _quiet_claims(pair: Pair) -> Sequence[Claim]:
    run = pair.guarded
    refused = sum(s.refusals for s in run.samples)
    queued = slow_ones(run.metrics, "apiguard_queue_duration_seconds", WAIT)
    inside = slow_ones(run.metrics, "apiguard_guard_duration_seconds", WAIT)
    left, back = run.facts.get("left", math.inf), run.facts.get("back", math.inf)
    failed = [s for s in run.samples if s.code in (BROKEN, LATE) or s.code >= 500]
    # Of a lone guard nobody listens while it restarts, and a write that met that is not repeated.
    away = [s for s in failed if left <= s.sent + s.seconds and s.sent <= back]
    return [
        _none("request is refused", refused),
        Claim(
            f"no request waits over {WAIT * 1000:g} ms for its turn",
            f"{queued} in the queue, {inside} in the guard, of the last guard's",
            queued == 0,
        ),
        _none("operation fails while there is a guard", len(failed) - len(away)),
        Claim(
            "a lone guard's restart is over before a lease is due again",
            f"nobody listened for {back - left:.1f} s, {len(away)} operations failed meanwhile",
            back - left < 10.0 * pair.headroom,
        ),
    ]


WAIT = 0.05  # seconds a healthy client may wait because of the guard


def slow_ones(metrics: str, name: str, bound: float) -> int:
    """Observations of a histogram above the last bucket that ends at or below ``bound``."""
    within, total = 0, 0
    best = -1.0
    for line in metrics.splitlines():
        if line.startswith(f"{name}_count"):
            total += int(float(line.rpartition(" ")[2]))
        elif line.startswith(f"{name}_bucket") and (edge := _edge(line)) <= bound:
            number = int(float(line.rpartition(" ")[2]))
            within, best = (number, edge) if edge > best else (within, best)
    return total - within


def _edge(line: str) -> float:
    return float(line.partition('le="')[2].partition('"')[0])


# -- what is ordered


def _nothing(stage: Stage) -> None:
    """The scenario's own clients do it."""


def _order(do: str, **details: Any) -> Callable[[Stage], None]:
    return lambda stage: stage.order(do, **details)


def _slow(factor: float) -> Callable[[Stage], None]:
    return _order("slow", factor=factor)


def _relay(*resources: tuple[str, str, str]) -> Mapping[str, Any]:
    """Settings with a relay of ``(group, version, resource)``."""
    named = [
        {"group": group, "version": version, "resource": resource}
        for group, version, resource in resources
    ]
    reviews = {"reviewsPerSecond": 200}
    return {**BOUNDS, "relay": {"resources": named, "authorization": reviews}}


def _no_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    return [
        Step(trouble.begin, "they start, all at once", _nothing),
        Step(trouble.end, "they are gone", _nothing),
    ]


INCIDENTS: Mapping[str, Incident] = {
    incident.name: incident
    for incident in (
        Incident(
            "S1",
            "a telemetry agent on every node lists all pods",
            "the shipped policy bounds unpaged lists per program; the operator's ban ends them",
            LEASES_AND_WRITES,
            _s1_steps,
            _s1_claims,
        ),
        Incident(
            "S3",
            "kubelets restart while answers are slow, and relist for ever",
            "the ceiling of requests per API server: few are served in time instead of none",
            LEASES_AND_WRITES,
            _s3_steps,
            _s3_claims,
            limits=(
                "kubelets from 1.35 on start with watch-lists, which no ceiling of the guard "
                "counts: they are only relieved by a relay of what they follow"
            ),
            # Fair queues count seats, not seconds: all of these lists are let in.
            capacity={**MODEL, "max_inflight": 600.0},
            real=False,
        ),
        Incident(
            "S4",
            "API servers restart and know no history",
            "a relay of what is followed: it relists once, its watches go on",
            LEASES_AND_WRITES,
            _s4_steps,
            _s4_claims,
            limits="one modelled server restarts three times, instead of three in turn",
            settings=_relay(("", "v1", "pods"), ("", "v1", "configmaps")),
        ),
        Incident(
            "S5",
            "informers of big secrets start together",
            "a relay of secrets: one list upstream, one body for all",
            LEASES_AND_WRITES,
            _no_steps,
            _s5_claims,
            settings=_relay(("", "v1", "secrets")),
        ),
        Incident(
            "S7",
            "a burst of changes for many watchers, some of which hang",
            "a relay of what changes: upstream writes each event once",
            LEASES_AND_WRITES,
            _s7_steps,
            _s7_claims,
            # An event stands for one of 1 MB, 250 times the 4 KB that cost 50 µs to deliver.
            # Taken as 30 times as dear only: upstream, too, encodes once.
            capacity={**MODEL, "per_watch_event": 30 * 50e-6},
            settings=_relay(("", "v1", "configmaps")),
            real=False,
        ),
        Incident(
            "S8",
            "a client with a bug asks without a pause, deaf to Retry-After",
            "the shipped policy's limit per account; the operator's ban ends it",
            LEASES_AND_WRITES,
            _s8_steps,
            lambda pair: [_hurts(pair), _leases_live(pair), _ban_claim(pair)],
            # Ten times as dear: 2,000 requests a second of the field are 200 here.
            capacity={**MODEL, "per_request": 0.005},
        ),
        Incident(
            "S9",
            "an agent restarts on all nodes and lists its own resource",
            "a relay of that resource: one list upstream",
            LEASES_AND_WRITES,
            _no_steps,
            _s9_claims,
            settings=_relay((CUSTOM_GROUP, "v1", "*")),
            real=False,
        ),
        Incident(
            "S11",
            "the control plane is gone for a while",
            "a relay of what is read: reads and watches go on from what it holds",
            {"read": 1.0},
            _s11_steps,
            _s11_claims,
            limits="writes, leases among them, fail with or without a guard",
            settings=_relay(("", "v1", "pods"), ("", "v1", "configmaps")),
        ),
        Incident(
            "no-harm",
            "nothing happens, but upgrades and restarts",
            "nothing is to be contained",
            {**LEASES_AND_WRITES, "kubectl": 5.0},
            _quiet_steps,
            _quiet_claims,
            # A drain is for several guards, of which others take over. Alone, a short one is
            # better: it does not listen meanwhile.
            settings={"bounds": {"requestsPerUpstream": 500, "drainSeconds": 2}},
            capacity={**MODEL, "max_inflight": 600.0},
        ),
    )
}
NO_HARM = "no-harm"
