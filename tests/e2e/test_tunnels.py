"""exec, attach, port-forward and log streams: real kubectl, a kubelet that runs nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.e2e.kubelet import POD, FakeKubelet
from tests.e2e.real import TOKENS
from tests.e2e.stands import Stand

pytestmark = pytest.mark.e2e

SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
WEBSOCKET = dict.fromkeys(SPDY, "true")
PROTOCOLS = pytest.mark.parametrize("protocol", [SPDY, WEBSOCKET], ids=["spdy", "websocket"])
PODS = "/api/v1/namespaces/default/pods"


@dataclass(frozen=True, slots=True)
class KubeletAsApi:
    """The fake kubelet where a guard expects kube-apiserver. It refuses WebSocket."""

    url: str
    ca_file: Path
    tokens_file: Path


@pytest.fixture(scope="session")
def direct(
    kubelet: FakeKubelet, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    """A guard straight before the fake kubelet: kubectl's SPDY frames pass the guard alone."""
    folder = tmp_path_factory.mktemp("streams")
    tokens = folder / "tokens.csv"
    tokens.write_text(TOKENS)
    server = KubeletAsApi(kubelet.url, certificates.authority, tokens)
    made = Stand("direct", folder, server, certificates)
    yield made
    made.close()


@pytest.fixture(scope="session")
def kubernetes(real: Stand, kubelet: FakeKubelet) -> Stand:
    """A real kube-apiserver that finds the fake kubelet on the node of the pod ``web``."""
    node = {
        "metadata": {"name": "n1"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}},
        },
    }
    assert real.direct.send("POST", "/api/v1/nodes", node).code == 201
    assert real.direct.send("PUT", "/api/v1/nodes/n1/status", node).code == 200
    assert real.direct.send("POST", PODS, POD).code == 201
    assert real.direct.send("PUT", f"{PODS}/web/status", POD).code == 200
    return real


@pytest.fixture(
    scope="session", params=["direct", pytest.param("kubernetes", marks=pytest.mark.real)]
)
def streaming(request: pytest.FixtureRequest) -> Stand:
    """Each upstream that streams, in turn."""
    found: Stand = request.getfixturevalue(request.param)
    return found


@PROTOCOLS
def test_exec_carries_input_output_and_exit_code(
    streaming: Stand, protocol: dict[str, str]
) -> None:
    said = "x" * 300_000 + "\n"
    out = streaming.kubectl(
        "exec", "-i", "web", "--", "cat", "a b", stdin=said, environment=protocol
    )
    assert out == "cat a b\n" + said
    failed = streaming.try_kubectl(["exec", "web", "--", "exit", "3"], environment=protocol)
    assert (failed.returncode, failed.stdout) == (3, "exit 3\n")


@PROTOCOLS
def test_attach_carries_both_directions(streaming: Stand, protocol: dict[str, str]) -> None:
    out = streaming.kubectl("attach", "-i", "web", stdin="typed\n", environment=protocol)
    assert out.endswith("attach\ntyped\n")


def test_kubectl_asks_by_websocket_first_and_by_spdy_when_refused(
    direct: Stand, kubelet: FakeKubelet
) -> None:
    """A refused upgrade comes back as an ordinary answer, after which the client goes on."""
    before = len(kubelet.sessions)
    assert direct.kubectl("exec", "web", "--", "date", environment=WEBSOCKET) == "date\n"
    asked = [(session.method, session.upgrade) for session in kubelet.sessions[before:]]
    assert asked == [("GET", "websocket"), ("POST", "SPDY/3.1")]


@PROTOCOLS
def test_port_forward_carries_connections(streaming: Stand, protocol: dict[str, str]) -> None:
    with forwarded(streaming, protocol) as port:
        for _ in range(3):
            assert echoed(port, b"payload" * 10_000) == b"payload" * 10_000


def test_followed_logs_arrive_line_by_line(streaming: Stand, kubelet: FakeKubelet) -> None:
    kubelet.next_line.clear()
    with subprocess.Popen(
        streaming.command("logs", "-f", "web"), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "first line\n"
            kubelet.next_line.set()
            assert process.stdout.readline() == "second line\n"
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_the_embedded_server_runs_kubectl_exec_over_websocket(embedded: Stand) -> None:
    pod = {"metadata": {"name": "tunnel"}, "spec": POD["spec"]}
    assert embedded.direct.send("POST", PODS, pod).code == 201
    out = embedded.kubectl("exec", "-i", "tunnel", "--", "cat", stdin="from stdin")
    assert out == "cat\nfrom stdin"
    assert embedded.kubectl("logs", "tunnel").startswith("c of default/tunnel started\n")


@contextmanager
def forwarded(stand: Stand, protocol: dict[str, str]) -> Iterator[int]:
    """The local port of ``kubectl port-forward``."""
    with subprocess.Popen(
        stand.command("port-forward", "pod/web", ":80", "--address=127.0.0.1"),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **protocol},
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield int(line.split(" -> ")[0].rpartition(":")[2])
        finally:
            process.kill()


def echoed(port: int, data: bytes) -> bytes:
    """What comes back of ``data`` after its sender has closed its half."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        sender = threading.Thread(target=_send, args=(connection, data))
        sender.start()
        got = b"".join(iter(lambda: connection.recv(65_536), b""))
        sender.join()
        return got


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
