"""``deploy/static-pod/README.md`` done word for word on a node: guard and API server on two
loopback addresses and one port, with certificates of kubeadm's kind, there and back again."""

from __future__ import annotations

import http.client
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.config.incluster_config import InClusterConfigLoader

from tests.e2e.guard import until
from tests.e2e.node import NODE_IP, ROOT, Node
from tests.e2e.real import missing

pytestmark = pytest.mark.e2e

TEXT = (ROOT / "deploy/static-pod/README.md").read_text()
NEEDED = ("openssl", "curl", "ss", "xargs", "ps")
ROBOT = """
kubectl create serviceaccount robot
kubectl create clusterrole robot --verb=list,watch --resource=pods
kubectl create clusterrolebinding robot --clusterrole=robot --serviceaccount=default:robot
kubectl create token robot
"""


def steps() -> dict[str, list[str]]:
    """Shell blocks by the heading above them; of "## 3. Try it beside" that is its number."""
    parts = re.split(r"^##+ (.*)\n", TEXT, flags=re.MULTILINE)[1:]
    return {
        heading.partition(".")[0]: re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        pytest.skip(f"the steps need {', '.join(absent)}")
    if request.param == "real" and missing():
        pytest.skip(missing())
    made = Node(tmp_path, real=request.param == "real")
    try:
        yield made
    finally:
        made.close()


class Pod:
    """A client inside the cluster: what it knows is KUBERNETES_SERVICE_HOST, a CA and a token."""

    def __init__(self, node: Node, token: str) -> None:
        mounted = node.folder / "serviceaccount"
        mounted.mkdir()
        (mounted / "token").write_text(token)
        shutil.copy(node.pki / "ca.crt", mounted)
        environment = {
            "KUBERNETES_SERVICE_HOST": NODE_IP,
            "KUBERNETES_SERVICE_PORT": str(node.port),
        }
        self._settings = client.Configuration()
        loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]  # the client is untyped
            token_filename=str(mounted / "token"),
            cert_filename=str(mounted / "ca.crt"),
            environ=environment,
        )
        loader.load_and_set(self._settings)  # type: ignore[no-untyped-call]  # likewise
        self._settings.retries = 0

    def list_pods(self) -> Any:
        with client.ApiClient(self._settings) as api:
            api.user_agent = "pod-of-the-cluster/1"
            return client.CoreV1Api(api).list_namespaced_pod("default")


class Open:
    """A connection of the cluster's administrator that stays open; each answer is a 200."""

    def __init__(self, node: Node) -> None:
        context = ssl.create_default_context(cafile=str(node.pki / "ca.crt"))
        context.load_cert_chain(node.folder / "admin.conf.crt", node.folder / "admin.conf.key")
        self._connection = http.client.HTTPSConnection(
            NODE_IP, node.port, timeout=20, context=context
        )
        self._connection.connect()
        self._connection.auto_open = 0  # one that was dropped must show

    def ask(self) -> None:
        self._connection.request("GET", "/api/v1/namespaces")
        answer = self._connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)

    def close(self) -> None:
        self._connection.close()


def served(port: int) -> str:
    return ssl.get_server_certificate((NODE_IP, port))


@pytest.mark.timeout(180)
def test_the_steps_lead_there_and_back(node: Node) -> None:
    """Whoever comes by KUBERNETES_SERVICE_HOST is seen by the guard; certificates are renewed under
    an open connection; in the end everything is as it was."""
    written = steps()
    node.bash(written["1"][0])
    believe, roles = written["2"]
    node.bash(believe)
    node.sync()
    if node.real:
        assert "flowschema" in node.bash(roles)
    else:  # the embedded server knows no API priority
        node.bash("kubectl apply -f deploy/cluster/rbac.yaml")
    try_it(node, written["3"])
    switch(node, written["4"])
    pod = Pod(node, node.bash(ROBOT).splitlines()[-1])
    assert pod.list_pods().kind == "PodList"
    seen(node, "system:serviceaccount:default:robot")
    assert "enforce" in node.bash("".join(written["5"]) + "apiguard enforcement get")
    find_bypassers(node, written["Who still goes past it"])
    rotate(node, written["6"])
    roll_back(node, written["7"])
    assert pod.list_pods().kind == "PodList"


def try_it(node: Node, blocks: list[str]) -> None:
    start, look = blocks
    node.bash(start)
    node.sync()
    said = node.bash(look)
    assert "[+]upstream ok" in said
    assert "shadow" in said
    seen(node, "kubernetes-admin")


def switch(node: Node, blocks: list[str]) -> None:
    move, follow, look = blocks
    node.bash(move)
    node.sync()
    node.bash(follow)
    node.sync()
    node.bash(look)
    *_, top = look.splitlines()  # workers report five times a second
    until("kubectl shows", lambda: "kubectl" in node.bash(top))
    with pytest.raises(OSError, match="refused"):
        served(node.trial_port)


def seen(node: Node, user: str) -> None:
    """By its own, verified name in what the guard tells."""
    until(user, lambda: user in node.bash("apiguard top --by user --over 1m -o json"))


def find_bypassers(node: Node, blocks: list[str]) -> None:
    (look,) = blocks
    watch = (
        f"curl -sN --cacert {node.pki}/ca.crt --cert {node.folder}/admin.conf.crt"
        f" --key {node.folder}/admin.conf.key"
        f" https://127.0.0.1:{node.port}/api/v1/pods?watch=1"
    )
    assert "curl" not in node.bash(look)
    with subprocess.Popen(watch.split()) as stranger:
        try:
            until("a bypass shows", lambda: "curl" in node.bash(look))
        finally:
            stranger.kill()
    if not node.real:  # kube-apiserver talks to itself
        until("nobody is left", lambda: "nobody" in node.bash(look))


def rotate(node: Node, blocks: list[str]) -> None:
    (renew,) = blocks
    before, kept = served(node.port), Open(node)
    try:
        kept.ask()
        assert '"brokenFiles": {}' in node.bash(renew + "apiguard status -o json")
        until("the new certificate is shown", lambda: served(node.port) != before)
        kept.ask()
        node.bash("kubectl get --raw /readyz")
    finally:
        kept.close()


def roll_back(node: Node, blocks: list[str]) -> None:
    *moves, look = blocks
    for move in moves:
        node.bash(move)
        node.sync()
    said = node.bash(look)
    assert said.startswith("ok")
    assert list(node.manifests.iterdir()) == [node.manifests / "kube-apiserver.yaml"]
    original = (node.folder / "etc/apiguard/kube-apiserver.before.yaml").read_text()
    assert (node.manifests / "kube-apiserver.yaml").read_text() == original
    apiserver = (node.pki / "apiserver.crt").read_text()
    assert served(node.port).split() == apiserver.split()
