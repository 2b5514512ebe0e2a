"""Who a real kube-apiserver takes a caller for: through the guard the same as without it."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from apiguard.demo.certs import Authority
from tests.e2e.guard import Answer, Guard, policy, until
from tests.e2e.real import PROXY_NAME, RealApiServer, missing

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.real,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REVIEW = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
ISSUER = "https://kubernetes.default.svc"

CALLERS = {
    "groups": ("alice", ["devs", "ops", "on-call"], ""),
    "uid": ("bob", ["devs"], "42a-7"),
    "inner blanks": ("ada lovelace  the first", ["dev ops", "a  b"], "u i d"),
    "unicode": ("Jürgen Müß", ["вещи", "猫"], "ü"),
    "percent": ("50%25 sure", ["100%", "%2F"], "%"),
    "no group": ("loner", [], ""),
    "repeated group": ("twice", ["devs", "devs"], ""),
}


@dataclass
class Stand:
    apiserver: RealApiServer
    guard: Guard
    folder: Path
    serving: Authority

    def ask(
        self,
        address: tuple[str, int],
        method: str,
        target: str,
        body: str | None = None,
        *,
        token: str = "",
        certificate: str = "",
    ) -> Answer:
        """One request on a connection of its own, over TLS that verifies nobody."""
        context = ssl._create_unverified_context()
        if certificate:
            pair = self.folder / f"{certificate}.crt", self.folder / f"{certificate}.key"
            context.load_cert_chain(*pair)
        headers = {"Content-Type": "application/json"} if body else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPSConnection(*address, context=context, timeout=15)
        try:
            connection.request(method, target, body, headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    @property
    def direct(self) -> tuple[str, int]:
        return "127.0.0.1", self.apiserver.port

    def both(self, *, token: str = "", certificate: str = "") -> tuple[Answer, Answer]:
        """What a SelfSubjectReview says without the guard, and through it."""
        first, second = (
            self.ask(address, "POST", REVIEWS, REVIEW, token=token, certificate=certificate)
            for address in (self.direct, self.guard.address)
        )
        return first, second

    def certificate(self, name: str, user: str, groups: list[str], uid: str = "") -> None:
        self.apiserver.clients.client(user, groups, uid).write(self.folder, name)


def configure(apiserver: RealApiServer, folder: Path) -> Stand:
    guard = Guard(folder, apiserver.url)
    serving = Authority("guard")
    serving.server().write(folder, "serving")
    apiserver.proxies.client(PROXY_NAME).write(folder, "proxy")
    apiserver.clients.client("apiguard", ["system:masters"]).write(folder, "own")
    (folder / "clients.crt").write_bytes(apiserver.clients.certificate)
    guard.settings["listen"]["tls"] = {
        "certFile": "serving.crt",
        "keyFile": "serving.key",
        "clientCAFile": "clients.crt",
    }
    guard.settings["upstream"] |= {
        "caFile": str(apiserver.ca_file),
        "serverName": "kubernetes.default.svc",
        "frontProxy": {"certFile": "proxy.crt", "keyFile": "proxy.key"},
        "credentials": {"certFile": "own.crt", "keyFile": "own.key"},
    }
    guard.settings["identity"] = {
        "jwt": [{"issuer": ISSUER, "audiences": [ISSUER], "jwksFromUpstream": True}],
        "tokenReview": {"enabled": True},
    }
    return Stand(apiserver, guard, folder, serving)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    apiserver = RealApiServer(tmp_path_factory.mktemp("apiserver"))
    made: Stand | None = None
    try:
        apiserver.wait()
        made = configure(apiserver, tmp_path_factory.mktemp("guard"))
        made.guard.start()
        guard = made.guard
        until("ready", lambda: guard.admin("GET", "/readyz").code == 200)
        yield made
    finally:
        if made is not None:
            made.guard.close()
        apiserver.close()


def user_of(answer: Answer) -> Any:
    assert answer.code == 201, answer.text
    return answer.json["status"]["userInfo"]


def same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Field by field, in order and number."""
    assert second == first


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_a_client_certificate_is_the_same_user(
    stand: Stand, caller: tuple[str, list[str], str]
) -> None:
    user, groups, uid = caller
    stand.certificate("caller", user, groups, uid)
    direct, through = stand.both(certificate="caller")
    same(user_of(direct), user_of(through))
    assert user_of(through)["username"] == user


def service_account_token(stand: Stand) -> str:
    account = json.dumps({"apiVersion": "v1", "kind": "ServiceAccount",
                          "metadata": {"name": "robot"}})  # fmt: skip
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    made = stand.ask(stand.direct, "POST", accounts, account, token="admin-token")
    assert made.code in (201, 409), made.text
    asked = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                        "spec": {"audiences": [ISSUER]}})  # fmt: skip
    answer = stand.ask(stand.direct, "POST", f"{accounts}/robot/token", asked, token="admin-token")
    assert answer.code == 201, answer.text
    return str(answer.json["status"]["token"])


def test_tokens_are_the_same_user(stand: Stand) -> None:
    for token in (service_account_token(stand), "viewer-token"):
        direct, through = stand.both(token=token)
        same(user_of(direct), user_of(through))


def test_a_bad_token_and_nobody_get_upstreams_own_answer(stand: Stand) -> None:
    direct, through = stand.both(token="invented")
    assert (direct.code, through.code) == (401, 401)
    direct, through = stand.both()
    assert (direct.code, through.code) == (403, 403)
    assert through.json["message"] == direct.json["message"]
    assert 'User "system:anonymous"' in through.json["message"]


