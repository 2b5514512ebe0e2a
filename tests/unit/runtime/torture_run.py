"""Kills a process that changes a guard's state, again and again, and looks at what is left.

``torture_run.py DIRECTORY ROUNDS SEED``. Every round forks a child that takes the state up, says
on a pipe what it begins and what was answered, and is killed at a random moment. The next life
must find everything that was answered for, in this order and once; of what was begun and not
answered, all or nothing. Prints one line of JSON, or raises.

In a process of its own: it forks, and so must never have had a thread.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from apiguard.runtime.overriding import Live
from apiguard.runtime.state import Changed
from tests.unit.runtime.keeping import ALICE, POLICY, Kept

LONGEST_LIFE = 0.08
MOST_OVERRIDES = 6
COMPARED = 1_000
"""Lines on record that are looked at: all of several lives."""

Step = dict[str, Any]


def _say(**fields: object) -> None:
    os.write(3, json.dumps(fields).encode() + b"\n")


async def _live(directory: Path, seed: int) -> None:
    """Changes something until it is killed."""
    chance = random.Random(seed)
    kept = Kept(directory)
    _say(up=True)
    while True:
        await _change(kept, chance, chance.randrange(1_000_000))


async def _change(kept: Kept, chance: random.Random, number: int) -> None:
    overrides = [live.stored.id for live in kept.overrides.in_force()]
    kinds = ["policy.put", "enforcement.set", "policy.rollback"]
    kinds += ["override.add"] if len(overrides) < MOST_OVERRIDES else []
    kinds += ["override.delete", "override.extend"] if overrides else []
    kind = chance.choice(kinds)
    _say(begin=kind, number=number)
    target = chance.choice(overrides) if overrides else ""
    done: object
    match kind:
        case "policy.put":
            done = await kept.keeper.propose(
                POLICY % number, "policy", generation=None, actor=ALICE
            )
        case "policy.rollback":
            known = chance.choice(kept.keeper.history()).generation
            done = await kept.keeper.roll_back(known, actor=ALICE, reason=str(number))
            target = str(known)
        case "enforcement.set":
            mode = chance.choice(["", "shadow", "enforce"])
            done = await kept.keeper.set_enforcement(mode, actor=ALICE)
            target = ""
        case "override.add":
            done = await kept.add(number)
            target = done.stored.id if isinstance(done, Live) else ""
        case "override.delete":
            done = await kept.overrides.delete(target, ALICE)
        case _:
            done = await kept.overrides.extend(target, 1 + number % 80_000, ALICE)
    assert isinstance(done, Changed | Live), done
    if kind == "policy.put":
        target = "policy"
    _say(done=kind, target=target, state=_comparable(kept.summary()))


def _comparable(value: object) -> Any:
    return json.loads(json.dumps(value))


def _one_life(directory: Path, chance: random.Random) -> list[Step]:
    """What a child said until it was killed."""
    reading, writing = os.pipe()
    seed = chance.randrange(1 << 30)  # before the fork, or every child would do the same
    child = os.fork()
    if not child:
        os.close(reading)
        os.dup2(writing, 3)
        try:
            asyncio.run(_live(directory, seed))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)  # it never ends by itself
    os.close(writing)
    first = os.read(reading, 65_536)  # it is up, or gone
    time.sleep(chance.random() * LONGEST_LIFE)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = first
    while more := os.read(reading, 65_536):
        said += more
    os.close(reading)
    assert os.WIFSIGNALED(status), f"the child failed after saying {said!r}"
    return [json.loads(line) for line in said.splitlines()]


class Model:
    """What must be on record, and what in force."""

    def __init__(self, kept: Kept) -> None:
        self.record = kept.done()
        self.state = _comparable(kept.summary())
        self.answered = self.half_way = self.carried_out = 0

    def check(self, said: list[Step], kept: Kept) -> None:
        answered = [step for step in said if "done" in step]
        self.answered += len(answered)
        self.record += [(step["done"], step["target"]) for step in answered]
        if answered:
            self.state = answered[-1]["state"]
        found, state = kept.done(), _comparable(kept.summary())
        if "begin" in said[-1]:
            self.half_way += 1
            self._settle(said[-1]["begin"], found, state)
        assert found[-COMPARED:] == self.record[-COMPARED:], "on record is something else"
        assert state == self.state, "in force is something else"

    def _settle(self, kind: str, found: list[tuple[object, object]], state: Any) -> None:
        """What was begun and not answered is on record and in force, or neither."""
        if found[-COMPARED:] == self.record[-COMPARED:]:
            return
        self.carried_out += 1
        assert found[-1][0] == kind
        assert state != self.state or kind == "enforcement.set", (
            f"{kind} is on record and not in force"
        )
        self.record.append(found[-1])
        self.state = state


def main() -> None:
    directory, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    kept = Kept(directory)
    model = Model(kept)
    kept.close()
    for _ in range(rounds):
        said = _one_life(directory, chance)
        kept = Kept(directory)
        try:
            model.check(said, kept)
            assert not list((directory / "state").rglob("*.tmp"))
        finally:
            kept.close()
    figures = {"answered": model.answered, "halfWay": model.half_way}
    os.write(1, json.dumps({**figures, "carriedOut": model.carried_out}).encode())


if __name__ == "__main__":
    main()
