"""Draining a server, and what admin shows of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.guard import Guard, Upstream, ask, kill, until

pytestmark = pytest.mark.e2e


@pytest.fixture
def upstreams() -> Iterator[tuple[Upstream, Upstream]]:
    both = Upstream(), Upstream()
    yield both
    for upstream in both:
        upstream.close()


@pytest.fixture
def guard(tmp_path: Path, upstreams: tuple[Upstream, Upstream]) -> Iterator[Guard]:
    made = Guard(tmp_path, upstreams[0].url)
    made.settings["upstream"] = {"servers": [upstream.url for upstream in upstreams]}
    made.settings["workers"] = 2
    made.start()
    until("both are fit", lambda: states(made) == ["fit", "fit"])
    yield made
    made.close()


def states(guard: Guard) -> list[str]:
    return [one["state"] for one in guard.admin("GET", "/v1/upstreams").json["upstreams"]]


def test_a_server_is_drained_and_undrained_on_every_worker(
    guard: Guard, upstreams: tuple[Upstream, Upstream]
) -> None:
    name = upstreams[1].url.partition("://")[2]
    answer = guard.admin("POST", f"/v1/upstreams/{name}/drain", "")
    assert answer.code == 200, answer.text
    assert [one["applied"] for one in answer.json["applied"]] == [True, True]
    assert (answer.json["index"], answer.json["drained"]) == (1, True)
    assert states(guard) == ["fit", "drained"]
    assert guard.admin("GET", "/readyz").code == 200
    verbose = guard.admin("GET", "/readyz?verbose").text
    assert "[+]upstream-0 ok" in verbose
    assert "[-]upstream-1 failed: drained" in verbose
    assert upstreams[1].url not in verbose
    refused = guard.admin("POST", "/v1/upstreams/0/drain", "")
    assert (refused.code, refused.json["reason"]) == (409, "Conflict")
    metrics = guard.admin("GET", "/metrics").text
    assert f'apiguard_upstream_state{{server="{upstreams[1].url}",state="drained"}} 1.0' in metrics
    assert guard.admin("POST", "/v1/upstreams/1/undrain", "").code == 200
    assert states(guard) == ["fit", "fit"]


def test_a_drain_outlives_the_workers_it_was_told_to(guard: Guard) -> None:
    assert guard.admin("POST", "/v1/upstreams/1/drain", "").code == 200
    for pid in guard.worker_pids:
        kill(pid)
    until("replaced", lambda: guard.admin("GET", "/v1/status").json["restarts"]["died"] == 2)

    def seen() -> bool:
        server = guard.admin("GET", "/v1/upstreams").json["upstreams"][1]
        return [worker["state"] for worker in server["workers"]] == ["drained", "drained"]

    until("successors know", seen)


def test_draining_is_protected_like_every_write(guard: Guard) -> None:
    target = "/v1/upstreams/1/drain"
    assert (
        ask(guard.admin_address, "POST", target, {"Content-Type": "application/json"}).code == 401
    )
    plain = {"Content-Type": "text/plain"}
    assert guard.admin("POST", target, "", plain).code == 415
    assert guard.admin("POST", target, "", {"Origin": "http://elsewhere"}).code == 403
    assert states(guard) == ["fit", "fit"]


def test_a_server_that_is_not_there_is_404(guard: Guard) -> None:
    for name in ("2", "-1", "elsewhere:6443"):
        assert guard.admin("POST", f"/v1/upstreams/{name}/drain", "").code == 404