def test_identity_headers_of_a_client_change_nothing(stand: Stand) -> None:
    connection = http.client.HTTPSConnection(
        *stand.guard.address, context=ssl._create_unverified_context(), timeout=15
    )
    connection.request("POST", REVIEWS, REVIEW, {
        "Content-Type": "application/json", "Authorization": "Bearer viewer-token",
        "X-Remote-User": "root", "X-Remote-Group": "system:masters",
    })  # fmt: skip
    assert user_of(Answer(connection.getresponse()))["username"] == "viewer"
    connection.close()


def users_limited(stand: Stand) -> set[str]:
    flows = stand.guard.admin("GET", "/v1/flows").json["rules"]
    return {b["key"][0] for flow in flows for limit in flow["limits"] for b in limit["buckets"]}


PER_USER = policy().replace("default:\n  limits: [{", "default:\n  limits: [{per: [user], ")


def test_callers_land_in_their_own_buckets_whatever_proves_them(stand: Stand) -> None:
    """A certificate at once, a token of the cluster by its key set, another after its review."""
    assert stand.guard.admin("PUT", "/v1/policy", PER_USER).code == 200
    token = service_account_token(stand)
    stand.certificate("caller", "carol", [])

    def limited() -> bool:
        for credential in ({"certificate": "caller"}, {"token": token}, {"token": "viewer-token"}):
            stand.ask(stand.guard.address, "GET", "/api", **credential)
        wanted = {"carol", "system:serviceaccount:default:robot", "viewer"}
        return wanted <= {user.removeprefix("user:") for user in users_limited(stand)}

    until("buckets by user", limited, 10)


def test_servers_are_probed_with_own_credentials_and_shown(stand: Stand) -> None:
    (server,) = stand.guard.admin("GET", "/v1/upstreams").json["upstreams"]
    assert (server["state"], server["condition"]) == ("fit", "ready")
    assert "[+]upstream-0 ok" in stand.guard.admin("GET", "/readyz?verbose").text
    status = stand.guard.admin("GET", "/v1/status").json
    settings = {certificate["setting"] for certificate in status["certificates"]}
    assert settings == {
        "listen.tls.certFile", "listen.tls.clientCAFile", "upstream.caFile",
        "upstream.frontProxy.certFile", "upstream.credentials.certFile",
    }  # fmt: skip


def test_the_last_server_cannot_be_drained(stand: Stand) -> None:
    refused = stand.guard.admin("POST", "/v1/upstreams/0/drain", "")
    assert refused.code == 409
    assert stand.guard.admin("POST", "/v1/upstreams/7/drain", "").code == 404


def serial(address: tuple[str, int]) -> str:
    return ssl.get_server_certificate(address)


def test_certificates_are_used_within_ten_seconds_of_their_change(stand: Stand) -> None:
    """A broken pair keeps the old one and says so; then a good one is taken."""
    before = serial(stand.guard.address)
    stand.certificate("caller", "alice", ["devs"])
    (stand.folder / "serving.key").write_text("no key")
    until("told", lambda: "listen.tls.certFile" in broken(stand), 10)
    assert serial(stand.guard.address) == before
    stand.serving.server().write(stand.folder, "serving")
    stand.apiserver.proxies.client(PROXY_NAME).write(stand.folder, "proxy")
    begun = time.monotonic()
    until("new certificate", lambda: serial(stand.guard.address) != before, 10)
    assert time.monotonic() - begun < 10
    assert not broken(stand)
    direct, through = stand.both(certificate="caller")
    same(user_of(direct), user_of(through))


def broken(stand: Stand) -> dict[str, str]:
    found: dict[str, str] = stand.guard.admin("GET", "/v1/status").json["brokenFiles"]
    return found


def admitted(stand: Stand, user: str) -> int:
    flows = stand.guard.admin("GET", "/v1/flows").json["rules"]
    buckets = [b for flow in flows for limit in flow["limits"] for b in limit["buckets"]]
    return sum(b["admitted"] for b in buckets if b["key"][0].removeprefix("user:") == user)


def test_with_upstream_away_a_token_of_the_cluster_still_counts_for_its_user(stand: Stand) -> None:
    """And when upstream is back nothing needs a restart."""
    stand.guard.admin("PUT", "/v1/policy", PER_USER)
    token = service_account_token(stand)
    user = "system:serviceaccount:default:robot"
    stand.apiserver.stop()
    try:
        until("not ready", lambda: stand.guard.admin("GET", "/readyz").code == 503, 15)
        before = admitted(stand, user)
        assert stand.ask(stand.guard.address, "GET", "/api", token=token).code == 503
        until("its own bucket", lambda: admitted(stand, user) > before, 5)
    finally:
        stand.apiserver.start_again()
    stand.apiserver.wait()
    until("ready again", lambda: stand.guard.admin("GET", "/readyz").code == 200, 5)
    direct, through = stand.both(token=token)
    same(user_of(direct), user_of(through))


def test_anonymous_requests_stay_switched_off_through_the_guard(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    apiserver = RealApiServer(tmp_path_factory.mktemp("closed"), anonymous=False)
    closed: Stand | None = None
    try:
        apiserver.wait()
        closed = configure(apiserver, tmp_path_factory.mktemp("closed-guard"))
        closed.guard.start()
        guard = closed.guard
        until("ready", lambda: guard.admin("GET", "/readyz").code == 200)
        direct, through = closed.both()
        assert (direct.code, through.code) == (401, 401)
        assert through.json == direct.json
    finally:
        if closed is not None:
            closed.guard.close()
        apiserver.close()
