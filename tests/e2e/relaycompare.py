"""The same question asked directly and through a relay, and what differs in the answers.

``python -m tests.e2e.relaycompare`` asks every question of ``relay_cases.yaml`` at the embedded
server and, where there is one, at kube-apiserver; the suite asks a drawn part of them.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml

from apiguard.demo.certs import Authority
from apiguard.kube.objects import unwrap
from apiguard.kube.protoreader import fields
from tests.conftest import Certificates
from tests.e2e.real import RealApiServer, missing
from tests.e2e.relaystand import populate, relay_stand, relayed
from tests.e2e.stands import ADMIN, EmbeddedProcess, Reply, Stand, Way

CASES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "relay_cases.yaml").read_text())
FORMS: dict[str, str] = CASES["forms"]
QUIET = ("--nodes", "3", "--pods", "6", "--updates", "0")
"""Options of an embedded server in which nothing changes by itself."""

SMALL_PAGES = 20
_PODS = "/api/v1/namespaces/relay-a/pods"
_VARIES = frozenset({"audit-id", "connection", "date"})
_VARIES |= {"x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"}
_FRAMING = frozenset({"content-length", "transfer-encoding"})
"""Differ where lengths do, and how short a body becomes is up to who compresses it."""


class Case(NamedTuple):
    """One GET. ``accept`` None sends no such header."""

    target: str
    accept: str | None
    headers: tuple[tuple[str, str], ...] = ()
    token: str = ADMIN
    method: str = "GET"


class Wire:
    """One connection that is kept, and opened anew when the server has closed it."""

    def __init__(self, way: Way) -> None:
        self._connection = way.connect()

    def ask(self, case: Case) -> Reply:
        try:
            return self._ask(case)
        except (http.client.RemoteDisconnected, ConnectionError):
            self._connection.close()
            return self._ask(case)

    def _ask(self, case: Case) -> Reply:
        connection = self._connection
        connection.putrequest(case.method, case.target, skip_accept_encoding=True)
        if case.token:
            connection.putheader("Authorization", f"Bearer {case.token}")
        if case.accept is not None:
            connection.putheader("Accept", case.accept.encode())
        for name, value in case.headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        headers = tuple((name.lower(), value) for name, value in answer.getheaders())
        return Reply(answer.status, headers, answer.read())

    def close(self) -> None:
        self._connection.close()


@dataclass
class Tally:
    """``relayed`` of ``asked`` were the relay's own answers."""

    asked: int = 0
    relayed: int = 0


class Comparison:
    """Both ways to one cluster; ``differences`` fills with what was not equal."""

    def __init__(self, stand: Stand, revision: str = "") -> None:
        self.direct, self.guarded = Wire(stand.direct), Wire(stand.guarded)
        self.revision = revision or resting_revision(stand)
        self.differences: list[str] = []
        self.tally = Tally()

    def close(self) -> None:
        self.direct.close()
        self.guarded.close()

    def ask(self, case: Case) -> tuple[Reply, Reply]:
        """Both answers. A list shows the cluster's revision, which other things move along, so one
        that differs is asked for directly once more before it counts."""
        replies = self.direct.ask(case), self.guarded.ask(case)
        self.judge(case, *replies)
        return replies

    def judge(self, case: Case, before: Reply, through: Reply) -> None:
        self.tally.asked += 1
        self.tally.relayed += relayed(through)
        if visible(before) != visible(through):
            after = self.direct.ask(case)
            if visible(after) != visible(through):
                self.differences.append(_told(case, before, through))
        elif _recent(case.target) and list_revision(through) < list_revision(before):
            self.differences.append(f"{case.target} | {case.accept}: older than what was known")

    def walk(self, collection: str, first: str, selector: str, accept: str, take: int) -> None:
        """All pages; the token that leads on is the direct one's or the other's in turn."""
        query = first.replace("{rv}", self.revision) + selector
        for page in range(take, take + 40):
            replies = self.ask(Case(f"{collection}?{query}", accept))
            token = _TOKEN.search(replies[page % 2].body)
            if token is None:
                return
            # A shared server may hold many objects: small pages first, then the rest at once.
            size = 2 if page < take + SMALL_PAGES else 500
            query = f"limit={size}&continue={token[0].decode()}{selector}"
        self.differences.append(f"{collection}?{first}{selector} | {accept}: has no end")


