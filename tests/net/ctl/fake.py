"""A guard's admin port made of plain answers: what the HTTP API says, and what it was asked."""

from __future__ import annotations

import json
import os
import socketserver
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit  # noqa: TID251 - reads what this project's client wrote

TOKEN = "fake-admin-token"

HOSTILE = "evil\x1b]0;owned\x07\x1b[2J\u202eagent"
"""A user-agent's family that would rename the window, clear it and reorder what follows."""


class Asked(NamedTuple):
    """One request as the guard saw it; ``body`` decoded if it is JSON, else text."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


class Said(NamedTuple):
    """One answer: a JSON value, or text as YAML."""

    code: int
    value: Any
    headers: dict[str, str] = {}  # noqa: RUF012 - a NamedTuple's default, never changed


Route = Callable[[Asked], Any]


def status(code: int, message: str, causes: list[tuple[str, str]] | None = None) -> Said:
    """A refusal as the guard words it; causes are (field, message)."""
    body: dict[str, Any] = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code,
    }  # fmt: skip
    if causes:
        body["details"] = {"causes": [{"field": f, "message": m} for f, m in causes]}
    return Said(code, body)


class FakeGuard:
    """Answers ``routes`` by method and path, 401 without the token; ``asked`` remembers."""

    def __init__(self, *, unix: Path | None = None, tls: tuple[Path, Path] | None = None) -> None:
        self.routes: dict[str, Any] = default_routes()
        self.asked: list[Asked] = []
        guard = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                guard._answer(self)

            def address_string(self) -> str:
                return "client"  # a Unix socket's peer has no address

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
                """Nothing: what was asked is in ``asked``."""

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.handle_any)
        self._server: socketserver.BaseServer
        if unix is not None:
            self._server = _UnixServer(str(unix), Handler)
            self.url = f"unix:{unix}"
        else:
            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            if tls is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*tls)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            self.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
            self._server = server
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """Once or more often."""
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def last(self, method: str) -> Asked:
        """The newest request of a method."""
        return [asked for asked in self.asked if asked.method == method][-1]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        said = self._said(handler)
        text = said.value if isinstance(said.value, str) else json.dumps(said.value)
        body = text.encode()
        handler.send_response(said.code)
        for name, value in said.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _said(self, handler: BaseHTTPRequestHandler) -> Said:
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0))).decode()
        is_json = handler.headers.get("Content-Type") == "application/json" and body
        asked = Asked(
            handler.command,
            parts.path,
            dict(parse_qsl(parts.query)),
            json.loads(body) if is_json else body,
            {name.lower(): value for name, value in handler.headers.items()},
        )
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return status(401, "the admin port needs Authorization: Bearer with the admin token")
        self.asked.append(asked)
        route = self.routes.get(f"{asked.method} {asked.path}")
        if route is None:
            return Said(404, "404: Not Found")
        answer = route(asked) if callable(route) else route
        if asked.path == "/v1/top" and isinstance(answer, dict):
            answer = answer | {
                "rows": [_by(r, asked.query["by"]) for r in answer.get("rows") or []]
            }
        return answer if isinstance(answer, Said) else Said(200, answer)


def _by(row: dict[str, Any], dimensions: str) -> dict[str, Any]:
    """A row's key has what was asked by, a request as verb and resource."""
    names = {*dimensions.split(","), "verb", "resource"}
    return row | {"key": {name: value for name, value in row["key"].items() if name in names}}


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def server_close(self) -> None:
        super().server_close()
        os.unlink(str(self.server_address))


# -- what it says by default

POLICY = "apiVersion: apiguard.io/v1alpha1\nkind: ThrottlePolicy\nrules: []\n# end\n"


def row(family: str, user: str, requests: int, *, new: bool = False) -> dict[str, Any]:
    """A row of ``/v1/top`` by userAgent,user of 1,000 requests in a minute."""
    return {
        "key": {"userAgent": family, "user": user},
        "requests": requests,
        "requestsPerSecond": requests / 60,
        "refused": 7,
        "bytes": requests * 10_000,
        "upstreamSeconds": requests / 100,
        "share": {"requests": requests / 1000, "bytes": 0.5, "upstreamSeconds": 0.004},
        "unpagedLists": requests,
        "rvLessLists": 3,
        "firstSeen": None,
        "new": new,
    }


def override(id_: str = "7f3a", **changed: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "action": "ban",
        "match": {"userAgents": ["telemetry/*"], "listShape": {"unpaged": True}},
        "reason": "INC-7",
        "actor": "alice",
        "created": "2026-01-01T10:00:00Z",
        "expires": "2026-01-01T10:30:00Z",
        "remainingSeconds": 1800,
        "endWatches": False,
        "hits": {"refused": 12, "admitted": 0, "lastSecondsAgo": 3.2},
        "workers": [{"worker": 0, "applied": True, "problem": ""}],
        **changed,
    }


