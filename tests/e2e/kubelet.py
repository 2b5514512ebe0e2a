"""A kubelet that runs nothing: exec, attach, port-forward over SPDY/3.1, and logs.

It answers the paths of a kubelet, which is what a real kube-apiserver dials, and those of the pods
API, so that it can itself stand where a guard expects kube-apiserver. A "container" prints its
command, echoes standard input, and ends with the code that ``exit N`` names.

Streams and their headers: k8s.io/kubelet/pkg/cri/streaming/{remotecommand,portforward}.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote_plus

from apiguard.demo.certs import server_context
from tests.e2e.spdy import Data, Opened, SpdyServer

_KUBELET = re.compile(r"/(exec|attach|portForward|containerLogs)/[^/]+/[^/]+(?:/[^/]+)?")
_API = re.compile(r"/api/v1/namespaces/[^/]+/pods/[^/]+/(exec|attach|portforward|log)")
_PROTOCOLS = ("v4.channel.k8s.io", "portforward.k8s.io")
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    "status": {"phase": "Running"},
}
_DOCUMENTS = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod",
             "verbs": ["get", "list"]},
        ],
    },
    "/api/v1/namespaces/default/pods/web": POD,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Session:
    """One request for streams, as it arrived."""

    method: str
    path: str
    upgrade: str


@dataclass(slots=True)
class Container:
    """Fake process of one exec or attach: what it writes where."""

    command: list[str]
    streams: int
    has_input: bool
    ids: dict[str, int] = field(default_factory=dict)

    def handle(self, event: Opened | Data, spdy: SpdyServer) -> None:
        if isinstance(event, Opened):
            self.ids[event.headers["streamtype"]] = event.stream
            if len(self.ids) == self.streams:
                spdy.send(self.ids["stdout"], f"{' '.join(self.command)}\n".encode())
                if not self.has_input:
                    self._end(spdy)
        elif event.stream == self.ids.get("stdin"):
            if event.data:
                spdy.send(self.ids["stdout"], event.data)
            if event.last:
                self._end(spdy)

    def _end(self, spdy: SpdyServer) -> None:
        code = self.command[1] if self.command[:1] == ["exit"] else "0"
        status: dict[str, object] = {"metadata": {}, "status": "Success"}
        if code != "0":
            causes = [{"reason": "ExitCode", "message": code}]
            status |= {"status": "Failure", "reason": "NonZeroExitCode"}
            status |= {"message": "command failed", "details": {"causes": causes}}
        spdy.send(self.ids["error"], json.dumps(status).encode(), last=True)
        for name in ("stdout", "stderr"):
            if name in self.ids:
                spdy.send(self.ids[name], b"", last=True)


@dataclass(slots=True)
class Forwarder:
    """Echoes every data stream of a port-forward, and ends it when its client has."""

    errors: dict[str, int] = field(default_factory=dict)
    data: dict[int, str] = field(default_factory=dict)

    def handle(self, event: Opened | Data, spdy: SpdyServer) -> None:
        if isinstance(event, Opened):
            request = event.headers["requestid"]
            if event.headers["streamtype"] == "error":
                self.errors[request] = event.stream
            else:
                self.data[event.stream] = request
        elif event.stream in self.data:
            spdy.send(event.stream, event.data, last=event.last)
            if event.last:
                spdy.send(self.errors[self.data[event.stream]], b"", last=True)


class FakeKubelet:
    """Listens with TLS on a port of the kernel's choice; ``sessions`` is what was asked of it."""

    def __init__(self, certificate: Path, key: Path) -> None:
        kubelet = self
        self.sessions: list[Session] = []
        self.next_line = threading.Event()

        class Handler(_Handler):
            def setup(self) -> None:
                self.kubelet = kubelet
                super().setup()

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.socket = server_context(certificate, key).wrap_socket(
            # The handshake belongs to the thread of the connection, not to the one that accepts.
            self._server.socket, server_side=True, do_handshake_on_connect=False,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.next_line.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients leave in the middle of things; what matters a test asserts."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kubelet: FakeKubelet

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        match = _KUBELET.fullmatch(path) or _API.fullmatch(path)
        if match is None:
            self._document(path)
        elif match[1] in ("containerLogs", "log"):
            self._log(follow="follow=true" in query.split("&"))
        else:
            self._streams(match[1], path, query)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
        """Nothing: ``sessions`` holds what tests ask about."""

    def _document(self, path: str) -> None:
        found = _DOCUMENTS.get(path)
        self._answer(200 if found else 404, json.dumps(found or {"kind": "Status"}).encode())

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _log(self, *, follow: bool) -> None:
        """One line now, and to followers another when the test says so."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(b"first line\n")
        if follow:
            self.kubelet.next_line.wait(30)
            self._chunk(b"second line\n")
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _streams(self, kind: str, path: str, query: str) -> None:
        upgrade = self.headers.get("Upgrade", "")
        self.kubelet.sessions.append(Session(self.command, path, upgrade))
        offered = self.headers.get_all("X-Stream-Protocol-Version") or []
        version = next((name for name in _PROTOCOLS if name in ",".join(offered)), "")
        if upgrade != "SPDY/3.1" or not version:
            self._answer(403, b'{"kind":"Status","status":"Failure","code":403}')
            return
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", upgrade)
        self.send_header("X-Stream-Protocol-Version", version)
        self.end_headers()
        self.close_connection = True
        self._serve_streams(_machine(kind, query).handle)

    def _serve_streams(self, handle: Callable[[Opened | Data, SpdyServer], None]) -> None:
        spdy = SpdyServer()
        while data := self.connection.recv(65_536):
            for event in spdy.receive(data):
                handle(event, spdy)
            self.connection.sendall(spdy.output)
            spdy.output.clear()


def _machine(kind: str, query: str) -> Container | Forwarder:
    if kind.lower() == "portforward":
        return Forwarder()
    given = [part.partition("=")[::2] for part in query.split("&")]
    command = [unquote_plus(value) for name, value in given if name == "command"]
    wanted = {name for name, value in given if value in ("1", "true")}
    # A kubelet calls them input, output and error; the API stdin, stdout and stderr.
    streams = 1 + sum(
        bool(wanted & names)
        for names in ({"input", "stdin"}, {"output", "stdout"}, {"error", "stderr"})
    )
    return Container(command or [kind], streams, bool(wanted & {"input", "stdin"}))