def together(stand: Stand, cases: Iterable[Case], into: Comparison) -> None:
    """Asks each case on connections of its own, all at once."""

    def ask(case: Case) -> list[str]:
        one = Comparison(stand, into.revision)
        try:
            with ThreadPoolExecutor(1) as beside:
                direct = beside.submit(one.direct.ask, case)
                through = one.guarded.ask(case)
            one.judge(case, direct.result(), through)
            return one.differences
        finally:
            one.close()

    with ThreadPoolExecutor(32) as pool:
        for differences in pool.map(ask, cases):
            into.differences += differences


def resting_revision(stand: Stand) -> str:
    """One at which everything of ``populate`` is there."""
    return str(stand.direct.ask("GET", _PODS).json["metadata"]["resourceVersion"])


# -- the questions -------------------------------------------------------------------------------


def matrix(revision: str) -> Iterator[Case]:
    """Every row of the table, for every collection in every form."""
    for collection in CASES["collections"]:
        for query in CASES["queries"]:
            for accept in FORMS.values():
                yield Case(_target(collection, query, revision), accept)


def odd(revision: str) -> Iterator[Case]:
    """What is malformed, doubled, out of range or unknown."""
    for query in CASES["odd"]:
        for accept in FORMS.values():
            yield Case(_target(_PODS, query, revision), accept)


def future(revision: str) -> Iterator[Case]:
    """Answered only after a wait for what does not come."""
    for query in CASES["future"]:
        for form in ("json", "protobuf"):
            yield Case(_target(_PODS, query, revision), FORMS[form])


def negotiated(revision: str) -> Iterator[Case]:
    for collection in (_PODS, "/apis/relay.example.org/v1/widgets"):
        for accept in CASES["accepts"]:
            for query in CASES["accept_queries"]:
                yield Case(_target(collection, query, revision), accept)


def selected(_: str) -> Iterator[Case]:
    """By labels and fields: as they are held, and as they are at this moment."""
    terms = [(_PODS, "labelSelector", text) for text in CASES["labels"]]
    for collection, texts in CASES["fields"].items():
        terms += [(collection, "fieldSelector", text) for text in texts]
    for collection, parameter, text in terms:
        target = f"{collection}?{parameter}={quote(text, safe='')}"
        for accept in FORMS.values():
            yield Case(f"{target}&resourceVersion=0", accept)
        yield Case(target, FORMS["protobuf"])
        yield Case(f"{target}&limit=1", FORMS["json"])


def dressed(_: str) -> Iterator[Case]:
    """Header fields, methods and callers."""
    for collection in (_PODS, "/api/v1/namespaces/relay-a/configmaps"):
        target = f"{collection}?resourceVersion=0"
        for name, value in CASES["headers"]:
            yield Case(target, None, ((name, value),))
        for method in ("HEAD", "OPTIONS", "POST", "PUT", "PATCH"):
            yield Case(target, None, method=method)
        yield Case(target, None, (("Accept", FORMS["json"]), ("Accept", FORMS["protobuf"])))
    compressed = (("Accept-Encoding", "gzip"),)  # all together are long enough for that, two not
    for query in ("resourceVersion=0", "limit=2", "limit=3", "labelSelector=app"):
        for accept in FORMS.values():
            target = f"/api/v1/namespaces/relay-a/configmaps?{query}"
            yield Case(target, accept, compressed)
    for token in ("viewer-token", "nobodys-token", ""):
        for collection in (_PODS, "/api/v1/secrets", "/apis/relay.example.org/v1/widgets"):
            for accept in FORMS.values():
                yield Case(f"{collection}?resourceVersion=0", accept, token=token)
            named = "fieldSelector=metadata.name%3Dw1"
            yield Case(f"{collection}?{named}", FORMS["json"], token=token)


def walks(draw: random.Random | None = None) -> Iterator[tuple[str, str, str, str, int]]:
    """Arguments of ``walk``: all of them, or four for each collection and form."""
    pages = CASES["pages"]
    for collection in pages["collections"]:
        for accept in FORMS.values():
            kinds = [
                (f, s, take) for f in pages["first"] for s in pages["selectors"] for take in (0, 1)
            ]
            for first, selector, take in kinds if draw is None else draw.sample(kinds, 4):
                yield collection, first, selector, accept, take


def _target(collection: str, query: str, revision: str) -> str:
    return f"{collection}?{query.replace('{rv}', revision)}" if query else collection


def _recent(target: str) -> bool:
    return "resourceVersion" not in target and "continue" not in target


# -- what a client sees --------------------------------------------------------------------------

