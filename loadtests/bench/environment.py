"""Where figures were taken: they mean nothing without it."""

from __future__ import annotations

import os
import platform
import re
import ssl
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from loadtests.bench.peers.peer import find_program

_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
_LIBRARIES = ("apiguard", "uvloop", "httptools", "aiohttp")
_REPOSITORY = Path(__file__).parent.parent.parent


def describe() -> dict[str, str]:
    """Machine, kernel, versions and commit; "" for what cannot be found out."""
    return {
        "cpu": _cpu_model(),
        "cpus": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "commit": _commit(),
        "load": f"{os.getloadavg()[0]:.2f}",
        "haproxy": _version([find_program("haproxy"), "-v"]),
        "nginx": _version([find_program("nginx"), "-v"]),
        **{name: _library(name) for name in _LIBRARIES},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """Short commit, with ``+`` when the tree differs from it."""
    commit = _output(["git", "-C", str(_REPOSITORY), "rev-parse", "--short", "HEAD"])
    changes = _output(["git", "-C", str(_REPOSITORY), "status", "--porcelain", "-uno"])
    return f"{commit}+" if commit and changes else commit


def _version(command: Sequence[str]) -> str:
    found = _VERSION.search(_output(command)) if command[0] else None
    return found[0] if found else ""


def _library(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _output(command: Sequence[str]) -> str:
    try:
        # nginx tells its version on standard error.
        done = subprocess.run(  # noqa: S603 - fixed programs, looked up by the harness
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
