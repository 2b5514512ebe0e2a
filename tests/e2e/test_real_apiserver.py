"""The guard before a real kube-apiserver: requests pass unchanged, limits hold."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.guard import Answer, Guard, ask, policy, until
from tests.e2e.real import RealApiServer, missing

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.real,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def guard(
    real_apiserver: RealApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guard]:
    folder: Path = tmp_path_factory.mktemp("guard")
    made = Guard(folder, real_apiserver.url)
    made.settings["upstream"] |= {
        "caFile": str(real_apiserver.ca_file),
        "serverName": "kubernetes.default.svc",
    }
    made.settings["identity"] = {"staticTokensFile": str(real_apiserver.tokens_file)}
    made.start()
    yield made
    made.close()


def call(
    guard: Guard, method: str, target: str, body: object = None, *, agent: str = "tests/1",
    token: str = "admin-token",
) -> Answer:  # fmt: skip
    headers = {"Authorization": f"Bearer {token}", "User-Agent": agent}
    if body is None:
        return ask(guard.address, method, target, headers)
    return ask(
        guard.address, method, target, {**headers, "Content-Type": "application/json"},
        json.dumps(body),
    )  # fmt: skip


def test_the_guard_is_ready_when_upstream_can_be_verified(guard: Guard) -> None:
    until("ready", lambda: ask(guard.admin_address, "GET", "/readyz").code == 200)


def test_objects_are_created_changed_read_and_deleted_through_the_guard(guard: Guard) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}}
    created = call(guard, "POST", MAPS, body)
    assert created.code == 201, created.text
    assert call(guard, "PUT", f"{MAPS}/a", {**body, "data": {"x": "2"}}).code == 200
    assert call(guard, "GET", f"{MAPS}/a").json["data"] == {"x": "2"}
    assert call(guard, "DELETE", f"{MAPS}/a").code == 200
    gone = call(guard, "GET", f"{MAPS}/a")
    assert (gone.code, gone.json["reason"]) == (404, "NotFound")


def test_upstream_stays_the_judge_of_who_may(guard: Guard) -> None:
    denied = call(guard, "GET", MAPS, token="viewer-token")
    assert (denied.code, denied.json["reason"]) == (403, "Forbidden")
    assert 'User "viewer" cannot list' in denied.json["message"]
    assert call(guard, "GET", MAPS, token="invented").code == 401


def test_a_watch_delivers_events_as_they_happen(guard: Guard) -> None:
    connection = http.client.HTTPConnection(*guard.address, timeout=15)
    connection.request(
        "GET", f"{MAPS}?watch=1&fieldSelector=metadata.name%3Dwatched",
        headers={"Authorization": "Bearer admin-token"},
    )  # fmt: skip
    stream = connection.getresponse()
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched"}}
    assert call(guard, "POST", MAPS, body).code == 201
    event = json.loads(stream.readline())
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "watched")
    connection.close()


def test_a_ban_holds_even_for_system_masters(guard: Guard) -> None:
    assert call(guard, "GET", MAPS, agent="bad/1").code == 200
    assert guard.admin("PUT", "/v1/policy", policy(ban="bad/*")).code == 200
    refused = call(guard, "GET", MAPS, agent="bad/1")
    assert (refused.code, refused.json["reason"]) == (429, "TooManyRequests")
    assert refused.json["details"]["retryAfterSeconds"] == int(refused.headers["retry-after"])
    assert call(guard, "GET", MAPS).code == 200