_TOKEN = re.compile(rb"eyJ2Ijoi[A-Za-z0-9_-]+")
_REVISION = re.compile(
    rb'("metadata":\{(?:"continue":"[^"]*",(?:"remainingItemCount":[0-9]+,)?)?'
    rb'"resourceVersion":)"([0-9]+)"'
)
CURRENT = re.compile(rb"(?<=current: )[0-9]+")
"""The revision a server names where it cannot serve a later one; others move it on."""


def visible(reply: Reply) -> tuple[int, list[tuple[str, str]], object]:
    """Status, the headers that mean something, and the body, unpacked, but for the moment it was
    made at."""
    zipped = reply.header("content-encoding") == "gzip"
    aside = _VARIES | _FRAMING if zipped else _VARIES
    headers = sorted(line for line in reply.headers if line[0] not in aside)
    return reply.code, headers, timeless(gzip.decompress(reply.body) if zipped else reply.body)


def timeless(body: bytes) -> object:
    """A body without the list's revision. Tokens count by where they lead: kube-apiserver writes
    them with or without a slash, as its cache or etcd served the page."""
    body = CURRENT.sub(lambda found: b"0" * len(found[0]), body)
    if not body.startswith(b"k8s\0"):
        return _TOKEN.sub(_place, _REVISION.sub(rb"\1", body, count=1))
    outer = unwrap(body)
    meta: dict[int, object] = {}
    rest = outer.raw
    for number, _, start, end in fields(outer.raw):
        if number == 1 and outer.kind.endswith("List"):
            for inner, kind, at, to in fields(outer.raw, start, end):
                meta[inner] = outer.raw[at:to] if kind == 2 else at
            rest = outer.raw[end:]
            break
    meta.pop(2, None)
    token = meta.get(3, b"")
    meta[3] = _TOKEN.sub(_place, token) if isinstance(token, bytes) else token
    return outer.kind, outer.api_version, meta, rest


def _place(token: re.Match[bytes]) -> bytes:
    text = token[0].decode()
    start: str = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))["start"]
    return start.removeprefix("/").encode()


def list_revision(reply: Reply) -> int:
    """Of a JSON list; 0 of anything else."""
    found = _REVISION.search(reply.body)
    return int(found[2]) if found else 0


def _told(case: Case, direct: Reply, through: Reply) -> str:
    who = "relay" if relayed(through) else "upstream"
    parts = [f"{case.method} {case.target} | {case.accept} {case.headers} (by {who})"]
    for reply in (direct, through):
        code, headers, body = visible(reply)
        parts.append(f"  {code} {headers} {body!r:.400}")
    return "\n".join(parts)


# -- everything ----------------------------------------------------------------------------------

QUESTIONS = {
    "matrix": matrix,
    "odd": odd,
    "negotiated": negotiated,
    "selected": selected,
    "dressed": dressed,
}


def certificates_in(folder: Path) -> Certificates:
    authority = Authority("apiguard tests")
    path = folder / "ca.crt"
    path.write_bytes(authority.certificate)
    client = authority.client("alice", ["devs"]).write(folder, "client")
    return Certificates(path, authority.server().write(folder, "server"), client)


def whole(stand: Stand) -> int:
    """Asks everything; returns how many answers differ."""
    comparison = Comparison(stand)
    begun = time.monotonic()
    for name, questions in QUESTIONS.items():
        for case in questions(comparison.revision):
            comparison.ask(case)
        _say(f"{stand.name} {name}: {comparison.tally} {time.monotonic() - begun:.0f} s")
    together(stand, future(comparison.revision), comparison)
    for arguments in walks():
        comparison.walk(*arguments)
    _say(f"{stand.name} pages: {comparison.tally} {time.monotonic() - begun:.0f} s")
    for difference in comparison.differences:
        _say(difference)
    comparison.close()
    return len(comparison.differences)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    different = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relaycompare-")))
        certificates = certificates_in(folder)
        servers: Mapping[str, Any] = {
            "embedded": lambda at: EmbeddedProcess(at, certificates, QUIET)
        }
        if not missing():
            servers = {**servers, "real": RealApiServer}
        for name, make in servers.items():
            for part in (name, f"{name}-guard"):
                (folder / part).mkdir()
            server = make(folder / name)
            stack.callback(server.close)
            if isinstance(server, RealApiServer):
                server.wait()
            stand = relay_stand(name, folder / f"{name}-guard", server, certificates)
            stack.callback(stand.close)
            populate(stand)
            different += whole(stand)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
