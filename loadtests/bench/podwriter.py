"""Fills a real API server with the pods of ``bench.pods``, and changes them at will.

Run as ``python -m loadtests.bench.podwriter PACE_PORT API_PORT CA TOKEN``. Listens on PACE_PORT,
for ``podserver.PACE_PATH``, once every pod exists.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from loadtests.bench import pods

PATH = "/api/v1/namespaces/default/pods"
_WRITERS = 8
_PATIENCE = 60.0


class Writer:
    """Connections to the API server, one a thread; ``revision`` is the highest seen."""

    def __init__(self, port: int, authority: str, token: str) -> None:
        self.revision = 0
        self._port = port
        self._tls = ssl.create_default_context(cafile=authority)
        self._token = token
        self._local = threading.local()
        self._padding = 0

    def wait(self) -> None:
        """Until the server can take pods. Raises OSError when it never can."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                if self._ask("GET", "/api/v1/namespaces/default")[0] == 200:
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def fill(self) -> None:
        """Creates all pods, each as long as the server says it in JSON: ``POD_BYTES``."""
        _, bare = self._create(0)
        self._padding = pods.POD_BYTES - len(bare)
        self._ask("DELETE", f"{PATH}/web-00000?gracePeriodSeconds=0")
        with ThreadPoolExecutor(_WRITERS) as pool:
            for status, answer in pool.map(self._create, range(pods.PODS)):
                if status != 201:
                    raise OSError(f"a pod was answered {status}: {answer[:300]!r}")

    def change(self, number: int) -> None:
        changed = {"changed": (pods.STAMP + b"%020d" % time.monotonic_ns()).decode()}
        patch = json.dumps({"metadata": {"annotations": changed}})
        media = "application/merge-patch+json"
        self._ask("PATCH", f"{PATH}/web-{number:05d}", patch, media)

    def _create(self, number: int) -> tuple[int, bytes]:
        document = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "name": f"web-{number:05d}",
                "labels": {"app": f"app-{number % 40:02d}"},
                "annotations": {
                    "changed": (pods.STAMP + b"%020d" % 0).decode(),
                    "padding": "x" * self._padding,
                },
            },
            "spec": {
                "nodeName": pods.node(number),
                "containers": [{"name": "web", "image": "registry.example/web:1.0"}],
            },
        }
        return self._ask("POST", PATH, json.dumps(document))

    def _ask(
        self, method: str, path: str, body: str | None = None, media: str = "application/json"
    ) -> tuple[int, bytes]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._open()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": media}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = answer.read()
        except (OSError, http.client.HTTPException):
            self._local.connection = None
            raise
        if answer.status < 300 and method != "DELETE":
            said: dict[str, Any] = json.loads(found)
            self.revision = max(self.revision, int(said["metadata"]["resourceVersion"]))
        return int(answer.status), found

    def _open(self) -> http.client.HTTPSConnection:
        """The serving certificate names localhost, too."""
        return http.client.HTTPSConnection("localhost", self._port, timeout=30, context=self._tls)


class Churn(threading.Thread):
    """Changes pods in turn at the pace that was set last."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(daemon=True)
        self.rate = 0.0
        self.pods = pods.PODS
        self._writer = writer

    def run(self) -> None:
        number, due = 0, time.monotonic()
        while True:
            now = time.monotonic()
            due = max(due, now - 1.0)
            if not self.rate or now < due:
                time.sleep(0.005)
                continue
            due += 1.0 / self.rate
            self._writer.change(number % self.pods)
            number += 1


def main(arguments: list[str]) -> None:
    pace_port, api_port, authority, token = arguments
    writer = Writer(int(api_port), authority, token)
    writer.wait()
    writer.fill()
    churn = Churn(writer)
    churn.start()

    class Pace(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = dict(pair.partition("=")[::2] for pair in urlsplit(self.path).query.split("&"))
            churn.rate, churn.pods = float(query["rate"]), int(query["pods"])
            body = json.dumps({"revision": writer.revision}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: standard error is for what went wrong."""

    ThreadingHTTPServer(("127.0.0.1", int(pace_port)), Pace).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
