"""The admin port: who may ask, what it answers, how a policy is changed and kept."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.guard import TOKEN, Guard, Upstream, ask, kill, policy, until

pytestmark = pytest.mark.e2e

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def running(guard: Guard) -> Guard:
    """A guard of this test's own, for tests that change it."""
    guard.start()
    return guard


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """One guard for all tests that only ask: starting one takes a second."""
    upstream = Upstream()
    guard = Guard(tmp_path_factory.mktemp("shared"), upstream.url)
    guard.settings["admin"]["hosts"] = ["ops"]
    guard.start()
    yield guard
    guard.close()
    upstream.close()


def _is_status(body: dict[str, object], code: int, reason: str) -> bool:
    return (body["kind"], body["status"], body["code"], body.get("reason", "")) == (
        "Status",
        "Failure",
        code,
        reason,
    )


# -- who may ask


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/readyz?verbose"])
def test_health_needs_no_token_and_takes_any_host(shared: Guard, path: str) -> None:
    until("ready", lambda: ask(shared.admin_address, "GET", "/readyz").code == 200)
    answer = ask(shared.admin_address, "GET", path, {"Host": "whatever.example"})
    assert answer.code == 200


@pytest.mark.parametrize(
    "credential", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}]
)
@pytest.mark.parametrize("path", ["/metrics", "/v1/policy", "/v1/status", "/v1/flows", "/nowhere"])
def test_everything_else_needs_the_token(
    shared: Guard, path: str, credential: dict[str, str]
) -> None:
    answer = ask(shared.admin_address, "GET", path, credential)
    assert answer.code == 401
    assert _is_status(answer.json, 401, "Unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_changed_token_file_counts_at_once(running: Guard) -> None:
    (running.directory / "token").write_text("another-token")
    assert running.admin("GET", "/v1/status").code == 401
    answer = ask(
        running.admin_address, "GET", "/v1/status", {"Authorization": "Bearer another-token"}
    )
    assert answer.code == 200


def test_a_removed_token_file_locks_nobody_out(running: Guard) -> None:
    (running.directory / "token").unlink()
    assert running.admin("GET", "/v1/status").code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7444", "127.0.0.1.evil", ""])
def test_an_unknown_host_is_misdirected(shared: Guard, host: str) -> None:
    answer = ask(shared.admin_address, "GET", "/v1/status", {**AUTHORIZED, "Host": host})
    assert answer.code in ((421,) if host else (400, 421))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:7444", "ops"])
def test_loopback_names_and_configured_hosts_are_known(shared: Guard, host: str) -> None:
    answer = ask(shared.admin_address, "GET", "/v1/status", {**AUTHORIZED, "Host": host})
    assert answer.code == 200


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_write_from_another_origin_changes_nothing(
    shared: Guard, foreign: dict[str, str]
) -> None:
    answer = shared.admin("PUT", "/v1/policy", policy(ban="*"), foreign)
    assert _is_status(answer.json, 403, "Forbidden")
    assert shared.admin("GET", "/v1/policy").json["generation"] == 1


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_write_a_plain_form_could_send_is_refused(shared: Guard, kind: str) -> None:
    answer = shared.admin("PUT", "/v1/policy", policy(ban="*"), {"Content-Type": kind})
    assert answer.code == 415


def test_unknown_paths_and_methods_are_answered_as_status(shared: Guard) -> None:
    assert _is_status(shared.admin("GET", "/nowhere").json, 404, "NotFound")
    answer = shared.admin("DELETE", "/v1/policy", "", JSON)
    assert _is_status(answer.json, 405, "MethodNotAllowed")


def test_a_body_above_the_bound_is_refused(shared: Guard) -> None:
    answer = shared.admin("PUT", "/v1/policy", "#" * ((1 << 20) + 1))
    assert _is_status(answer.json, 413, "RequestEntityTooLarge")


def test_every_answer_forbids_sniffing_caching_and_framing(shared: Guard) -> None:
    for path in ("/livez", "/metrics", "/v1/status", "/nowhere"):
        headers = shared.admin("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "no-store" in headers["cache-control"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["server"] == "apiguard"


# -- policy


def test_a_put_acts_on_the_next_request(running: Guard) -> None:
    assert running.get(agent="bad/1").code == 200
    answer = running.admin("PUT", "/v1/policy", policy(ban="bad/*"), {"If-Match": '"1"'})
    assert (answer.code, answer.json["generation"], answer.headers["etag"]) == (200, 2, '"2"')
    assert answer.json["workers"] == [{"worker": 0, "applied": True, "problem": ""}]
    assert running.get(agent="bad/1").code == 429
    assert running.get(agent="good/1").code == 200


def test_a_policy_can_be_put_as_json(running: Guard) -> None:
    body = {
        "apiVersion": "apiguard.io/v1alpha1",
        "kind": "ThrottlePolicy",
        "rules": [],
        "default": {"limits": [{"requestsPerSecond": 0}]},
    }
    answer = running.admin("PUT", "/v1/policy", json.dumps(body, indent="\t"), JSON)
    assert answer.code == 200
    assert running.get().code == 429


def test_the_policy_is_given_back_as_it_was_put(running: Guard) -> None:
    text = policy(ban="bad/*") + "# a comment\n"
    running.admin("PUT", "/v1/policy", text)
    described = running.admin("GET", "/v1/policy").json
    assert described["policy"] == text
    assert re.fullmatch(r"[0-9a-f]{64}", described["digest"])
    assert described["origin"]["kind"] == "admin"
    raw = running.admin("GET", "/v1/policy", headers={"Accept": "application/yaml"})
    assert (raw.text, raw.headers["etag"]) == (text, '"2"')


@pytest.mark.parametrize(
    ("query", "headers"),
    [("", {"If-Match": '"7"'}), ("?generation=7", {})],
    ids=["header", "query"],
)
def test_naming_another_generation_is_a_conflict(
    shared: Guard, query: str, headers: dict[str, str]
) -> None:
    answer = shared.admin("PUT", f"/v1/policy{query}", policy(ban="*"), headers)
    assert _is_status(answer.json, 409, "Conflict")
    assert shared.get().code == 200


def test_a_generation_that_is_no_number_is_a_bad_request(shared: Guard) -> None:
    answer = shared.admin("PUT", "/v1/policy?generation=latest", policy())
    assert _is_status(answer.json, 400, "BadRequest")


def test_an_invalid_policy_is_refused_whole_with_field_and_line(shared: Guard) -> None:
    text = policy(ban="bad/*").replace("requestsPerSecond: 0", "requestsPerSecond: -1")
    answer = shared.admin("PUT", "/v1/policy", text + "typo: 1\n")
    assert _is_status(answer.json, 422, "Invalid")
    causes = answer.json["details"]["causes"]
    assert {cause["field"] for cause in causes} == {
        "rules[0].limits[0].requestsPerSecond",
        "typo",
    }
    assert all(cause["message"].startswith("line ") for cause in causes)
    assert shared.admin("GET", "/v1/policy").json["generation"] == 1


def test_a_dry_run_validates_and_changes_nothing(shared: Guard) -> None:
    assert shared.admin("PUT", "/v1/policy?dryRun=All", policy(ban="*")).json["dryRun"]
    assert shared.admin("PUT", "/v1/policy?dryRun=All", "kind: X\n").code == 422
    assert shared.admin("GET", "/v1/policy").json["generation"] == 1
    assert shared.get().code == 200


def test_a_put_survives_a_restart_and_a_changed_file_wins(running: Guard) -> None:
    running.admin("PUT", "/v1/policy", policy(ban="bad/*"))
    _restart(running)
    assert running.get(agent="bad/1").code == 429
    assert "set by admin" in running.admin("GET", "/v1/status").json["policy"]["why"]
    running.write_policy(policy(ban="worse/*"))
    _restart(running)
    assert running.get(agent="bad/1").code == 200
    assert running.get(agent="worse/1").code == 429
    status = running.admin("GET", "/v1/status").json["policy"]
    assert (status["generation"], status["origin"]["kind"]) == (3, "file")


def test_a_damaged_store_falls_back_to_the_last_good_policy(running: Guard) -> None:
    running.admin("PUT", "/v1/policy", policy(ban="bad/*"))
    running.admin("PUT", "/v1/policy", policy(ban="worse/*"))
    running.signal(signal.SIGTERM)
    running.exit_code()
    newest = max((running.directory / "state" / "revisions").iterdir())
    newest.write_bytes(newest.read_bytes()[:-30])
    running.start()
    assert running.lines("stored policy is damaged, falling back")
    assert running.get(agent="bad/1").code == 429
    assert "damaged" in running.admin("GET", "/v1/status").json["policy"]["why"]


def test_a_put_the_disk_does_not_take_is_refused_whole(running: Guard) -> None:
    revisions = running.directory / "state" / "revisions"
    revisions.rename(revisions.with_name("away"))
    answer = running.admin("PUT", "/v1/policy", policy(ban="*"))
    assert answer.code == 507
    assert answer.json["kind"] == "Status"
    assert running.get().code == 200
    assert running.admin("GET", "/v1/policy").json["generation"] == 1


# -- the rest


def test_enforcement_is_switched_by_one_call_and_kept(running: Guard) -> None:
    running.admin("PUT", "/v1/policy", policy(ban="bad/*"))
    for mode, code in (("shadow", 200), ("off", 200), ("enforce", 429), ("shadow", 200)):
        answer = running.admin("PUT", "/v1/enforcement", json.dumps({"enforcement": mode}), JSON)
        assert answer.json["enforcement"] == mode
        assert running.get(agent="bad/1").code == code
    _restart(running)
    assert running.get(agent="bad/1").code == 200
    running.admin("PUT", "/v1/enforcement", '{"enforcement": null}', JSON)
    assert running.get(agent="bad/1").code == 429


def test_an_unknown_enforcement_is_a_bad_request(shared: Guard) -> None:
    answer = shared.admin("PUT", "/v1/enforcement", '{"enforcement": "maybe"}', JSON)
    assert _is_status(answer.json, 400, "BadRequest")


def test_explain_answers_from_living_buckets_and_charges_nothing(guard: Guard) -> None:
    guard.write_policy(policy(rate=0.001, burst=3))
    guard.start()
    guard.get()
    body = json.dumps({"method": "GET", "target": "/api/v1/pods", "userAgent": "a/1"})
    for _ in range(5):
        answer = guard.admin("POST", "/v1/explain", body, JSON).json
        assert answer["decision"] == "forwarded"
        assert answer["request"]["verb"] == "list"
        assert answer["limits"][0]["level"] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    "body", ["", "{}", '{"method":"GET"}', '{"method":"GET","target":"/","source":"nowhere"}']
)
def test_a_question_that_makes_no_sense_is_a_bad_request(shared: Guard, body: str) -> None:
    answer = shared.admin("POST", "/v1/explain", body, JSON)
    assert _is_status(answer.json, 400, "BadRequest")


def test_flows_show_what_buckets_admitted_and_refused(guard: Guard) -> None:
    guard.write_policy(policy(rate=0.001, burst=2))
    guard.start()
    codes = [guard.get().code for _ in range(5)]
    assert codes == [200, 200, 429, 429, 429]

    def counted() -> bool:
        (rule,) = guard.admin("GET", "/v1/flows").json["rules"]
        buckets = rule["limits"][0]["buckets"]
        return bool(buckets) and (buckets[0]["admitted"], buckets[0]["refused"]) == (2, 3)

    until("flows show it", counted)


def test_metrics_count_requests_and_never_go_down_with_a_worker(running: Guard) -> None:
    for _ in range(3):
        running.get()
    name = 'apiguard_requests_total{code="200",decision="forwarded",verb_class="list"}'

    def value() -> float:
        text = running.admin("GET", "/metrics").text
        found = [line for line in text.splitlines() if line.startswith(name)]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    until("three are counted", lambda: value() == 3)
    kill(running.worker_pids[0])
    running.wait_for("worker serves", 2)
    running.get()
    until("the fourth is counted", lambda: value() == 4)


def test_every_metric_line_is_one_of_ours_or_prometheus_own(shared: Guard) -> None:
    text = shared.admin("GET", "/metrics").text
    assert "text/plain" in shared.admin("GET", "/metrics").headers["content-type"]
    for line in text.splitlines():
        assert re.match(r"(# (HELP|TYPE) )?apiguard_[a-z_]+", line), line


def _restart(guard: Guard) -> None:
    guard.signal(signal.SIGTERM)
    assert guard.exit_code() == 0
    guard.start()