def amounts(requests: float) -> dict[str, Any]:
    return {"records": 9, "requests": requests, "bytes": 4_200_000, "upstreamSeconds": 31.25}


def effects(refused: float, total: float) -> dict[str, Any]:
    nothing = {"records": 0, "requests": 0, "bytes": 0, "upstreamSeconds": 0}
    return {
        "total": amounts(total),
        "newlyRefused": amounts(refused),
        "newlyAdmitted": nothing,
        "exempted": nothing,
        "unchanged": amounts(total - refused),
        "wouldRefuse": nothing,
        "refusedBefore": 0,
        "refusedAfter": refused,
    }


def preview(client: str = "telemetry") -> dict[str, Any]:
    return {
        "dryRun": True,
        "preview": {
            "sampledRequests": 412,
            "representedRequests": 20_000.0,
            "seconds": 300.0,
            "secondsAgo": 0.4,
            "largestWeight": 52.0,
            "leftOut": 0,
            "method": "uniform samples",
            "enforcement": "enforce",
            "totals": effects(6_200.0, 20_000.0),
            "clients": [
                {"userAgentFamily": client, "user": "", "effects": effects(6_200.0, 6_200.0)},
                {"userAgentFamily": "kubelet", "user": "n1", "effects": effects(0.0, 13_800.0)},
            ],
            "clientsLeftOut": 0,
            "rules": [{"rule": "override:preview", "effects": effects(6_200.0, 6_200.0)}],
            "rulesLeftOut": 0,
            "caveats": ["Buckets begin full."],
        },
    }


def added(asked: Asked) -> Any:
    """POST /v1/overrides: a preview for a dry run, else the override with what was asked."""
    if asked.query.get("dryRun") == "All":
        return preview()
    ttl = asked.body.get("ttlSeconds", 1800)
    given = {key: value for key, value in asked.body.items() if key != "ttlSeconds"}
    blank = {key: value for key, value in override().items() if key != "match"}
    return Said(201, {**blank, **given, "remainingSeconds": ttl})


def policy(asked: Asked) -> Any:
    if "application/yaml" in asked.headers["accept"]:
        return Said(200, POLICY, {"ETag": '"12"'})
    return {"generation": 12, "digest": "abc", "policy": POLICY}


STATUS = {
    "version": "0.1.0",
    "uptimeSeconds": 7_300.0,
    "ready": True,
    "checks": [{"name": "workers", "passed": True, "reason": ""}],
    "enforcement": {"enforcement": "enforce", "configured": "enforce", "override": None},
    "policy": {"generation": 12, "origin": {"actor": "alice"}, "why": "put through admin"},
    "listen": {"address": "127.0.0.1:7443", "tls": True},
    "workers": [
        {"worker": i, "state": "serving", "loopLagSeconds": 0.002, "connections": 20,
         "requestsInFlight": 3, "watches": 40, "buckets": 9, "problem": ""}
        for i in range(2)
    ],
    "upstream": [{"server": "https://10.0.0.1:6443", "state": "up", "usable": True, "detail": ""}],
    "certificates": [],
    "brokenFiles": {},
}  # fmt: skip
FLOWS = {
    "rules": [
        {
            "rule": "telemetry-lists", "mode": "enforce", "exempt": False,
            "requests": {"forwarded": 900, "refused": 50, "wouldRefuse": 0, "rejected": 0,
                         "failed": 1},
            "limits": [
                {"limit": "telemetry-lists/user", "per": ["user"], "requestsPerSecond": 20,
                 "burst": 40, "bucketCount": 2,
                 "buckets": [{"bucket": "b1", "key": [HOSTILE], "level": 3.2, "admitted": 800,
                              "refused": 50, "wouldRefuse": 0, "lastSeenSecondsAgo": 0.4}]},
            ],
        },
        {"rule": "heartbeats", "mode": "enforce", "exempt": True, "limits": [],
         "requests": {"forwarded": 4000, "refused": 0, "wouldRefuse": 0, "rejected": 0,
                      "failed": 0}},
    ]
}  # fmt: skip
UPSTREAMS = {
    "upstreams": [
        {"index": 0, "server": "https://10.0.0.1:6443", "state": "up", "usable": True,
         "detail": "", "drained": False, "probes": 400, "probedSecondsAgo": 1.2,
         "requestsInFlight": 6},
    ]
}  # fmt: skip
PODS = {
    "name": "pods", "group": "", "version": "v1", "resource": "pods", "form": "protobuf",
    "state": "ready", "why": "", "objects": 10_000, "resourceVersion": "9007199254740993",
    "bytes": {"objects": 41_000_000, "indexes": 6_000_000, "bodies": 82_000_000, "log": 9_000_000},
    "lag": {"heardSecondsAgo": 0.4, "eventSecondsAgo": 2.0, "provenSecondsAgo": 1.0,
            "lostSeconds": 0.0},
    "watchers": 400, "slowWatchers": 2, "waiting": 1, "lists": {"any": 900, "recent": 30},
    "watches": 410, "events": 52_000, "staleReads": 4, "bypasses": {"history": 3, "stale": 1},
    "rebuilds": 0,
}  # fmt: skip
LOST = PODS | {
    "name": "deployments.apps", "group": "apps", "resource": "deployments", "state": "stale",
    "why": "upstream", "lag": {"heardSecondsAgo": 95.0, "lostSeconds": 90.0}, "bypasses": {},
}  # fmt: skip
UNUSED = {"name": "nodes", "group": "", "version": "v1", "resource": "nodes", "form": "",
          "state": "unused", "lag": {"heardSecondsAgo": None}}  # fmt: skip
