"""Alerts and dashboard against what a running guard exports.

Nothing fires on a healthy guard; what rules and panels ask for exists, under the names and labels
they use; every panel shows something.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.guard import until
from tests.e2e.newcomer import ROOT, Demo
from tests.e2e.real import free_ports

pytestmark = pytest.mark.e2e

RULES = ROOT / "deploy/prometheus/rules.yaml"
TESTS = ROOT / "deploy/prometheus/rules.test.yaml"
SCRAPE = ROOT / "deploy/prometheus/scrape.yaml"
RUNBOOK = ROOT / "docs/runbook.md"
DASHBOARD = ROOT / "deploy/grafana/apiguard.json"
RATE_INTERVAL = "1m"
SOME_TRAFFIC = """
export KUBECONFIG=$PWD/.demo/kubeconfig APIGUARD_CONFIG=$PWD/.demo/apiguard.yaml
export PATH=$PATH:$PWD/.venv/bin
apiguard ban --user-agent 'noisy-agent/*' --reason INC-7 >/dev/null
for i in $(seq 40); do
  curl -s -o /dev/null -A noisy-agent/1.0 --cacert .demo/ca.crt https://127.0.0.1:7443/api
  curl -s -o /dev/null --cacert .demo/ca.crt https://127.0.0.1:7443/version
done
"""
SOME_READS = """
for agent in telemetry-agent/1.0 curl/8 telemetry-agent/1.0 telemetry-agent/1.0; do
  curl -s -o /dev/null -A "$agent" --cacert .demo/ca.crt \\
    -H "Authorization: Bearer $(cat .demo/telemetry-user.token)" https://127.0.0.1:7443/api/v1/pods
done
"""
"""To curl kube-apiserver answers prettily, which the relay leaves to it."""

COMMANDS_SECONDS = 60.0

Series = dict[str, set[frozenset[str]]]
"""Label names of each series, by metric; a scrape adds ``job`` and ``instance`` to each."""


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here; Debian's package prometheus has it")
    return found


def alerts() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    return found


def promtool(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [tool("promtool"), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=COMMANDS_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def exported(demo: Demo) -> str:
    token = "Authorization: Bearer $(cat .demo/admin.token)"
    return demo.bash(f'curl -s -H "{token}" http://127.0.0.1:7444/metrics')


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """As Prometheus labels them."""
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            yield one.name, {**one.labels, "job": "apiguard", "instance": "demo"}, one.value


def series_of(text: str) -> Series:
    found: Series = {"up": {frozenset({"job", "instance"})}}
    for name, labels, _ in samples(text):
        found.setdefault(name, set()).add(frozenset(labels))
    return found


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Metrics of an expression with the labels they are selected by."""
    for name, _, matchers in re.findall(r"\b(apiguard_\w+|up)\b(\{(.*?)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*=", matchers))


def test_each_alert_fires_on_what_it_is_about_and_says_what_to_do() -> None:
    """The runbook has a section for each and for nothing else."""
    assert "SUCCESS" in promtool("test", "rules", TESTS.name, folder=TESTS.parent)
    names = [one["alert"] for one in alerts()]
    tested = [one["name"] for one in yaml.safe_load(TESTS.read_text())["tests"]]
    assert tested == names
    assert re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE) == names
    for one in alerts():
        assert one["annotations"]["runbook"] == f"docs/runbook.md#{one['alert'].lower()}"


@pytest.mark.timeout(180)
def test_a_healthy_guard_raises_no_alert_and_fills_every_panel(demo: Demo, tmp_path: Path) -> None:
    """One demo for both, under some traffic of which a part is banned, and a part relayed."""
    with scraping(demo, tmp_path / "prometheus") as ask:
        until("it is scraped", functools.partial(ask, "sum(up) == 1"))
        demo.bash(SOME_TRAFFIC)
        demo.bash(SOME_READS)
        text = exported(demo)
        known = series_of(text)
        for one in alerts():
            for name, labels in selectors(one["expr"]):
                assert any(labels <= has for has in known.get(name, ())), (one["alert"], name)
        for one in yaml.safe_load(TESTS.read_text())["tests"]:
            for given in one["input_series"]:
                ((name, labels),) = selectors(given["series"])
                assert labels in known[name], (one["name"], given)
        nothing_fires(text, tmp_path)
        for title, query in panels():
            until(f"{title}: {query}", functools.partial(ask, query))


def nothing_fires(text: str, folder: Path) -> None:
    """Every exported series, as it is, for half an hour; promtool evaluates the rules on it."""
    given = [{"series": 'up{job="apiguard", instance="demo"}', "values": "1x40"}]
    for name, labels, value in samples(text):
        written = ", ".join(f"{label}={json.dumps(said)}" for label, said in labels.items())
        given.append({"series": f"{name}{{{written}}}", "values": f"{value!r}x40"})
    healthy = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "alert_rule_test": [
                    {"alertname": one["alert"], "eval_time": "35m"} for one in alerts()
                ],
            }
        ],
    }
    # promtool's clock begins at 1970, so whatever ends does so in half a century.
    (folder / "healthy.yaml").write_text(yaml.safe_dump(healthy))
    assert "SUCCESS" in promtool("test", "rules", "healthy.yaml", folder=folder)


def panels() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard as Grafana would send it."""
    dashboard = json.loads(DASHBOARD.read_text())
    values = {"$__rate_interval": RATE_INTERVAL, "$instance": ".*"}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in values.items():
                query = query.replace(name, value)
            yield panel["title"], query


@contextmanager
def scraping(demo: Demo, folder: Path) -> Iterator[Any]:
    """Prometheus, as ``scrape.yaml`` tells it but every half second; yields what asks it."""
    folder.mkdir()
    config = yaml.safe_load(demo.with_ports(SCRAPE.read_text()))
    (job,) = config["scrape_configs"]
    job["scrape_interval"] = job["scrape_timeout"] = "500ms"
    job["authorization"]["credentials_file"] = str(demo.folder / ".demo/admin.token")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield lambda query: _ask(port, query)
    finally:
        process.terminate()
        process.wait(20)


def _ask(port: int, query: str) -> list[Any]:
    """What an instant query finds, series without a number aside; nothing while it starts."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
    except ConnectionError:
        return []
    except urllib.error.HTTPError as error:
        if error.code == 503:  # it is not ready yet
            return []
        raise AssertionError((query, error.read())) from None
    except urllib.error.URLError:
        return []
    return [one for one in found if one["value"][1] != "NaN"]
