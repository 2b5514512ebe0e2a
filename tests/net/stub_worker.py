"""A process that speaks the control protocol and carries no traffic; argv[1] says how it behaves.

Run by tests in place of a worker: ``stub_worker.py BEHAVIOUR --control=FD --listen=FD``.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from apiguard.runtime.control import (
    MAX_COMMAND,
    ApplyPolicy,
    Command,
    Done,
    Drain,
    Event,
    Failed,
    FindStandouts,
    Frames,
    Ready,
    Report,
    SetEnforcement,
    SetOverrides,
    Standouts,
    Start,
    Traffic,
    frame,
    read_command,
)
from apiguard.runtime.relayreport import CacheName, CacheStandouts
from apiguard.telemetry.counters import Delta

_DELTA = Delta(requests={("rule", "forwarded", "get", 200): 1})


def main() -> None:
    behaviour, marker = sys.argv[1].partition(":")[::2]
    control = socket.socket(fileno=int(sys.argv[2].partition("=")[2]))
    commands = _commands(control)
    start = next(commands)
    assert isinstance(start, Start)
    if behaviour == "fail":
        _send(control, Failed("no such thing"))
        sys.exit(1)
    if behaviour in ("garbage", "mismatched") and not Path(marker).exists():
        Path(marker).touch()
        hostile = Report(Delta(guard_counts=(1,)), (), Traffic())
        control.sendall(b"\0\0\0\1\xc1" if behaviour == "garbage" else frame(hostile))
        next(commands, None)  # the supervisor hangs up
        os._exit(0)
    _send(control, Ready("stub"))
    _send(control, Report(_DELTA, (), Traffic(connections=start.worker + 1)))
    for command in commands:
        if isinstance(command, Drain):
            return
        if isinstance(command, ApplyPolicy | SetEnforcement | SetOverrides) and behaviour != "deaf":
            _send(control, Done(command.id))
        if isinstance(command, FindStandouts) and behaviour != "deaf":
            name = CacheName(command.group, "v1", command.resource, "json")
            found = CacheStandouts(name, 30.0, ((9_000, "a/big"),), ((6, "a/hot"),))
            _send(control, Standouts(command.id, (found,)))


def _send(control: socket.socket, event: Event) -> None:
    control.sendall(frame(event))


def _commands(control: socket.socket) -> Iterator[Command]:
    frames = Frames(MAX_COMMAND)
    while data := control.recv(65_536):
        for body in frames.receive_data(data):
            yield read_command(body)


if __name__ == "__main__":
    main()
