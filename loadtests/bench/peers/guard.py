"""apiguard itself: ``apiguard serve`` with a policy of a given number of rules."""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from loadtests.bench import traffic
from loadtests.bench.certificates import SERVER_NAME, Certificates
from loadtests.bench.peers.peer import Caller, Peer, Running, Setting
from loadtests.bench.processes import StartError, free_port

ORDINARY_RULES = 20
REST = "clients"
"""The rule of verified users; what is unverified or nameless is under the default."""

ADMIN_TOKEN = "bench-admin-token-0123456789abcdef"  # noqa: S105 - of loopback ports, for minutes
_ENOUGH = 1_000_000  # requests per second that no run here reaches
_READY_DEADLINE = 20.0


def guard(name: str = "apiguard", rules: int = ORDINARY_RULES, **choices: bool) -> Peer:
    """A guard with ``rules`` rules, all of which a measured request has to pass but the last.

    ``choices``: ``shadow`` as in ``policy``; ``observing=False`` turns all of ``observability``
    off.
    """
    return Peer(name, _starter(name, rules, **choices))


def policy(rules: int, *, shadow: bool = False) -> str:
    """A ThrottlePolicy: one ban, rules that miss by one field, and one that takes the rest.

    The misses name user-agents and users of the distinct traffic but other verbs, so that no
    single field settles them. With ``shadow`` the last rule only counts, and what it would refuse
    is nearly everything.
    """
    banned = {
        "name": "banned",
        "match": {"userAgents": [traffic.REFUSED_AGENT.partition("/")[0] + "/*"]},
        "limits": [{"requestsPerSecond": 0}],
    }
    misses = [_miss(number) for number in range(rules - 2)]
    rest = {
        "name": REST,
        "match": {"users": ["system:*"], "resources": ["*"]},
        **({"mode": "shadow", "limits": _scant()} if shadow else {"limits": _ample()}),
    }
    document = {
        "apiVersion": "apiguard.io/v1alpha1",
        "kind": "ThrottlePolicy",
        "rules": [banned, *misses, rest],
        # The same, so that verified and unverified callers differ in nothing else.
        "default": {"limits": _ample()},
    }
    return yaml.safe_dump(document, sort_keys=False)


def _ample() -> list[dict[str, object]]:
    """Made anew each time: YAML would write one that is used twice as an anchor."""
    return [
        {"requestsPerSecond": _ENOUGH, "burst": _ENOUGH},
        {"requestsPerSecond": _ENOUGH, "burst": _ENOUGH, "per": ["userAgentFamily", "user"]},
    ]


def _scant() -> list[dict[str, object]]:
    """As many limits as ``_ample``, so that only their outcome differs."""
    return [
        {"requestsPerSecond": 1, "burst": 1},
        {"requestsPerSecond": 1, "burst": 1, "per": ["userAgentFamily", "user"]},
    ]


def _miss(number: int) -> dict[str, object]:
    return {
        "name": f"miss-{number}",
        "match": {
            "userAgents": [f"agent-{number}/*"],
            "users": [f"system:serviceaccount:team-{number % 50}:*"],
            "verbs": ["create", "patch"],
            "resources": ["pods", "deployments.apps"],
            "namespaces": ["*"],
        },
        "limits": [
            {"requestsPerSecond": 50, "burst": 100},
            {"requestsPerSecond": 5, "burst": 10, "per": ["userAgentFamily", "user"]},
        ],
    }


def _starter(
    name: str, rules: int, *, shadow: bool = False, observing: bool = True
) -> Callable[[Setting], Running]:
    def start(setting: Setting) -> Running:
        folder = setting.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokens.csv").touch(mode=0o600)
        (folder / "tokens.csv").write_text(traffic.token_file())
        sections: Sections = {"identity": {"staticTokensFile": "tokens.csv"}}
        if setting.secure:
            listen, upstream = tls_sections(setting.certificates)
            sections |= {"listen": {"tls": listen}, "upstream": upstream}
        if not observing:
            sections["observability"] = dict.fromkeys(("topTalkers", "samples", "audit"), False)
        return launch(setting, name, policy(rules, shadow=shadow), sections)

    return start


_OPTIONAL = ("relay", "bounds")
Sections = dict[str, dict[str, object]]
"""Sections of a GuardConfig; where to listen and whom to ask is filled in."""


def tls_sections(issued: Certificates) -> tuple[dict[str, object], dict[str, object]]:
    """``listen.tls`` and the part of ``upstream`` that makes both sides TLS."""
    listen: dict[str, object] = {"certFile": str(issued.certificate), "keyFile": str(issued.key)}
    return listen, {"caFile": str(issued.authority), "serverName": SERVER_NAME}


def launch(
    setting: Setting,
    name: str,
    rules: str,
    sections: Sections,
    callers: Mapping[str, Caller] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Start a guard under the policy ``rules`` that is ready. Raises ``StartError``."""
    port, admin = free_port(), free_port()
    file = _write_files(setting, name, rules, sections, (port, admin))
    process = setting.fleet.start(
        name,
        [sys.executable, "-m", "apiguard.cli", "serve", "--config", str(file)],
        cpus=setting.cpus.proxy,
        ports=[admin],
        environment=environment,
    )
    _wait_until_ready(name, admin)
    return Running(name, port, process, admin, callers or {}, setting.plain_port)


def _write_files(
    setting: Setting, name: str, rules: str, sections: Sections, ports: tuple[int, int]
) -> Path:
    port, admin = ports
    folder = setting.folder / name
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_text(rules)
    (folder / "admin-token").touch(mode=0o600)
    (folder / "admin-token").write_text(ADMIN_TOKEN)
    server = f"{'https' if setting.secure else 'http'}://127.0.0.1:{setting.upstream_port}"
    file = folder / "guard.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "apiguard.io/v1alpha1",
                "kind": "GuardConfig",
                "listen": {"address": f"127.0.0.1:{port}", **sections.get("listen", {})},
                "upstream": {"servers": [server], **sections.get("upstream", {})},
                "identity": sections["identity"],
                "observability": sections.get("observability", {}),
                "admin": {"address": f"127.0.0.1:{admin}", "tokenFile": "admin-token"},
                "stateDir": str(state),
                "workers": 1,
                "policyFile": "policy.yaml",
                **{name: sections[name] for name in _OPTIONAL if name in sections},
            },
            sort_keys=False,
        )
    )
    return file


def _wait_until_ready(name: str, admin: int) -> None:
    """Until /readyz says so: the port is open before a worker serves it."""
    deadline = time.monotonic() + _READY_DEADLINE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=2)
        try:
            connection.request("GET", "/readyz?verbose")
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            if answer.status == http.HTTPStatus.OK:
                return
        except OSError as error:
            text = str(error)
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise StartError(f"{name} is not ready: {text}")
        time.sleep(0.05)
