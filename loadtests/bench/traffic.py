"""The bytes both ends agree on: requests of the clients, answers of the upstream.

Answers carry the headers a kube-apiserver sends; a LIST comes chunked, as Go's server sends a
body whose length it does not know.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, replace

OBJECT_BYTES = 2048
EVENT_BYTES = 4096
LIST_BYTES = 40 * 1024 * 1024
_LIST_CHUNK = 32 * 1024

EVENT_MARK = b"~"
"""Occurs once in every event and nowhere in chunk framing: counting it counts events."""

DISTINCT = 50_000
USERS = 5_000
_USER_AGENTS = 1_000

COMMON_AGENT = "kubelet/v1.36.2 (linux/amd64) kubernetes/abcdef0"
REFUSED_AGENT = "bad-agent/v1.0"

_TOKEN = re.compile(rb"Authorization: [^\r]*\r\n")

_RESPONSE_HEAD = (
    "HTTP/1.1 200 OK\r\n"
    "Audit-Id: 432e2428-6589-4dac-84a9-bd20986bcdae\r\n"
    "Cache-Control: no-cache, private\r\n"
    "Content-Type: application/json\r\n"
    "X-Kubernetes-Pf-Flowschema-Uid: 2d5067b9-ce94-43bc-b2ae-cbc8edb70cf9\r\n"
    "X-Kubernetes-Pf-Prioritylevel-Uid: 57a32547-2561-496e-a51e-57b14f2594ba\r\n"
    "Date: Mon, 23 Nov 2026 00:40:38 GMT\r\n"
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a generator sends and must see: requests in turn, one expected answer.

    ``body`` is compared byte for byte; None where the proxy words the answer itself.
    """

    requests: tuple[bytes, ...]
    status: int = 200
    body: bytes | None = None

    def presenting(self, bearer: str) -> Traffic:
        """The same with another token; "" takes the header away."""
        field = f"Authorization: Bearer {bearer}\r\n".encode() if bearer else b""
        return replace(self, requests=tuple(_TOKEN.sub(field, one) for one in self.requests))


def user(number: int) -> str:
    """Name of the static token file's n-th user."""
    return f"system:serviceaccount:team-{number % 50}:client-{number}"


def token(number: int) -> str:
    """Bearer token of the n-th user."""
    return f"bench-token-{number:06d}"


def request(path: str, agent: str = COMMON_AGENT, user_number: int = 0) -> bytes:
    """One GET as client-go sends it."""
    return (
        f"GET {path} HTTP/1.1\r\n"
        "Host: kubernetes.default.svc\r\n"
        f"User-Agent: {agent}\r\n"
        "Accept: application/json, */*\r\n"
        "Accept-Encoding: gzip\r\n"
        f"Authorization: Bearer {token(user_number)}\r\n"
        "\r\n"
    ).encode()


def an_object() -> bytes:
    """A pod of exactly ``OBJECT_BYTES``."""
    return _padded("Pod", "web-0", OBJECT_BYTES)


def object_answer() -> bytes:
    """The whole answer to a GET of one object."""
    return answer(an_object())


def answer(body: bytes) -> bytes:
    """A whole answer with a declared length."""
    return f"{_RESPONSE_HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body


def event(number: int) -> bytes:
    """The n-th watch event, ``EVENT_BYTES`` with its line end."""
    prefix = b'{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"resourceVersion":"%012d"'
    start = prefix % number + b'},"spec":"' + EVENT_MARK
    return start + b"x" * (EVENT_BYTES - len(start) - 4) + b'"}}\n'


def watch_head() -> bytes:
    """Head of a watch's answer."""
    return f"{_RESPONSE_HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()


def chunk(payload: bytes) -> bytes:
    """``payload`` in chunked coding."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def chunked(body: bytes) -> bytes:
    """A whole answer in chunks of the size Go's server writes."""
    parts = [body[at : at + _LIST_CHUNK] for at in range(0, len(body), _LIST_CHUNK)]
    return b"".join([watch_head(), *map(chunk, parts), b"0\r\n\r\n"])


def a_list() -> bytes:
    """A PodList of exactly ``LIST_BYTES``."""
    item = _padded("Pod", "item", 4095)
    start = b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":['
    end = b"{}]}"
    room = LIST_BYTES - len(start) - len(end)
    items = (item + b",") * (room // (len(item) + 1))
    return start + items + b" " * (room - len(items)) + end


def list_answer() -> bytes:
    """The whole answer to a LIST, chunked."""
    return chunked(a_list())


def common() -> Traffic:
    """One client program, one user, one object."""
    path = "/api/v1/namespaces/default/pods/web-0"
    return Traffic((request(path),), body=an_object())


def distinct() -> Traffic:
    """``DISTINCT`` different (user-agent, user, path), in turn."""
    requests = tuple(
        request(
            f"/api/v1/namespaces/team-{number % 50}/pods/web-{number}",
            f"agent-{number % _USER_AGENTS}/v1.{number % 7} (linux/amd64)",
            number % USERS,
        )
        for number in range(DISTINCT)
    )
    return Traffic(requests, body=an_object())


def refused() -> Traffic:
    """A client whose rule admits none."""
    path = "/api/v1/namespaces/default/pods/web-0"
    return Traffic((request(path, REFUSED_AGENT),), status=429)


def lists() -> Traffic:
    """LIST of everything, unpaged."""
    return Traffic((request("/api/v1/pods?resourceVersion=0"),))


def watches() -> Traffic:
    """WATCH of everything."""
    return Traffic((request("/api/v1/pods?watch=1&resourceVersion=7"),))


TRAFFIC = {
    "common": common,
    "distinct": distinct,
    "refused": refused,
    "lists": lists,
    "watches": watches,
}


def token_file() -> str:
    """kube-apiserver's CSV form: token, user, uid, groups."""
    lines = (
        f'{token(number)},{user(number)},uid-{number},"system:serviceaccounts"'
        for number in range(USERS)
    )
    return "\n".join(itertools.chain(lines, [""]))


def _padded(kind: str, name: str, size: int) -> bytes:
    pod = {"kind": kind, "apiVersion": "v1", "metadata": {"name": name}, "spec": ""}
    bare = len(json.dumps(pod))
    pod["spec"] = "x" * (size - bare)
    return json.dumps(pod).encode()
