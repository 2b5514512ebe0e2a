"""``deploy/sidecar`` as processes: a workload that knows only what its pod tells it is held to the
policy of the guard beside it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config.incluster_config import InClusterConfigLoader

from tests.e2e.guard import PATIENCE, ask, until
from tests.e2e.newcomer import BIN, ROOT
from tests.e2e.node import Process
from tests.e2e.real import free_ports
from tests.e2e.stands import ADMIN, EmbeddedThread

pytestmark = pytest.mark.e2e

SIDECAR = ROOT / "deploy/sidecar"


class Pod:
    """The guard of the sidecar's files in ``folder``, and a client as its workload would make one.

    Carried over word for word but for paths, ports and the API server's name.
    """

    def __init__(self, folder: Path, upstream: EmbeddedThread) -> None:
        secret, cluster = folder / "secret", folder / "cluster"
        subprocess.run([SIDECAR / "certificates.sh", secret], check=True)
        cluster.mkdir()
        (cluster / "token").write_text(ADMIN)
        shutil.copy(upstream.ca_file, cluster / "ca.crt")
        self.port, self.admin_port = free_ports(2)
        words = {
            "/etc/apiguard-tls": str(secret),
            "/etc/apiguard-cluster": str(cluster),
            "/var/lib/apiguard": str(folder / "state"),
            "0.0.0.0:7444": f"127.0.0.1:{self.admin_port}",
            "127.0.0.1:6443": f"127.0.0.1:{self.port}",
            "https://kubernetes.default.svc:443": upstream.url,
        }
        text = (SIDECAR / "guard.yaml").read_text()
        for word, here in words.items():
            assert word in text
            text = text.replace(word, here)
        (folder / "guard.yaml").write_text(text)
        shutil.copy(SIDECAR / "policy.yaml", folder)
        mounted = folder / "serviceaccount"
        mounted.mkdir()
        shutil.copy(secret / "ca.crt", mounted)
        shutil.copy(cluster / "token", mounted)
        self._mounted = mounted
        command = [str(BIN / "apiguard"), "serve", "--config", str(folder / "guard.yaml")]
        self.guard = Process(command, folder / "guard.log")

    def ready(self) -> bool:
        """What the startup probe asks."""
        assert not self.guard.problem(), self.guard.problem()
        try:
            return ask(("127.0.0.1", self.admin_port), "GET", "/readyz").code == 200
        except OSError:
            return False

    def workload(self) -> client.CoreV1Api:
        settings = client.Configuration()
        loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]  # the client is untyped
            token_filename=str(self._mounted / "token"),
            cert_filename=str(self._mounted / "ca.crt"),
            environ={
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": str(self.port),
            },
        )
        loader.load_and_set(settings)  # type: ignore[no-untyped-call]  # likewise
        settings.retries = 0
        return client.CoreV1Api(client.ApiClient(settings))


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    if shutil.which("openssl") is None:
        pytest.skip("certificates.sh needs openssl")
    upstream = EmbeddedThread(tmp_path)
    try:
        made = Pod(tmp_path, upstream)
        try:
            until("the sidecar is ready", made.ready, 60)
            yield made
        finally:
            made.guard.kill()
    finally:
        upstream.close()


def test_the_workload_is_held_to_its_policy(pod: Pod) -> None:
    """Three unpaged lists of every pod and no fourth; pages and single objects go on. At the end
    the guard drains at once."""
    api = pod.workload()
    for _ in range(3):
        assert api.list_pod_for_all_namespaces().kind == "PodList"
    with pytest.raises(ApiException) as refused:
        api.list_pod_for_all_namespaces()
    assert refused.value.status == 429
    assert refused.value.headers is not None
    assert int(refused.value.headers["Retry-After"]) >= 1
    assert api.list_pod_for_all_namespaces(limit=10).kind == "PodList"
    assert api.read_namespace("default").kind == "Namespace"
    # The client keeps its connections and does not read them: no reason to hold up the end.
    began = time.monotonic()
    pod.guard.stop()
    assert time.monotonic() - began < PATIENCE
