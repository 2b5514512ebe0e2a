"""A guard whose relay answers for the pods of ``podserver``; and one that watches its own loop.

Callers present a token that upstream has confirmed, as agents in pods do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from loadtests.bench.peers import loopprobe
from loadtests.bench.peers.guard import ORDINARY_RULES, launch, policy, tls_sections
from loadtests.bench.peers.peer import Peer, Running, Setting

NAME = "relay"
_OWN_TOKEN = "bench-guard-token"  # noqa: S105 - of loopback ports, for minutes
_CONNECTIONS = 8_000
_HOOK = """\
import sys
if any("apiguard.runtime.worker" in part for part in sys.orig_argv):
    import {module} as probe
    probe.install({path!r})
"""


def relay(name: str = NAME, *, probed: bool = False) -> Peer:
    return Peer(name, _starter(name, probed=probed))


def _starter(name: str, *, probed: bool) -> Callable[[Setting], Running]:
    def start(setting: Setting) -> Running:
        folder = setting.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        token = folder / "own-token"
        token.touch(mode=0o600)
        token.write_text(_OWN_TOKEN)
        listen, upstream = tls_sections(setting.certificates)
        sections: dict[str, dict[str, object]] = {
            "listen": {"tls": listen},
            "upstream": {**upstream, "credentials": {"tokenFile": "own-token"}},
            "identity": {"tokenReview": {"enabled": True}},
            "relay": {
                "resources": [{"version": "v1", "resource": "pods"}],
                # Thousands of selectors are thousands of questions, and all at once.
                "authorization": {"reviewsPerSecond": 10_000},
            },
            "bounds": {"connectionsPerSource": _CONNECTIONS},
        }
        rules = policy(ORDINARY_RULES)
        if not probed:
            return launch(setting, name, rules, sections)
        return _launch_probed(setting, name, rules, sections, folder)

    return start


def _launch_probed(
    setting: Setting, name: str, rules: str, sections: dict[str, dict[str, object]], folder: Path
) -> Running:
    probe = folder / "loop.txt"
    (folder / "sitecustomize.py").write_text(
        _HOOK.format(module=loopprobe.__name__, path=str(probe))
    )
    environment = {"PYTHONPATH": f"{folder}:{Path.cwd()}"}
    running = launch(setting, name, rules, sections, environment=environment)
    return Running(name, running.port, running.process, pace=running.pace, probe=str(probe))


RELAY = relay()
PROBED_RELAY = relay("relay-probed", probed=True)
