"""``python -m loadtests.player SCENARIO KUBECONFIG PLAYER [--scale N] [--time N] ...``.

Prints ``ready`` when it could begin; a line on standard input holds when to begin (seconds of
CLOCK_MONOTONIC). From then on each line printed is a JSON list of samples, a few times a second.
Ends with the scenario, or with standard input; the last line holds operations without an end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import gevent
from gevent.fileobject import FileObject
from locust.env import Environment

from loadtests.clients.credentials import Kubeconfig
from loadtests.clients.recording import Sample
from loadtests.scenario import load
from loadtests.users import Playing, user_classes

WRITE_EVERY = 0.2  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.player")
    parser.add_argument("scenario")
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("player")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--time", type=float, default=1.0)
    parser.add_argument("--bystanders", type=float, default=1.0)
    given = parser.parse_args()
    scenario = load(given.scenario).scaled(given.scale, given.time, given.bystanders)
    groups = scenario.of(given.player)
    pending: list[Sample] = []
    playing = Playing(scenario, Kubeconfig(given.kubeconfig), pending.append)
    # Locust installs handlers and colours of its own unless told that logging is somebody else's.
    environment = Environment(user_classes=user_classes(playing, groups))
    runner = environment.create_local_runner()
    print("ready", flush=True)  # noqa: T201 - what the other side waits for
    orders = FileObject(sys.stdin.fileno(), "rb", close=False)
    playing.origin = float(orders.readline())
    ended = gevent.spawn(orders.read)
    users = sum(group.count for group in groups)
    runner.start(users, spawn_rate=users)
    end = playing.origin + scenario.seconds
    while time.monotonic() < end and not ended.ready():
        gevent.sleep(WRITE_EVERY)
        _write(pending)
    runner.quit()
    _write(pending)


def _write(pending: list[Sample]) -> None:
    """As one line; nothing is lost if writing lets others run."""
    taken = pending[:]
    del pending[: len(taken)]
    if taken:
        print(json.dumps(taken), flush=True)  # noqa: T201 - its result


if __name__ == "__main__":
    main()
