"""What a proxy needs to start, and what the harness knows of it afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.bench.certificates import Certificates
from loadtests.bench.processes import Cpus, Fleet


@dataclass(frozen=True, slots=True)
class Setting:
    """One case's surroundings. ``secure`` means TLS on both sides, else plain HTTP on both.

    ``plain_port`` reaches the upstream without TLS, to be told what the harness wants of it.
    """

    fleet: Fleet
    cpus: Cpus
    folder: Path
    certificates: Certificates
    secure: bool
    upstream_port: int
    plain_port: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends requests: by a bearer token, or by a PEM file of certificate and key."""

    token: str = ""
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """A started proxy: where it listens and the root of its process tree.

    ``admin`` is the guard's other port; ``callers`` are those a row can name; ``pace`` is a plain
    port that is told how often the collection of pods behind it changes; ``probe`` is the
    file in which the proxy's loop writes down how long it was kept.
    """

    name: str
    port: int
    process: int
    admin: int = 0
    callers: Mapping[str, Caller] = field(default_factory=dict)
    pace: int = 0
    probe: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """``program`` is looked up on PATH; without it, ``package`` says what to install. ``absent``
    says more than that can: why the peer cannot run here, or ""."""

    name: str
    start: Callable[[Setting], Running]
    program: str = ""
    package: str = ""
    absent: Callable[[], str] = str

    def missing(self) -> str:
        """Why the peer cannot run here, "" if it can."""
        if why := self.absent():
            return why
        if not self.program or find_program(self.program):
            return ""
        return f"{self.program} is not installed: {self.package}"


def find_program(name: str) -> str:
    """Path of a program, also where Debian keeps servers; "" without one."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin") or ""
