"""The upstream of relays: one collection of pods that can be listed, watched and changed at will.

Run as ``python -m loadtests.bench.podserver PLAIN_PORT TLS_PORT CERT KEY CA``.

Beside LIST and WATCH it answers what a guard with a relay asks: discovery, TokenReviews and
SubjectAccessReviews, which it all affirms. Nothing changes until a client of the harness says so
(``PACE_PATH``): a window that measures unchanged lists must not be disturbed by another's events.
"""

from __future__ import annotations

import json
import sys
from urllib.parse import urlsplit

from loadtests.bench import pods, traffic
from loadtests.bench.responder import Client, Responder, serving_tls

PACE_PATH = "/bench/pace"
"""``?rate=20&pods=50``: from now on so many changes a second, of the first so many pods in turn.
With ``&once`` another
one happens now. The answer names the latest revision."""

_DISCOVERY = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "v1",
    "resources": [
        {
            "name": "pods",
            "singularName": "pod",
            "namespaced": True,
            "kind": "Pod",
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        }
    ],
}
_ACCESS_REVIEW = {
    "kind": "SubjectAccessReview",
    "apiVersion": "authorization.k8s.io/v1",
    "status": {"allowed": True},
}
_TOKEN_REVIEW = {
    "kind": "TokenReview",
    "apiVersion": "authentication.k8s.io/v1",
    "status": {
        "authenticated": True,
        "user": {"username": traffic.user(0), "groups": ["system:serviceaccounts"]},
    },
}
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class PodServer(Responder):
    """All pods, the latest revision, and whose turn it is to change."""

    def __init__(self, plain_port: int, tls_port: int, *files: str) -> None:
        super().__init__(plain_port, tls_port, serving_tls(*files), rate=0.0)
        self._items = pods.first_items()
        self._revision = pods.FIRST_REVISION + pods.PODS
        self._changing = pods.PODS
        self._next = 0

    def answer(self, descriptor: int, client: Client, head: bytes) -> None:
        method, target, _ = head[: head.find(b"\r\n")].decode("latin-1").split(" ")
        parts = urlsplit(target)
        query = dict(pair.partition("=")[::2] for pair in parts.query.split("&"))
        if parts.path == pods.PATH and "watch" in query:
            self.watch(descriptor, client)
        elif parts.path == pods.PATH and b"PartialObjectMetadata" not in head:
            client.send(traffic.chunked(pods.listing(self._revision, self._items)))
        elif parts.path == PACE_PATH:
            self._changing = int(query["pods"])
            self.pace(float(query["rate"]))
            if "once" in query:
                self.publish()
            client.send(_document({"revision": self._revision}))
        elif parts.path == "/api/v1":
            client.send(_document(_DISCOVERY))
        elif method == "POST" and parts.path.endswith("/subjectaccessreviews"):
            client.send(_document(_ACCESS_REVIEW))
        elif method == "POST" and parts.path.endswith("/tokenreviews"):
            client.send(_document(_TOKEN_REVIEW))
        elif parts.path.startswith(("/readyz", "/livez", "/healthz")):
            client.send(traffic.answer(b"ok"))
        else:
            client.send(_NOT_FOUND)

    def event(self) -> bytes:
        number = self._next % self._changing
        self._next = number + 1
        self._revision += 1
        found = pods.event(number, self._revision)
        self._items[number] = pods.pod_in(found)
        return found


def _document(value: object) -> bytes:
    return traffic.answer(json.dumps(value).encode())


def main(arguments: list[str]) -> None:
    plain_port, tls_port, *files = arguments
    PodServer(int(plain_port), int(tls_port), *files).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
