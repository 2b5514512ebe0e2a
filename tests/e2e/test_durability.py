"""A whole guard, killed while operators change it: everything answered for is there again."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import threading
from typing import NamedTuple

import pytest

from tests.e2e.guard import PATIENCE, TOKEN, Answer, Guard, ask, kill, policy, until

pytestmark = pytest.mark.e2e

KILLS = 6
BAN = {"action": "ban", "match": {"userAgents": ["telemetry/*"]}, "ttlSeconds": 3_000}


class Operator(threading.Thread):
    """Changes one thing after the other until nobody answers. ``done`` is what was answered."""

    def __init__(self, guard: Guard, seed: int, overrides: set[str]) -> None:
        super().__init__(daemon=True)
        self._address = guard.admin_address
        self._chance = random.Random(seed)
        self.overrides = set(overrides)
        self.generation = 0
        self.done: list[tuple[str, str]] = []
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                kinds = [self._lay_over, self._lay_over, self._put_policy]
                kinds += [self._take_back] if self.overrides else []
                self._chance.choice(kinds)()

    def _ask(self, method: str, target: str, body: str | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/yaml"}
        return ask(self._address, method, target, headers, body)

    def _lay_over(self) -> None:
        body = {**BAN, "reason": f"op {self._chance.randrange(1 << 30)}"}
        id_ = self._ask("POST", "/v1/overrides", json.dumps(body)).json["id"]
        self.overrides.add(id_)
        self.done.append(("override.add", id_))

    def _take_back(self) -> None:
        id_ = self._chance.choice(sorted(self.overrides))
        assert self._ask("DELETE", f"/v1/overrides/{id_}").code == 200
        self.overrides.discard(id_)
        self.done.append(("override.delete", id_))

    def _put_policy(self) -> None:
        text = policy(rate=1 + self._chance.randrange(1_000))
        self.generation = self._ask("PUT", "/v1/policy", text).json["generation"]
        self.done.append(("policy.put", "policy"))

    def until_done(self, number: int) -> None:
        until("changes", lambda: len(self.done) >= number or not self.is_alive())
        assert len(self.done) >= number


class Found(NamedTuple):
    """What a guard says of itself."""

    record: list[tuple[str, str]]
    overrides: set[str]
    generation: int


def _find(guard: Guard) -> Found:
    events = guard.admin("GET", "/v1/audit?kind=actions&limit=1000").json["events"]
    overrides = guard.admin("GET", "/v1/overrides").json["overrides"]
    return Found(
        [(e["action"], e["target"]) for e in events if e["result"] == "done"],
        {one["id"] for one in overrides},
        guard.admin("GET", "/v1/policy").json["generation"],
    )


def _check(before: Found, operator: Operator, after: Found) -> None:
    """Everything answered for, in its order and once; of one thing more, all or nothing."""
    expected = [*before.record, *operator.done]
    assert after.record[: len(expected)] == expected
    half_way = after.record[len(expected) :]
    assert len(half_way) <= 1
    overrides, generation = operator.overrides, operator.generation or before.generation
    for action, target in half_way:
        overrides ^= {target} if action.startswith("override.") else set()
        generation += action == "policy.put"
    assert after.overrides == overrides
    assert after.generation == generation


def test_killed_while_it_is_changed_a_guard_keeps_what_it_answered_for(guard: Guard) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # noqa: T201  for whoever has to repeat it
    chance = random.Random(seed)
    guard.settings["overrides"] = {"most": 1_000}
    guard.start()
    before = _find(guard)
    for _ in range(KILLS):
        (worker,) = guard.worker_pids
        operator = Operator(guard, chance.randrange(1 << 30), before.overrides)
        operator.until_done(chance.randrange(1, 12))
        if chance.random() < 0.5:
            kill(worker)
        guard.signal(signal.SIGKILL)
        guard.exit_code()
        operator.join(PATIENCE)
        guard.start()
        after = _find(guard)
        _check(before, operator, after)
        before = after


def test_workers_killed_while_the_guard_is_changed_come_back_with_what_holds(guard: Guard) -> None:
    guard.settings["workers"] = 2
    guard.start()
    operator = Operator(guard, random.randrange(1 << 30), set())
    for number in range(2, 20, 3):
        operator.until_done(number)
        pids = guard.worker_pids
        kill(pids[number % 2])
        _until_replaced(guard, pids)
    answer = guard.admin("POST", "/v1/overrides", json.dumps({**BAN, "reason": "last"}))
    assert answer.code == 201
    kill(guard.worker_pids[0])
    until("all refuse", lambda: {_code(guard) for _ in range(8)} == {429})
    guard.close()
    operator.join(PATIENCE)


def _until_replaced(guard: Guard, pids: list[int]) -> None:
    until("another worker", lambda: {pid for pid in guard.worker_pids if pid} - set(pids))


def _code(guard: Guard) -> int:
    try:
        return guard.get(agent="telemetry/1").code
    except (OSError, http.client.HTTPException):
        return 0  # it was on the worker that was killed
