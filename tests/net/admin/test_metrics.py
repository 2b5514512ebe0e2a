"""What is exported: Prometheus' conventions, and a bound on series whatever is counted."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from apiguard.admin import exporter
from apiguard.policy.adminconfig import AdminConfig, Role, TokenConfig
from apiguard.policy.relayconfig import RelayConfig, RelayedResource
from apiguard.runtime.fleet import Slot
from apiguard.runtime.relayreport import CacheName, CacheReport, CacheState, Kind, RelayReport
from apiguard.telemetry.counters import DECISIONS, KNOWN_CODES, KNOWN_VERBS, Delta
from tests.net.admin.doors import Admin, bearer, serving, tell
from tests.net.test_supervisor import eventually

RELAY = RelayConfig(resources=(RelayedResource("", "v1", "pods"),))
YAML = {"Content-Type": "application/yaml"}
RULES = 1_000


async def _scrape(admin: Admin) -> str:
    answer = await admin.door.holding(Role.METRICS).ask("GET", "/metrics")
    assert answer.code == 200
    return answer.body.decode()


def _families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def _series(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _policy(rules: int) -> str:
    lines = ["apiVersion: apiguard.io/v1alpha1", "kind: ThrottlePolicy", "rules:"]
    for n in range(rules):
        lines.append(f"- name: rule-{n}")
        lines.append(f'  match: {{users: ["user-{n}"]}}')
        lines.append("  limits: [{requestsPerSecond: 1}]")
    return "\n".join([*lines, "default: {limits: [{requestsPerSecond: 1}]}", ""])


def _hostile() -> Iterator[Delta]:
    """Everything that clients can vary, and more than an honest worker would say."""
    yield Delta(
        requests={
            (f"rule-{n}", decision, verb, code): 1
            for n in range(0, RULES, 50)
            for decision in (*DECISIONS, "invented")
            for verb in (*KNOWN_VERBS, "frobnicate")
            for code in (*sorted(KNOWN_CODES), 299, 418, 999)
        }
    )
    yield Delta(requests={(f"gone-{n}", "forwarded", "get", n % 1_000): 1 for n in range(10_000)})
    yield Delta(requests={(f"override:{n}", "refused", "get", 429): 1 for n in range(5_000)})
    yield Delta(requests={('e"vil\n', "forwarded", '"}\n', 200): 1}, bounds={"invented": 5})


def _relays() -> Iterator[RelayReport]:
    """Names and labels without end, of every kind."""
    for n in range(300):
        counts = {(kind, f"label-{n}"): 1 for kind in Kind}
        name = CacheName("apps", "v1", f"resource-{n}", "json")
        yield RelayReport((CacheReport(name, CacheState.READY, counts=counts),), counts=counts)


async def test_series_are_three_a_rule_and_two_thousand_whatever_is_counted(
    tmp_path: Path,
) -> None:
    """As many workers, servers and tokens as may be configured, and 200 overrides in force."""
    tokens = []
    for n in range(64):
        (tmp_path / f"t{n}").write_text(f"token-{n}")
        tokens.append(TokenConfig(f"name-{n}", Role.ADMIN, str(tmp_path / f"t{n}")))
    config = AdminConfig("127.0.0.1:0", tokens=tuple(tokens))
    async with serving(tmp_path, config) as admin:
        door = dataclasses.replace(admin.door, headers=bearer("token-7"))
        assert (await door.ask("PUT", "/v1/policy", YAML, _policy(RULES))).code == 200
        for n in range(60):
            ban = {"action": "ban", "match": {"userAgents": [f"agent-{n}/*"]}, "reason": "test"}
            assert (await door.send("POST", "/v1/overrides", ban)).code == 201
        for target in ("/nowhere", "/v1/top?x=1", "/v1/policy/history/9", "/livez", "/v1/a/../b"):
            for method in ("GET", "PUT", "DELETE", "PATCH", "FROB"):
                await door.ask(method, target)
        for delta in _hostile():
            admin.supervisor.totals.add(delta)
        supervisor = admin.supervisor
        slot: Slot = supervisor.slots[0]
        supervisor.config = dataclasses.replace(supervisor.config, relay=RELAY)
        for report in _relays():
            tell(supervisor, report)
        for n in range(300):
            admin.server._answers.count(f"route-{n}", 200)
        slots = tuple(Slot(n, slot.listening, slot.mirror) for n in range(64))
        for other in slots:
            other.worker = slot.worker
        admin.supervisor.fleet.slots = slots
        supervisor.prober.servers = supervisor.prober.servers * 64
        answer = await door.ask("GET", "/metrics")
        admin.supervisor.fleet.slots = (slot,)
        text = answer.body.decode()
    lines = _series(text)
    of_rules = [line for line in lines if line.startswith("apiguard_rule_requests_total")]
    # The rules, the default, and one each for all overrides and all break-glass users.
    assert len(of_rules) == 3 * (RULES + 3)
    assert len(lines) - len(of_rules) <= 2_000
    assert 0 < sum("apiguard_relay" in line for line in lines) <= 210
    assert "gone-" not in text
    assert "vil" not in text


async def test_others_are_answered_while_a_scrape_is_being_written(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of a large policy takes the library 0.2 s: here it takes until it is told to."""
    begun, go_on, written = asyncio.Event(), threading.Event(), exporter._rendered
    loop = asyncio.get_running_loop()

    def held(families: Iterable[Metric]) -> str:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(timeout=30), "nobody else was answered in between"
        return written(families)

    await admin.door.holding(Role.ADMIN).ask("PUT", "/v1/policy", YAML, _policy(RULES))
    monkeypatch.setattr(exporter, "_rendered", held)
    scrape = asyncio.create_task(_scrape(admin))
    await begun.wait()
    assert (await admin.door.ask("GET", "/livez")).code == 200
    go_on.set()
    assert len(_series(await scrape)) > 3 * RULES


