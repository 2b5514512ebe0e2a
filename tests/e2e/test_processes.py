"""Workers die, stall and are replaced; signals drain and reload; nobody is left behind."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from tests.e2e.guard import Answer, Guard, Upstream, alive, ask, kill, policy, until

pytestmark = pytest.mark.e2e

HEADROOM = 5
"""Times of what is promised: the machine has other work."""


def test_a_killed_worker_is_replaced_and_serves_within_two_seconds(guard: Guard) -> None:
    guard.start()
    (pid,) = guard.worker_pids
    killed = time.monotonic()
    kill(pid)
    until("the worker is gone", lambda: not alive(pid))
    # Asked while nobody serves: the connection waits in the supervisor's socket.
    assert guard.get().code == 200
    assert time.monotonic() - killed < 2.0 * HEADROOM
    assert guard.worker_pids != [pid]
    assert guard.wait_for("worker is replaced")["cause"] == "died"


def test_a_worker_that_stalls_is_replaced_while_admin_answers(guard: Guard) -> None:
    guard.settings["bounds"] = {"stallSeconds": 1}
    guard.start()
    (pid,) = guard.worker_pids
    kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert guard.admin("GET", "/v1/status").code == 200
    assert time.monotonic() - begun < 0.5
    assert guard.get().code == 200
    assert time.monotonic() - begun < 1.0 + 2.0 + 0.5
    assert not alive(pid)
    assert guard.wait_for("worker is replaced")["cause"] == "stalled"


def test_a_change_is_answered_while_a_worker_is_stalled_and_says_so(guard: Guard) -> None:
    guard.start()
    kill(guard.worker_pids[0], signal.SIGSTOP)
    begun = time.monotonic()
    answer = guard.admin("PUT", "/v1/policy", policy(ban="bad/*"))
    assert time.monotonic() - begun < 2.0
    assert answer.code == 200
    assert [worker["applied"] for worker in answer.json["workers"]] == [False]


def test_a_successor_starts_with_the_policy_that_is_active_by_then(guard: Guard) -> None:
    guard.start()
    assert guard.admin("PUT", "/v1/policy", policy(ban="bad/*")).code == 200
    kill(guard.worker_pids[0])
    assert until("refused", lambda: guard.get(agent="bad/1").code == 429)


def test_a_successor_continues_from_the_levels_before(guard: Guard) -> None:
    guard.write_policy(policy(rate=0.001, burst=5))
    guard.start()
    assert [guard.get().code for _ in range(6)] == [200] * 5 + [429]
    until("the level is mirrored", lambda: _level(guard) == (5, 1))
    kill(guard.worker_pids[0])
    guard.wait_for("worker serves", 2)
    assert guard.get().code == 429


def test_a_restarted_guard_starts_with_one_seconds_worth(guard: Guard) -> None:
    guard.write_policy(policy(rate=2, burst=1_000))
    guard.start()
    guard.signal(signal.SIGTERM)
    assert guard.exit_code() == 0
    guard.start()
    codes = [guard.get().code for _ in range(100)]
    assert codes[:2] == [200, 200]
    assert 429 in codes


def test_workers_end_when_their_supervisor_is_killed(guard: Guard) -> None:
    guard.settings["workers"] = 2
    guard.start()
    pids = guard.worker_pids
    guard.signal(signal.SIGKILL)
    guard.exit_code()
    until("workers are gone", lambda: not any(map(alive, pids)), seconds=2.0)


def test_a_terminal_interrupt_to_the_whole_group_does_not_kill_workers(guard: Guard) -> None:
    guard.start()
    (pid,) = guard.worker_pids
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        kill(pid, number)
    assert guard.get().code == 200
    assert guard.worker_pids == [pid]


def test_sigterm_finishes_what_is_open_and_accepts_nothing_new(
    guard: Guard, upstream: Upstream
) -> None:
    guard.start()
    answers: list[Answer] = []
    client = threading.Thread(target=lambda: answers.append(guard.get("/slow")))
    client.start()
    assert upstream.slow_arrived.wait(10)
    guard.signal(signal.SIGTERM)
    guard.wait_for("draining")
    ready = ask(guard.admin_address, "GET", "/readyz?verbose")
    assert ready.code == 503
    assert "[-]shutdown failed: draining" in ready.text
    until("refuses connections", lambda: _refused(guard))
    assert guard.process.poll() is None
    upstream.release.set()
    client.join(10)
    assert [answer.code for answer in answers] == [200]
    assert guard.exit_code() == 0


def test_a_second_signal_ends_at_once(guard: Guard, upstream: Upstream) -> None:
    guard.start()

    def ask_in_vain() -> None:
        with pytest.raises((ConnectionError, OSError)):
            guard.get("/slow")

    client = threading.Thread(target=ask_in_vain)
    client.start()
    assert upstream.slow_arrived.wait(10)
    guard.signal(signal.SIGTERM)
    guard.wait_for("draining")
    guard.signal(signal.SIGINT)
    assert guard.exit_code() == 1
    client.join(10)


def test_sighup_takes_a_changed_policy_file(guard: Guard) -> None:
    guard.start()
    assert guard.get(agent="bad/1").code == 200
    guard.write_policy(policy(ban="bad/*"))
    guard.signal(signal.SIGHUP)
    guard.wait_for("reloaded")
    assert guard.get(agent="bad/1").code == 429
    status = guard.admin("GET", "/v1/status").json
    assert status["policy"]["generation"] == 2
    assert "changed" in status["policy"]["why"]


def test_sighup_with_an_invalid_policy_file_changes_nothing(guard: Guard) -> None:
    guard.write_policy(policy(ban="bad/*"))
    guard.start()
    guard.write_policy("kind: Nonsense\n")
    guard.signal(signal.SIGHUP)
    guard.wait_for("policy file is invalid, the active policy stays")
    assert guard.get(agent="bad/1").code == 429


def test_sighup_takes_changed_static_tokens(guard: Guard) -> None:
    tokens = guard.directory / "tokens.csv"
    tokens.write_text("first,alice,1\n")
    guard.settings["identity"] = {"staticTokensFile": "tokens.csv"}
    guard.write_policy(
        "apiVersion: apiguard.io/v1alpha1\nkind: ThrottlePolicy\nrules:\n"
        "  - name: bob\n    match: {users: [bob]}\n    limits: [{requestsPerSecond: 0}]\n"
        "default:\n  limits: [{requestsPerSecond: 100}]\n"
    )
    guard.start()
    bearer = {"Authorization": "Bearer second"}
    assert ask(guard.address, "GET", "/api", bearer).code == 200
    tokens.write_text("second,bob,2\n")
    guard.signal(signal.SIGHUP)
    guard.wait_for("reloaded")
    assert ask(guard.address, "GET", "/api", bearer).code == 429


def test_two_workers_admit_no_more_than_one_budget(guard: Guard) -> None:
    guard.settings["workers"] = 2
    guard.write_policy(policy(rate=0.001, burst=20))
    guard.start()
    codes = [guard.get().code for _ in range(60)]
    assert codes.count(200) <= 20
    assert codes.count(200) >= 10


def _level(guard: Guard) -> tuple[int, int]:
    """Admitted and refused of the default rule's bucket."""
    (rule,) = guard.admin("GET", "/v1/flows?rule=default").json["rules"]
    buckets = rule["limits"][0]["buckets"]
    return (buckets[0]["admitted"], buckets[0]["refused"]) if buckets else (0, 0)


def _refused(guard: Guard) -> bool:
    try:
        guard.get()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
