"""Specs in, the numbers of each or an error out, all JSON; several are of closed loops, in turn."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from loadtests.bench.generator import closed_loop, handshakes, open_loop, relayed, streams, waves
from loadtests.bench.generator.spec import Numbers, Spec, WrongAnswerError

MODES: dict[str, Callable[[Spec], Numbers]] = {
    "closed": closed_loop.run,
    "waves": waves.run,
    "open": open_loop.run,
    "watch": streams.watch,
    "lists": streams.fetch_lists,
    "stall": streams.stall,
    "handshakes": handshakes.run,
    "relay-lists": relayed.lists,
    "relay-lag": relayed.lag,
    "relay-filling": relayed.filling,
    "relay-watch": relayed.watch,
    "relay-nodes": relayed.nodes,
    "relay-idle": relayed.idle,
    "relay-fill": relayed.fill,
    "relay-stall": relayed.stall,
    "relay-ceilings": relayed.ceilings,
}


def main(arguments: list[str]) -> int:
    specs = [Spec.loads(text) for text in arguments]
    found: dict[str, object]
    try:
        found = {"windows": _windows(specs)}
    except (WrongAnswerError, OSError) as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _windows(specs: list[Spec]) -> list[Numbers]:
    if len(specs) > 1:
        return closed_loop.in_turn(specs)
    return [MODES[spec.mode](spec) for spec in specs]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
