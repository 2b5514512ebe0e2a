"""Two teams before kube-apiserver and RBAC: nobody reads through the relay what is not his.

Each team has a namespace, a service account that may list and watch Secrets there and nowhere else,
and a canary Secret. Everything is asked for directly and through a guard of two workers.
"""

from __future__ import annotations

import base64
import gzip
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Certificates
from tests.e2e.guard import until
from tests.e2e.real import RealApiServer
from tests.e2e.stands import ADMIN, SERVER_NAME, Reply, Stand, Way

pytestmark = [pytest.mark.e2e, pytest.mark.real]

RBAC = "/apis/rbac.authorization.k8s.io/v1"
JSON, PROTOBUF = "application/json", "application/vnd.kubernetes.protobuf"
LISTS = "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
FORMS = (
    JSON,
    PROTOBUF,
    f"{PROTOBUF},{JSON}",
    f"{JSON};{LISTS},{JSON}",
    f"{PROTOBUF};{LISTS},{JSON}",
)
SHAPES = (
    "/api/v1/secrets{}",
    "/api/v1/namespaces/team-a/secrets{}",
    "/api/v1/namespaces/team-b/secrets{}",
)
QUERIES = (
    "",
    "?resourceVersion=0",
    "?limit=1",
    "?resourceVersion=0&fieldSelector=metadata.name%3Dcanary",
    "?resourceVersion=0&fieldSelector=metadata.namespace%3Dteam-a",
    "?labelSelector=team%3Da",
    "?resourceVersion={rv}&resourceVersionMatch=Exact",
    "?resourceVersion={rv}&resourceVersionMatch=NotOlderThan",
)
WATCHES = (
    "?watch=true&timeoutSeconds=1&resourceVersion=0",
    "?watch=true&timeoutSeconds=1&resourceVersion={rv}",
    "?watch=true&timeoutSeconds=1&sendInitialEvents=true&allowWatchBookmarks=true"
    "&resourceVersionMatch=NotOlderThan",
)
CANARIES = {"a": b"canary-of-team-a", "b": b"canary-of-team-b"}
COMPARED = ("content-type", "cache-control", "x-content-type-options", "content-encoding", "vary")
DECISION_SECONDS = 10.0
"""How long a withdrawn right may go on to be good for new reads."""


