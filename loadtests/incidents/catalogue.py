"""The incidents, by the names of the field notes they come from, and the day nothing happens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadtests.clients.recording import BROKEN, LATE, UNFINISHED
from loadtests.scenario import Scenario, Trouble

from .figures import MIB, fine, noted, of, p99, spans
from .incident import BOUNDS, LEASES_AND_WRITES, MODEL, Claim, Incident, Played
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


def _leases_suffer(played: Played) -> Sequence[Claim]:
    quiet = max(played.figures.lease_quiet, FLOOR)
    trouble = played.figures.lease_trouble
    text = f"without the guard lease P99 is over {FAR:g} times its quiet value"
    return [Claim(text, f"{trouble:.3f} s after {quiet:.3f} s", trouble > FAR * quiet)]


def _leases_live(played: Played) -> Claim:
    found = (played.figures.lease_trouble, played.figures.lease_after)
    worst = max((value for value in found if not math.isnan(value)), default=math.nan)
    return _within("with the guard lease P99", worst, SECOND * played.headroom)


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


def _ban_acts(played: Played) -> Claim:
    """The last request that was sent after the ban was typed and still admitted."""
    banned = played.run.facts.get("banned", math.nan)
    admitted = [s.sent for s in of(played.run, "storm") if fine(s) and s.sent > banned]
    took = max(admitted, default=banned) - banned
    what = "from typing a ban to the last request it let through"
    bound = QUICK * played.headroom
    return Claim(f"{what} it takes at most {bound:g} s", f"{took:.3f} s", took <= bound)


def _leases_live_and_bans_act(played: Played) -> Sequence[Claim]:
    return [_leases_live(played), _ban_acts(played)]


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


# -- S3: kubelets restart while answers are slow


def _s3_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    half = (trouble.begin + trouble.end) / 2
    return [
        Step(trouble.begin, "upstream is five times slower; all kubelets restart", _slow(5.0)),
        Step(half, "upstream is as fast as before", _order("normal")),
    ]


def _s3_harms(played: Played) -> Sequence[Claim]:
    late = sum(s.code == LATE for s in of(played.run, "list", KUBELETS))
    return [Claim("without the guard lists are given up after 10 s", f"{late} were", late > 0)]


def _s3_relieves(played: Played) -> Sequence[Claim]:
    worst = max((s.seconds for s in of(played.run, "sync", KUBELETS)), default=math.nan)
    lost = [s for s in of(played.run, "sync", KUBELETS) if not fine(s)]
    found = f"{len(lost)} are not; the last took {worst:.1f} s"
    return [
        Claim("with the guard every kubelet is in step again, by itself", found, not lost),
        _leases_live(played),
    ]


KUBELETS = "restarting"


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


def _s4_harms(played: Played) -> Sequence[Claim]:
    number = _relists(played)
    return [Claim("without the guard informers relist", f"{number} did", number > 0)]


def _s4_relieves(played: Played) -> Sequence[Claim]:
    return [
        _none("informer relists behind the relay", _relists(played)),
        _none("list comes back empty", len(noted(played.run, "emptied"))),
    ]


def _relists(played: Played) -> int:
    """Of informers, since trouble began."""
    _, trouble, _ = spans(played.run)
    return len(noted(played.run, "relist", "informers", trouble.begin))


# -- S5: informers of big secrets


def _s5_harms(played: Played) -> Sequence[Claim]:
    found = played.figures.collapses
    text = "without the guard the API server runs out of memory"
    return [Claim(text, f"{found} times", found > 0)]


def _s5_relieves(played: Played) -> Sequence[Claim]:
    unserved = [s for s in of(played.run, "sync", "informers") if not fine(s)]
    growth = played.figures.guard_mib - _resident_before(played.run)
    held = played.run.scenario.cluster
    mib = held.secrets * held.secretBytes / MIB
    return [
        _none("collapse with the relay", played.figures.collapses),
        Claim("every informer is served", f"{len(unserved)} are not", not unserved),
        # Stored, built, compressed, and under way once.
        _within("growth of the guard's memory", growth, 64 + 6 * mib, "MiB"),
        _leases_live(played),
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


def _s7_harms(played: Played) -> Sequence[Claim]:
    found = played.figures
    return [
        Claim(
            "without the guard writes suffer from the fan-out",
            f"P99 {found.write_trouble:.3f} s after {found.write_quiet:.3f} s",
            found.write_trouble > 2 * max(found.write_quiet, FLOOR),
        )
    ]


def _s7_relieves(played: Played) -> Sequence[Claim]:
    quiet, trouble, _ = spans(played.run)
    delivered = noted(played.run, "delivery", "informers", trouble.begin)
    ended = noted(played.run, "watch ended", "informers", quiet.end)
    latency = p99(s.seconds for s in delivered)
    bound = SECOND * played.headroom
    return [
        _within("with the relay write P99", played.figures.write_trouble, bound),
        _within("delivery P99 to healthy watchers", latency, bound),
        _none("watch of a healthy client is ended", len(ended)),
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


def _s9_harms(played: Played) -> Sequence[Claim]:
    lists, agents = _lists_in_trouble(played), played.run.scenario.clients[0].count
    text = "without the guard every agent costs upstream a LIST"
    return [Claim(text, f"{lists} LISTs for {agents} agents", lists >= agents)]


def _s9_relieves(played: Played) -> Sequence[Claim]:
    unserved = [s for s in of(played.run, "sync", "agents") if not fine(s)]
    lists, asked = _lists_in_trouble(played), len(of(played.run, "list", "agents"))
    return [
        # Nobody else in this scenario lists.
        Claim("behind the relay they cost upstream one LIST", f"{lists} for {asked}", lists <= 1),
        Claim("every agent is served", f"{len(unserved)} are not", not unserved),
        _leases_live(played),
    ]


def _lists_in_trouble(played: Played) -> int:
    """LISTs the embedded server has counted since trouble began."""
    _, trouble, _ = spans(played.run)
    counts = [load["lists"] for load in played.run.loads if load["at"] >= trouble.begin - 0.2]
    return int(counts[-1] - counts[0]) if counts else 0


# -- S11: the control plane is gone


def _s11_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    down = trouble.end - trouble.begin
    return [
        Step(trouble.begin, f"upstream is gone for {down:g} s", _order("restart", down=down)),
        Step(trouble.end, "upstream is back", _nothing),
    ]


def _s11_harms(played: Played) -> Sequence[Claim]:
    poor, reads = _poor_reads(played)
    return [Claim("without the guard reads fail or hang", f"{poor} of {reads} did", poor > 0)]


def _s11_relieves(played: Played) -> Sequence[Claim]:
    poor, reads = _poor_reads(played)
    return [
        Claim("behind the relay reads go on", f"{poor} of {reads} did not", reads > 0 == poor),
        _none("list comes back empty", len(noted(played.run, "emptied"))),
        _none("informer relists", _relists(played)),
    ]


def _poor_reads(played: Played) -> tuple[int, int]:
    """Reads sent while upstream was gone that failed or took long, and how many there were."""
    _, trouble, _ = spans(played.run)
    bound = SECOND * played.headroom
    reads = [s for s in of(played.run, "read", "readers") if trouble.holds(s)]
    poor = [s for s in reads if s.seconds > bound or not (fine(s) or s.code == UNFINISHED)]
    return len(poor), len(reads)


# -- nothing happens


def _quiet_steps(scenario: Scenario) -> Sequence[Step]:
    trouble = _trouble(scenario)
    return [
        Step(trouble.begin, "kubelets are upgraded, one after the other", _upgrade),
        Step((trouble.begin + trouble.end) / 2, "the guard restarts", _restart, guard_only=True),
    ]


def _upgrade(stage: Stage) -> None:
    """The scenario's own clients do it."""
    if stage.run.guarded:
        stage.run.started = stage.guard.metrics()


