"""The guard of a run: ``apiguard serve`` as a process, arranged as ``config/`` arranges it."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtests.bench.procfs import cpu_seconds, resident_bytes

from .apiservers import ApiServer
from .processes import ROOT, Child

SHIPPED_POLICY = ROOT / "config" / "policy.yaml"
ADMIN_TOKEN = "admin-token-of-a-load-test"  # noqa: S105 - of a guard that lives for a minute
SERVING, STARTING = "worker serves", "starting"


class Guard:
    """Started by its making. ``settings`` are sections of the configuration laid over the usual."""

    def __init__(
        self, folder: Path, server: ApiServer, policy: Path, settings: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self._log: list[dict[str, Any]] = []
        (folder / "admin-token").write_text(f"{ADMIN_TOKEN}\n")
        self._config = folder / "guard.json"
        self._settings = _settings(server, policy) | dict(settings)
        self._child = self._launch()
        self.address = self._said(STARTING)["listen"]
        self._settings["listen"]["address"] = self.address
        self.admin = f"http://{self._said(STARTING)['admin']}"

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    @property
    def pid(self) -> int:
        return self._child.process.pid

    @property
    def usage(self) -> tuple[int, float]:
        """Resident bytes and CPU seconds of all its processes."""
        return resident_bytes(self.pid), cpu_seconds(self.pid)

    def restart(self) -> float:
        """Ended as systemd ends it, and started again; seconds without anybody listening."""
        self._settings["admin"]["address"] = self.admin.removeprefix("http://")
        self._child.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        self._child.wait(10.0)
        self._child.close()
        self._log.clear()
        self._child = self._launch()
        return time.monotonic() - begun

    def metrics(self) -> str:
        request = urllib.request.Request(  # noqa: S310 - its own admin port
            f"{self.admin}/metrics", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
            text: str = answer.read().decode()
            return text

    def close(self) -> None:
        # Not drained: watches would end over a minute.
        self._child.process.kill()
        self._child.close()

    def _launch(self) -> Child:
        self._config.write_text(json.dumps(self._settings))
        command = ["apiguard.cli", "serve", "--config", str(self._config)]
        self._child = Child(
            "guard", command, self.folder / "guard.log", self._take, from_stderr=True
        )
        try:
            self._said(SERVING)
        except BaseException:
            self._child.process.kill()
            self._child.close()
            raise
        return self._child

    def _said(self, message: str) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            return next((line for line in list(self._log) if line["msg"] == message), None)

        return self._child.until(f"the guard says {message!r}", find)

    def _take(self, line: str) -> None:
        with (self.folder / "guard.log").open("a") as log:
            log.write(line)
        if line.startswith("{"):
            self._log.append(json.loads(line))


def _settings(server: ApiServer, policy: Path) -> dict[str, Any]:
    files = server.identities.files
    certificate, key = map(str, files.guard)
    proxy_certificate, proxy_key = map(str, files.proxy)
    return {
        "apiVersion": "apiguard.io/v1alpha1",
        "kind": "GuardConfig",
        "listen": {
            "address": "127.0.0.1:0",
            "tls": {"certFile": certificate, "keyFile": key, "clientCAFile": str(files.clients)},
        },
        "upstream": {
            "servers": [server.url],
            "caFile": str(server.authority),
            "serverName": "kubernetes.default.svc",
            "frontProxy": {
                "certFile": proxy_certificate,
                "keyFile": proxy_key,
                "userHeaders": ["X-Remote-User"],
                "groupHeaders": ["X-Remote-Group"],
                "uidHeaders": ["X-Remote-Uid"],
                "extraHeaderPrefixes": ["X-Remote-Extra-"],
            },
            "credentials": {"tokenFile": str(files.guard_token)},
        },
        "identity": {
            "staticTokensFile": str(files.tokens),
            "tokenReview": {"enabled": True, "reviewsPerSecond": 200},
        },
        "admin": {"address": "127.0.0.1:0", "tokenFile": "admin-token"},
        "stateDir": "state",
        "policyFile": str(policy.resolve()),
    }