class Teams:
    """The stand, the tokens of both teams and a revision after everything was made."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.tokens = {team: self._make(team) for team in CANARIES}
        listed = stand.direct.ask("GET", "/api/v1/secrets").json
        self.revision = str(listed["metadata"]["resourceVersion"])

    def _make(self, team: str) -> str:
        space = self.stand.namespace(f"team-{team}")
        core, rbac = f"/api/v1/namespaces/{space}", f"{RBAC}/namespaces/{space}"
        rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}]
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
        subject = {"kind": "ServiceAccount", "name": "agent", "namespace": space}
        data = {"key": base64.b64encode(CANARIES[team]).decode()}
        secret = {"metadata": {"name": "canary", "labels": {"team": team}}, "data": data}
        for target, body in (
            (f"{core}/serviceaccounts", {"metadata": {"name": "agent"}}),
            (f"{core}/secrets", secret),
            (f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": rules}),
            (
                f"{rbac}/rolebindings",
                {"metadata": {"name": "reader"}, "roleRef": role, "subjects": [subject]},
            ),
        ):
            self.post(target, body)
        granted = self.post(f"{core}/serviceaccounts/agent/token", {"spec": {}})
        token = str(granted.json["status"]["token"])
        until(
            "the authorizer knows the binding",
            lambda: self.stand.direct.ask("GET", f"{core}/secrets", token=token).code == 200,
        )
        return token

    def post(self, target: str, body: object) -> Reply:
        made = self.stand.direct.send("POST", target, body)
        assert made.code == 201, made.body
        return made


@pytest.fixture(scope="module")
def teams(
    real_apiserver: RealApiServer,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
) -> Iterator[Teams]:
    folder = tmp_path_factory.mktemp("teams")
    own = folder / "own-token"
    own.write_text(ADMIN)
    settings = {
        "workers": 2,
        "upstream": {
            "servers": [real_apiserver.url],
            "caFile": str(real_apiserver.ca_file),
            "serverName": SERVER_NAME,
            "credentials": {"tokenFile": str(own)},
        },
        "identity": {"tokenReview": {"enabled": True, "reviewsPerSecond": 1_000}},
        "relay": {
            "resources": [
                {"version": "v1", "resource": "secrets"},
                {"version": "v1", "resource": "configmaps"},
            ],
            "authorization": {"reviewsPerSecond": 1_000},
        },
    }
    stand = Stand("teams", folder, real_apiserver, certificates, settings=settings)
    try:
        yield Teams(stand)
    finally:
        stand.close()


def visible(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    """Without the revision of the collection: others write to this cluster meanwhile."""
    body = _JSON_REVISION.sub(rb"\1", reply.body)
    if body.startswith(b"k8s"):
        body = _DIGITS.sub(b"", body[:100]) + body[100:]
    return reply.code, {name: reply.header(name) for name in COMPARED}, body


_JSON_REVISION = re.compile(rb'("metadata":\{"resourceVersion":)"\d+"')
_DIGITS = re.compile(rb"\d{2,}")


def relayed(reply: Reply) -> bool:
    """What comes from upstream names the flow schema it was in."""
    return not reply.header("x-kubernetes-pf-flowschema-uid")


def read(way: Way, target: str, accept: str, token: str) -> Reply:
    return way.ask("GET", target, {"Accept": accept}, token=token)


def test_every_reader_gets_what_upstream_gives_him_and_no_foreign_byte(teams: Teams) -> None:
    """Cold and warm, by either worker; lists and watches, in every form."""
    targets = [
        shape.format(query.format(rv=teams.revision))
        for shape in SHAPES
        for query in (*QUERIES, *WATCHES)
    ]
    asked = [
        (team, target, accept if "watch" not in target else accept.replace("List;", ";"))
        for target in targets
        for accept in (FORMS if "watch" not in target else (JSON,))
        for team in CANARIES
    ]

    def compare(one: tuple[str, str, str]) -> int:
        team, target, accept = one
        foreign = CANARIES["b" if team == "a" else "a"]
        served = 0
        direct = read(teams.stand.direct, target, accept, teams.tokens[team])
        for _ in range(2):
            through = read(teams.stand.guarded, target, accept, teams.tokens[team])
            assert visible(through) == visible(direct), one
            assert foreign not in through.body
            assert base64.b64encode(foreign) not in through.body
            served += relayed(through) and through.code == 200
        return served

    with ThreadPoolExecutor(8) as pool:
        served = sum(pool.map(compare, asked))
    assert served > len(asked) // 4, "the relay answered too little to have been tried"


def test_a_removed_binding_stops_new_reads_within_ten_seconds(teams: Teams) -> None:
    """On both workers: one says no as soon as it asks, the other when its yes is too old."""
    target, token = "/api/v1/namespaces/team-b/secrets?resourceVersion=0", teams.tokens["b"]
    for _ in range(8):
        assert read(teams.stand.guarded, target, JSON, token).code == 200
    binding = f"{RBAC}/namespaces/team-b/rolebindings/reader"
    assert teams.stand.direct.ask("DELETE", binding).code == 200
    until("the authorizer knows", lambda: read(teams.stand.direct, target, JSON, token).code == 403)
    removed = time.monotonic()
    last_read = removed
    while time.monotonic() - removed < DECISION_SECONDS + 1.0:
        reply = read(teams.stand.guarded, target, JSON, token)
        assert reply.code in (200, 403)
        if reply.code == 200:
            last_read = time.monotonic()
        elif time.monotonic() - last_read > 2.0:
            break
        time.sleep(0.05)
    assert last_read - removed <= DECISION_SECONDS
    direct = read(teams.stand.direct, target, JSON, token)
    assert visible(read(teams.stand.guarded, target, JSON, token)) == visible(direct)


def test_long_lists_are_compressed_as_upstream_compresses_them(teams: Teams) -> None:
    """To the header; what is shorter than its threshold is not."""
    core = "/api/v1/namespaces/team-a/configmaps"
    for number in range(3):
        body = {"metadata": {"name": f"long-{number}"}, "data": {"key": f"{number}" * 60_000}}
        teams.post(core, body)
    compressed = 0
    for accept in (JSON, PROTOBUF):
        for encoding in ("gzip", "gzip, deflate", "gzip;q=1.0", "identity"):
            for target in (core, f"{core}?fieldSelector=metadata.name%3Dlong-1"):
                headers = {"Accept": accept, "Accept-Encoding": encoding}
                direct, through = (
                    way.ask("GET", target, headers)
                    for way in (teams.stand.direct, teams.stand.guarded)
                )
                assert relayed(through)
                assert visible(plain(through)) == visible(plain(direct)), headers
                compressed += through.header("content-encoding") == "gzip"
    assert compressed == 4


def plain(reply: Reply) -> Reply:
    """With its body as it was before compression, of one gzip member."""
    if reply.header("content-encoding") != "gzip":
        return reply
    return Reply(reply.code, reply.headers, gzip.decompress(reply.body))
