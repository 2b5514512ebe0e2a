"""Who an API server takes a caller for: through the guard the same as without it.

Told by kube-apiserver where there is one, and always by the embedded server, which holds to the
same rules.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from apiguard.demo.authorization import Rule
from apiguard.demo.certs import Authority
from apiguard.kube.identity import CREDENTIAL_ID
from tests.e2e.guard import Answer, Guard, policy, until
from tests.e2e.real import PROXY_NAME, RealApiServer, missing
from tests.e2e.stands import COMMAND_SECONDS, KUBECTL, EmbeddedThread

pytestmark = pytest.mark.e2e

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
    apiserver: RealApiServer | EmbeddedThread
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
        extra: Mapping[str, bytes] | None = None,
    ) -> Answer:
        """One request on a connection of its own, over TLS that verifies nobody."""
        context = ssl._create_unverified_context()
        if certificate:
            pair = self.folder / f"{certificate}.crt", self.folder / f"{certificate}.key"
            context.load_cert_chain(*pair)
        headers: dict[str, str | bytes] = {"Content-Type": "application/json"} if body else {}
        headers |= extra or {}
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

    def both(
        self,
        *,
        token: str = "",
        certificate: str = "",
        extra: Mapping[str, bytes] | None = None,
    ) -> tuple[Answer, Answer]:
        """What a SelfSubjectReview says without the guard, and through it."""
        first, second = (
            self.ask(
                *(address, "POST", REVIEWS, REVIEW),
                token=token,
                certificate=certificate,
                extra=extra,
            )
            for address in (self.direct, self.guard.address)
        )
        return first, second

    def kubectl(
        self, address: tuple[str, int], *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        """kubectl with no credentials but those among ``arguments``; it may fail."""
        direct = address == self.direct
        authority = self.apiserver.ca_file if direct else self.folder / "serving-ca.crt"
        return subprocess.run(
            [
                str(KUBECTL),
                "--kubeconfig=/dev/null",
                f"--cache-dir={self.folder / 'cache'}",
                "--server=https://{}:{}".format(*address),
                f"--certificate-authority={authority}",
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def whoami(self, *credentials: str) -> tuple[Any, Any]:
        """``kubectl auth whoami -o json`` without the guard and through it, but the time of it."""
        first, second = (
            self._whoami(address, credentials) for address in (self.direct, self.guard.address)
        )
        return first, second

    def _whoami(self, address: tuple[str, int], credentials: tuple[str, ...]) -> Any:
        done = self.kubectl(address, *credentials, "auth", "whoami", "-o", "json")
        assert done.returncode == 0, done.stderr
        review = json.loads(done.stdout)
        assert review.pop("metadata").keys() == {"creationTimestamp"}
        return review

    def certificate(self, name: str, user: str, groups: list[str], uid: str = "") -> None:
        self.apiserver.clients.client(user, groups, uid).write(self.folder, name)


def configure(apiserver: RealApiServer | EmbeddedThread, folder: Path) -> Stand:
    guard = Guard(folder, apiserver.url)
    serving = Authority("guard")
    serving.server().write(folder, "serving")
    (folder / "serving-ca.crt").write_bytes(serving.certificate)
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
    guard.settings["identity"] = {"tokenReview": {"enabled": True}}
    if isinstance(apiserver, RealApiServer):
        cluster = {"issuer": ISSUER, "audiences": [ISSUER], "jwksFromUpstream": True}
        guard.settings["identity"]["jwt"] = [cluster]
    return Stand(apiserver, guard, folder, serving)


@contextmanager
def running(apiserver: RealApiServer | EmbeddedThread, folder: Path) -> Iterator[Stand]:
    """A guard before ``apiserver``; both end with it."""
    made: Stand | None = None
    try:
        if isinstance(apiserver, RealApiServer):
            apiserver.wait()
        made = configure(apiserver, folder)
        made.guard.start()
        guard = made.guard
        until("ready", lambda: guard.admin("GET", "/readyz").code == 200)
        yield made
    finally:
        if made is not None:
            made.guard.close()
        apiserver.close()


@pytest.fixture(scope="module")
def real_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    if missing():
        pytest.skip(missing())
    apiserver = RealApiServer(tmp_path_factory.mktemp("apiserver"))
    with running(apiserver, tmp_path_factory.mktemp("guard")) as made:
        yield made


@pytest.fixture(scope="module")
def embedded_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    apiserver = EmbeddedThread(tmp_path_factory.mktemp("embedded"))
    with running(apiserver, tmp_path_factory.mktemp("embedded-guard")) as made:
        yield made


EACH = ["embedded_stand", pytest.param("real_stand", marks=pytest.mark.real)]


@pytest.fixture(scope="module", params=EACH)
def stand(request: pytest.FixtureRequest) -> Stand:
    """Each API server there is, in turn."""
    found: Stand = request.getfixturevalue(request.param)
    return found


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
    assert CREDENTIAL_ID in user_of(through)["extra"]  # a key that no header can hold unescaped


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


def test_a_static_token_is_the_same_user(stand: Stand) -> None:
    direct, through = stand.both(token="viewer-token")
    same(user_of(direct), user_of(through))


@pytest.mark.real
def test_a_service_account_token_is_the_same_user(real_stand: Stand) -> None:
    direct, through = real_stand.both(token=service_account_token(real_stand))
    same(user_of(direct), user_of(through))


def test_whoami_tells_the_groups_of_a_client_certificate(stand: Stand) -> None:
    stand.certificate("grace", "grace", ["devs", "ops", "on-call"], "7")
    pair = (stand.folder / "grace.crt", stand.folder / "grace.key")
    direct, through = stand.whoami(f"--client-certificate={pair[0]}", f"--client-key={pair[1]}")
    same(direct, through)
    told = through["status"]["userInfo"]
    assert (told["username"], told["uid"]) == ("grace", "7")
    assert told["groups"] == ["devs", "ops", "on-call", "system:authenticated"]


def test_whoami_tells_who_a_static_token_is(stand: Stand) -> None:
    direct, through = stand.whoami("--token=viewer-token")
    same(direct, through)
    assert through["status"]["userInfo"]["username"] == "viewer"


def pod_token(stand: Stand) -> str:
    """As a kubelet projects one: bound to a pod of the service account."""
    service_account_token(stand)  # makes the account
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bound"},
        "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]},
    }
    pods = "/api/v1/namespaces/default/pods"
    made = stand.ask(stand.direct, "POST", pods, json.dumps(pod), token="admin-token")
    assert made.code == 201, made.text
    done = stand.kubectl(
        *(stand.direct, "--token=admin-token", "create", "token", "robot"),
        *("--bound-object-kind=Pod", "--bound-object-name=bound"),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.real
def test_whoami_tells_the_pod_of_a_projected_token(real_stand: Stand) -> None:
    direct, through = real_stand.whoami(f"--token={pod_token(real_stand)}")
    same(direct, through)
    told = through["status"]["userInfo"]
    assert told["username"] == "system:serviceaccount:default:robot"
    assert told["extra"]["authentication.kubernetes.io/pod-name"] == ["bound"]


NOBODY = ("--username=nobody", "--password=none")
"""kubectl asks for a name rather than send nothing; an API server knows no Basic, and so nobody."""


@contextmanager
def reviews_for_nobody(stand: Stand) -> Iterator[None]:
    """Lets anonymous callers ask who they are, which no cluster does by itself."""
    if isinstance(stand.apiserver, EmbeddedThread):
        rules = stand.apiserver.server.authorizer.rules
        rule = Rule(("system:unauthenticated",), ("create",), resources=("selfsubjectreviews",))
        rules.append(rule)
        try:
            yield
        finally:
            rules.remove(rule)
        return
    subject = "--clusterrole=system:basic-user", "--group=system:unauthenticated"
    change_binding(stand, "create", *subject)
    try:
        until("granted", lambda: stand.ask(stand.direct, "POST", REVIEWS, REVIEW).code == 201)
        yield
    finally:
        change_binding(stand, "delete")
    until("withdrawn", lambda: stand.ask(stand.direct, "POST", REVIEWS, REVIEW).code == 403)


def change_binding(stand: Stand, verb: str, *arguments: str) -> None:
    command = ("--token=admin-token", verb, "clusterrolebinding", "nobody", *arguments)
    done = stand.kubectl(stand.direct, *command)
    assert done.returncode == 0, done.stderr


def test_whoami_tells_nobody_that_they_are_anonymous(stand: Stand) -> None:
    """Refused in the same words, and answered alike once upstream permits the question."""
    refusals = [
        stand.kubectl(address, *NOBODY, "auth", "whoami", "-o", "json")
        for address in (stand.direct, stand.guard.address)
    ]
    direct, through = ((done.returncode, done.stdout, done.stderr) for done in refusals)
    assert direct == through
    assert "do not have permission to call it" in direct[2]
    with reviews_for_nobody(stand):
        reviews = stand.whoami(*NOBODY)
    same(*reviews)
    assert reviews[1]["status"]["userInfo"]["username"] == "system:anonymous"


IMPERSONATED = {
    "Impersonate-User": "50%25 Müß  猫".encode(),
    "Impersonate-Group": "100% вещи".encode(),
    "Impersonate-Uid": b"u i d",
    "Impersonate-Extra-Example.com%2Fpod%20N%C3%A4me%25": b"%2F",
}


@pytest.mark.real
def test_an_impersonated_user_is_the_same_user(real_stand: Stand) -> None:
    """Upstream judges and reads the headers; keys of extra values keep their escapes."""
    real_stand.certificate("root", "root", ["system:masters"])
    for certificate, token in (("root", ""), ("", "admin-token")):
        direct, through = real_stand.both(certificate=certificate, token=token, extra=IMPERSONATED)
        same(user_of(direct), user_of(through))
        assert user_of(through)["username"] == "50%25 Müß  猫"
        assert user_of(through)["extra"] == {"example.com/pod näme%": ["%2F"]}


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


@pytest.mark.real
def test_callers_land_in_their_own_buckets_whatever_proves_them(real_stand: Stand) -> None:
    """A certificate at once, a token of the cluster by its key set, another after its review."""
    assert real_stand.guard.admin("PUT", "/v1/policy", PER_USER).code == 200
    token = service_account_token(real_stand)
    real_stand.certificate("caller", "carol", [])

    def limited() -> bool:
        real_stand.ask(real_stand.guard.address, "GET", "/api", certificate="caller")
        for known in (token, "viewer-token"):
            real_stand.ask(real_stand.guard.address, "GET", "/api", token=known)
        wanted = {"carol", "system:serviceaccount:default:robot", "viewer"}
        return wanted <= {user.removeprefix("user:") for user in users_limited(real_stand)}

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


@pytest.mark.real
def test_with_upstream_away_a_token_of_the_cluster_still_counts_for_its_user(
    real_stand: Stand,
) -> None:
    """And when upstream is back nothing needs a restart."""
    real_stand.guard.admin("PUT", "/v1/policy", PER_USER)
    token = service_account_token(real_stand)
    user = "system:serviceaccount:default:robot"
    apiserver = real_stand.apiserver
    assert isinstance(apiserver, RealApiServer)
    apiserver.stop()
    try:
        until("not ready", lambda: real_stand.guard.admin("GET", "/readyz").code == 503, 15)
        before = admitted(real_stand, user)
        assert real_stand.ask(real_stand.guard.address, "GET", "/api", token=token).code == 503
        until("its own bucket", lambda: admitted(real_stand, user) > before, 5)
    finally:
        apiserver.start_again()
    apiserver.wait()
    until("ready again", lambda: real_stand.guard.admin("GET", "/readyz").code == 200, 5)
    direct, through = real_stand.both(token=token)
    same(user_of(direct), user_of(through))


@pytest.mark.real
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_anonymous_requests_stay_switched_off_through_the_guard(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    apiserver = RealApiServer(tmp_path_factory.mktemp("closed"), anonymous=False)
    with running(apiserver, tmp_path_factory.mktemp("closed-guard")) as closed:
        direct, through = closed.both()
        assert (direct.code, through.code) == (401, 401)
        assert through.json == direct.json