RELAY = {
    "enabled": True, "caches": [PODS, LOST, UNUSED], "waiting": 1, "refusals": {"429": 12},
    "bypasses": {"table": 80, "history": 3, "stale": 1},
    "reviews": {"budgetPerSecond": 50.0, "stretchedSeconds": 31.0},
}  # fmt: skip
STANDING_OUT = PODS | {
    "elephants": [{"object": "kube-system/fat", "bytes": 900_000},
                  {"object": f"a/{HOSTILE}", "bytes": 20_000}],
    "hotKeys": [{"object": "default/busy", "changesPerMinute": 61.5}],
}  # fmt: skip
HISTORY = {
    "generations": [
        {"generation": 12, "digest": "abc", "actor": "alice", "at": "2026-01-01T10:00:00Z",
         "reason": "INC-7", "origin": "admin", "active": True},
        {"generation": 11, "digest": "def", "actor": "", "at": "2026-01-01T09:00:00Z",
         "reason": "", "origin": "file", "active": False},
    ]
}  # fmt: skip
ACTIONS = {
    "events": [
        {"id": "1", "at": "2026-01-01T10:00:00Z", "actor": "alice", "role": "operator",
         "source": "127.0.0.1", "action": "override.add", "target": "7f3a", "before": None,
         "after": {"action": "ban"}, "reason": "INC-7", "result": "done"},
    ]
}  # fmt: skip
REQUESTS = {
    "events": [
        {"at": "2026-01-01T10:00:00Z", "user": "", "userAgent": HOSTILE, "source": "10.0.0.9",
         "verb": "list", "resource": "pods", "code": 429, "decision": "refused",
         "rule": "override:7f3a", "path": "/api/v1/pods", "auditID": ""},
    ]
}  # fmt: skip


def flows(asked: Asked) -> Any:
    named = asked.query.get("rule")
    return {"rules": [r for r in FLOWS["rules"] if named in (None, r["rule"])]}


def default_routes() -> dict[str, Any]:
    rows = [row("telemetry", "", 600, new=True), row(HOSTILE, "system:node:n1", 300)]
    return {
        "GET /v1/top": {"by": "userAgent", "over": "1m", "sort": "requests", "seconds": 60,
                        "totals": {"requests": 1000, "refused": 14, "bytes": 9_000_000,
                                   "upstreamSeconds": 9.0},
                        "rows": rows},
        "GET /v1/status": STATUS,
        "GET /v1/flows": flows,
        "GET /v1/upstreams": UPSTREAMS,
        "POST /v1/upstreams/0/drain": UPSTREAMS["upstreams"][0],
        "POST /v1/upstreams/0/undrain": UPSTREAMS["upstreams"][0],
        "GET /v1/relay": RELAY,
        "GET /v1/relay/pods": {"resource": "pods", "caches": [STANDING_OUT]},
        "GET /v1/overrides": {"overrides": [override()]},
        "POST /v1/overrides": added,
        "GET /v1/overrides/7f3a": override(),
        "PATCH /v1/overrides/7f3a": override(remainingSeconds=3600),
        "DELETE /v1/overrides/7f3a": override(),
        "GET /v1/policy": policy,
        "PUT /v1/policy": lambda asked: preview() if asked.query.get("dryRun") else
            {"generation": 13, "rules": 4, "workers": [{"worker": 0, "applied": True}]},
        "GET /v1/policy/history": HISTORY,
        "GET /v1/policy/history/11": "# the one before\n",
        "POST /v1/policy/rollback": {"generation": 14, "rules": 3, "workers": []},
        "PUT /v1/enforcement": lambda asked: {
            "enforcement": asked.body["enforcement"] or "enforce", "configured": "enforce"},
        "GET /v1/audit": lambda asked: ACTIONS if asked.query["kind"] == "actions" else REQUESTS,
        "GET /v1/whoami": {"name": "alice", "role": "operator"},
        "POST /v1/explain": lambda asked: {
            "decision": "forwarded", "request": {"verb": "list"}, "rule": "default",
            "exempt": False, "mode": "enforce", "limits": [],
            "caller": {"standing": "anonymous", "user": "", "userAgentFamily": "",
                       "source": "127.0.0.1"}},
    }  # fmt: skip