def _restart(stage: Stage) -> None:
    # A new guard counts from nought; what the old one has seen is the healthy mix itself.
    stage.run.before = stage.guard.metrics()
    stage.run.facts["left"] = time.monotonic() - stage.origin
    stage.guard.restart()
    stage.run.facts["back"] = time.monotonic() - stage.origin
    stage.mark("the guard is back")


def _quiet_relieves(played: Played) -> Sequence[Claim]:
    run = played.run
    refused = sum(s.refusals for s in run.samples)
    wait = WAIT * played.headroom
    # A watch opens a connection upstream. Where all come together, as they start or come back, that
    # takes its time on two cores that also are the clients and the API server.
    starting = slow_ones(run.started, "apiguard_queue_duration_seconds", wait)
    queued = slow_ones(run.before, "apiguard_queue_duration_seconds", wait) - starting
    inside = slow_ones(run.before, "apiguard_guard_duration_seconds", wait)
    returning = slow_ones(run.metrics, "apiguard_queue_duration_seconds", wait)
    left, back = run.facts.get("left", math.inf), run.facts.get("back", math.inf)
    failed = [s for s in run.samples if s.code in (BROKEN, LATE) or s.code >= 500]
    # Of a lone guard nobody listens while it restarts, and a write that met that is not repeated.
    away = [s for s in failed if left <= s.sent + s.seconds and s.sent <= back]
    return [
        _none("request is refused", refused),
        Claim(
            f"no request waits over {wait * 1000:g} ms for its turn",
            f"{queued} for a connection, {inside} within the guard; {starting} for a connection as "
            f"all clients started within seconds, {returning} as all came back after its restart",
            queued == inside == 0,
        ),
        _none("operation fails while there is a guard", len(failed) - len(away)),
        Claim(
            "a lone guard's restart is over before a lease is due again",
            f"nobody listened for {back - left:.1f} s, {len(away)} operations failed meanwhile",
            back - left < 10.0 * played.headroom,
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


def _nothing_shows(played: Played) -> Sequence[Claim]:
    """Without the guard, on a day when nothing happens."""
    return []


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
            _leases_suffer,
            _leases_live_and_bans_act,
        ),
        Incident(
            "S3",
            "kubelets restart while answers are slow, and relist for ever",
            "the ceiling of requests per API server: few are served in time instead of none",
            LEASES_AND_WRITES,
            _s3_steps,
            _s3_harms,
            _s3_relieves,
            limits=(
                "kubelets from 1.35 on start with watch-lists, which give up after no time: they "
                "wait at the ceiling, too, but only a relay of what they follow spares upstream"
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
            _s4_harms,
            _s4_relieves,
            limits=(
                "who follows a whole cluster starts over where objects were deleted meanwhile, "
                "from the relay's memory; one modelled server restarts three times, not three "
                "in turn"
            ),
            settings=_relay(("", "v1", "pods"), ("", "v1", "configmaps")),
        ),
        Incident(
            "S5",
            "informers of big secrets start together",
            "a relay of secrets: one list upstream, one body for all",
            LEASES_AND_WRITES,
            _no_steps,
            _s5_harms,
            _s5_relieves,
            settings=_relay(("", "v1", "secrets")),
        ),
        Incident(
            "S7",
            "a burst of changes for many watchers, some of which hang",
            "a relay of what changes: upstream writes each event once",
            LEASES_AND_WRITES,
            _s7_steps,
            _s7_harms,
            _s7_relieves,
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
            _leases_suffer,
            _leases_live_and_bans_act,
            # Ten times as dear: 2,000 requests a second of the field are 200 here.
            capacity={**MODEL, "per_request": 0.005},
        ),
        Incident(
            "S9",
            "an agent restarts on all nodes and lists its own resource",
            "a relay of that resource: one list upstream",
            LEASES_AND_WRITES,
            _no_steps,
            _s9_harms,
            _s9_relieves,
            settings=_relay((CUSTOM_GROUP, "v1", "*")),
            real=False,
        ),
        Incident(
            "S11",
            "the control plane is gone for a while",
            "a relay of what is read: reads and watches go on from what it holds",
            {"read": 1.0},
            _s11_steps,
            _s11_harms,
            _s11_relieves,
            limits="writes, leases among them, fail with or without a guard",
            settings=_relay(("", "v1", "pods"), ("", "v1", "configmaps")),
        ),
        Incident(
            "no-harm",
            "nothing happens, but upgrades and restarts",
            "nothing is to be contained",
            {**LEASES_AND_WRITES, "kubectl": 5.0},
            _quiet_steps,
            _nothing_shows,
            _quiet_relieves,
            # A drain is for several guards, of which others take over. Alone, a short one is
            # better: it does not listen meanwhile.
            settings={"bounds": {"requestsPerUpstream": 500, "drainSeconds": 2}},
            capacity={**MODEL, "max_inflight": 600.0},
        ),
    )
}
NO_HARM = "no-harm"