async def test_a_rule_has_its_series_before_its_first_request(admin: Admin) -> None:
    await admin.door.holding(Role.ADMIN).ask("PUT", "/v1/policy", YAML, _policy(1))
    lines = _series(await _scrape(admin))
    for rule in ("rule-0", "default", "override", "break-glass"):
        found = [line for line in lines if f'rule="{rule}"' in line]
        assert len(found) == 3
        assert all(line.endswith(" 0.0") for line in found)


async def test_what_a_rule_admitted_includes_what_upstream_then_failed(admin: Admin) -> None:
    await admin.door.holding(Role.ADMIN).ask("PUT", "/v1/policy", YAML, _policy(1))
    requests = {
        ("rule-0", "forwarded", "get", 200): 5,
        ("rule-0", "failed", "get", 504): 2,
        ("rule-0", "refused", "get", 429): 3,
        ("rule-0", "would_refuse", "get", 200): 4,
    }
    admin.supervisor.totals.add(Delta(requests=requests))
    family = _families(await _scrape(admin))["apiguard_rule_requests"]
    counted = {
        sample.labels["decision"]: sample.value
        for sample in family.samples
        if sample.labels["rule"] == "rule-0"
    }
    assert counted == {"admitted": 7, "refused": 3, "would_refuse": 4}


async def test_an_override_is_exported_with_its_end_and_leaves_with_it(admin: Admin) -> None:
    operator = admin.door.holding(Role.OPERATOR)
    ban = {"action": "ban", "match": {"userAgents": ["a/*"]}, "reason": "test", "ttlSeconds": 600}
    laid = (await operator.send("POST", "/v1/overrides", ban)).json
    text = await _scrape(admin)
    assert 'apiguard_overrides_active{action="ban"} 1.0' in text
    assert (
        f'apiguard_override_expiration_timestamp_seconds{{action="ban",id="{laid["id"]}"}}' in text
    )
    await operator.ask("DELETE", f"/v1/overrides/{laid['id']}")
    text = await _scrape(admin)
    assert 'apiguard_overrides_active{action="ban"} 0.0' in text
    assert "apiguard_override_expiration_timestamp_seconds{" not in text


async def test_every_process_of_the_guard_has_its_figures(admin: Admin) -> None:
    await eventually(lambda: admin.supervisor.slots[0].worker is not None)
    families = _families(await _scrape(admin))
    for name in (
        "apiguard_process_cpu_seconds",
        "apiguard_process_resident_memory_bytes",
        "apiguard_process_open_fds",
    ):
        figures = {s.labels["process"]: s.value for s in families[name].samples}
        assert figures.keys() == {"supervisor", "worker-0"}
        least = 0 if "cpu" in name else 1  # a worker just started has used next to none
        assert all(value >= least for value in figures.values()), name


async def test_requests_of_the_admin_port_are_counted_by_route_never_by_path(
    admin: Admin,
) -> None:
    for n in range(50):
        await admin.door.holding(Role.VIEWER).ask("GET", f"/v1/policy/history/{n + 100}")
        await admin.door.ask("GET", f"/secret-{n}")
    lines = [line for line in _series(await _scrape(admin)) if "apiguard_admin_requests" in line]
    history = (
        'apiguard_admin_requests_total{code="404",route="GET /v1/policy/history/{generation}"}'
    )
    assert f"{history} 50.0" in lines
    assert 'apiguard_admin_requests_total{code="401",route="other"} 50.0' in lines


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed"
)
async def test_promtool_finds_nothing_to_say(admin: Admin) -> None:
    operator = admin.door.holding(Role.OPERATOR)
    ban = {"action": "ban", "match": {"userAgents": ["a/*"]}, "reason": "test"}
    await operator.send("POST", "/v1/overrides", ban)
    for delta in _hostile():
        admin.supervisor.totals.add(delta)
    admin.supervisor.config = dataclasses.replace(admin.supervisor.config, relay=RELAY)
    for report in _relays():
        tell(admin.supervisor, report)
    promtool = await asyncio.create_subprocess_exec(
        "promtool",
        "check",
        "metrics",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await promtool.communicate((await _scrape(admin)).encode())
    assert (promtool.returncode, said.decode()) == (0, "")
