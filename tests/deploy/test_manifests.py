"""What ``deploy/`` holds is accepted where it is meant to go, and means what its comments say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiguard.policy.compile import compile_policy, warnings
from apiguard.policy.config import GuardConfig, parse_config
from apiguard.runtime.cgroup import worker_limit
from apiguard.runtime.supervisor import KILL_SECONDS
from tests.e2e.real import RealApiServer, missing
from tests.e2e.stands import ADMIN, COMMAND_SECONDS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBECTL = Path(sys.executable).with_name("kubectl")
MIB = 1 << 20
TLS_STATE = 48 << 10
PROCESS = 128 * MIB
PLACEHOLDERS = {"NODE_IP": "192.0.2.10", "API_SERVER": "127.0.0.1", "GUARD_PORT": "6443"}


def read(path: str) -> str:
    text = (DEPLOY / path).read_text()
    for name, value in PLACEHOLDERS.items():
        text = text.replace(name, value)
    return text


def documents(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one is not None]


def kustomized(folder: str) -> str:
    """What ``kubectl apply -k`` would send."""
    done = subprocess.run(
        [str(KUBECTL), "kustomize", str(DEPLOY / folder)],
        capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


MANIFESTS = {
    "static pod": lambda: read("static-pod/apiguard.yaml"),
    "sidecar": lambda: kustomized("sidecar"),
    "cluster": lambda: kustomized("cluster"),
    "relay": lambda: read("cluster/relay.yaml"),
}


def guard_container(name: str) -> dict[str, Any]:
    """The guard's container of a manifest."""
    for one in documents(MANIFESTS[name]()):
        spec = one.get("spec", {})
        spec = spec.get("template", {}).get("spec", spec)
        for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
            if container["name"] == "apiguard":
                found: dict[str, Any] = container
                return found
    raise AssertionError(f"no guard in {name}")


def config_of(folder: str) -> GuardConfig:
    return parse_config(read(f"{folder}/guard.yaml"), "guard.yaml")


@pytest.fixture(scope="module")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApiServer]:
    if missing():
        pytest.skip(missing())
    server = RealApiServer(tmp_path_factory.mktemp("apiserver"))
    try:
        server.wait()
        yield server
    finally:
        server.close()


@pytest.mark.real
@pytest.mark.parametrize("name", MANIFESTS)
def test_kube_apiserver_accepts_it(name: str, apiserver: RealApiServer) -> None:
    """Strictly, on its side, storing nothing; unknown and repeated fields are errors."""
    done = subprocess.run(
        [
            *(str(KUBECTL), "--server", apiserver.url, "--certificate-authority"),
            *(str(apiserver.ca_file), "--token", ADMIN, "create", "--dry-run=server"),
            *("--validate=strict", "-o", "json", "-f", "-"),
        ],
        input=MANIFESTS[name](),
        capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()


@pytest.mark.parametrize("name", ["static pod", "sidecar"])
def test_the_guard_runs_with_the_least_it_needs(name: str) -> None:
    container = guard_container(name)
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert "cpu" not in container["resources"]["limits"]
    assert "memory" in container["resources"]["limits"]
    writable = [one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")]
    assert writable == ["/var/lib/apiguard"]


@pytest.mark.parametrize(("name", "folder"), [("static pod", "static-pod"), ("sidecar", "sidecar")])
def test_bounds_keep_workers_below_the_memory_limit(name: str, folder: str) -> None:
    """If every connection there may be stalled both ways at once."""
    config = config_of(folder)
    bounds = config.bounds.connection
    assert bounds.connections > 0
    each = 2 * bounds.buffered_bytes + TLS_STATE
    worst = config.workers * bounds.connections * each + (config.workers + 1) * PROCESS
    assert worst < size(guard_container(name)["resources"]["limits"]["memory"])


@pytest.mark.parametrize(("name", "folder"), [("static pod", "static-pod"), ("sidecar", "sidecar")])
def test_workers_find_enough_in_the_memory_limit_to_shed_by(name: str, folder: str) -> None:
    """Twice what one has at its start at least, or it would refuse in healthy times."""
    limit = size(guard_container(name)["resources"]["limits"]["memory"])
    assert worker_limit(limit, config_of(folder).workers) >= PROCESS


def size(quantity: str) -> int:
    units = {"Mi": MIB, "Gi": 1 << 30}
    return int(quantity[:-2]) * units[quantity[-2:]]


@pytest.mark.parametrize(("name", "folder"), [("static pod", "static-pod"), ("sidecar", "sidecar")])
def test_probes_ask_the_admin_port(name: str, folder: str) -> None:
    """Liveness about the supervisor alone: no restart would bring an API server back."""
    config, container = config_of(folder), guard_container(name)
    port = int(config.admin.address.rpartition(":")[2])
    named = {one["name"]: one["containerPort"] for one in container.get("ports", ())}
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container.get(kind, {}).get("httpGet")
        if probe:
            assert named.get(probe["port"], probe["port"]) == port
            assert kind != "livenessProbe" or probe["path"] == "/livez"


def test_the_kubelet_waits_longer_than_draining_takes() -> None:
    (pod,) = documents(read("static-pod/apiguard.yaml"))
    bounds = config_of("static-pod").bounds.process
    takes = bounds.shutdown_delay_seconds + bounds.drain_seconds + KILL_SECONDS
    assert pod["spec"]["terminationGracePeriodSeconds"] > takes


def test_policies_of_deployments_are_sound() -> None:
    policy = compile_policy(read("sidecar/policy.yaml"), "policy.yaml")
    assert list(warnings(policy)) == []


def test_the_workload_is_told_where_its_guard_listens() -> None:
    (deployment,) = (one for one in documents(kustomized("sidecar")) if one["kind"] == "Deployment")
    (workload,) = deployment["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one["value"] for one in workload["env"]}
    address = f"{told['KUBERNETES_SERVICE_HOST']}:{told['KUBERNETES_SERVICE_PORT']}"
    assert config_of("sidecar").listen.address == address
    mounts = [one["mountPath"] for one in workload["volumeMounts"]]
    assert mounts == ["/var/run/secrets/kubernetes.io/serviceaccount"]


def test_the_guard_may_do_what_its_priority_level_is_for() -> None:
    """Whatever the FlowSchema names, the roles allow, and nothing else is allowed."""
    every = [*documents(kustomized("cluster")), *documents(read("cluster/relay.yaml"))]
    allowed = {what for one in every if one["kind"] == "ClusterRole" for what in targets(one)}
    (schema,) = (one for one in every if one["kind"] == "FlowSchema")
    named = {
        what
        for rule in schema["spec"]["rules"]
        for part in (*rule["nonResourceRules"], *rule["resourceRules"])
        for what in targets({"rules": [part]})
    }
    assert named <= allowed
    assert {what for what in allowed - named if what[1] != "list" and what[1] != "watch"} == set()


def targets(role: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for rule in role["rules"]:
        for what in (*rule.get("nonResourceURLs", ()), *rule.get("resources", ())):
            for verb in rule["verbs"]:
                yield what, verb


def test_kubeadm_is_told_what_the_steps_do() -> None:
    """The flags for ClusterConfiguration are those that sed writes into the manifest."""
    text = (DEPLOY / "static-pod/README.md").read_text()
    found = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    told = {one["name"]: one["value"] for one in yaml.safe_load(found[1])["apiServer"]["extraArgs"]}
    assert f"--bind-address={told['bind-address']}" in text
    assert f"--requestheader-uid-headers={told['requestheader-uid-headers']}" in text
    assert told["requestheader-allowed-names"].split(",") == ["front-proxy-client", "apiguard"]
    (patch,) = documents(read("static-pod/patches/kube-apiserver0+strategic.yaml"))
    (container,) = patch["spec"]["containers"]
    assert {container[kind]["httpGet"]["host"] for kind in container if kind != "name"} == {
        told["bind-address"]
    }


def test_the_sidecar_secret_is_what_the_manifests_mount(tmp_path: Path) -> None:
    """And a client that knows only its authority accepts the certificate at 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("the script needs openssl")
    folder = tmp_path / "secret"
    subprocess.run([DEPLOY / "sidecar/certificates.sh", folder], check=True)
    assert {path.name for path in folder.iterdir()} == {
        "ca.crt",
        "tls.crt",
        "tls.key",
        "admin-token",
    }
    for flag, name in (("-verify_ip", "127.0.0.1"), ("-verify_hostname", "kubernetes.default.svc")):
        done = subprocess.run(
            ["openssl", "verify", flag, name, "-CAfile", "ca.crt", "tls.crt"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.strip() == "tls.crt: OK", done.stderr


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """With a program where the unit expects one, nothing is left to complain about."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    unit = tmp_path / "apiguard.service"
    text = read("systemd/apiguard.service")
    unit.write_text(text.replace("/opt/apiguard/bin/apiguard", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "CPUQuota=" not in text
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > config_of("static-pod").bounds.process.drain_seconds


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's, in order."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    joined = text.replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2]) for line in joined.splitlines() if line]


def test_the_image_is_built_apart_and_runs_as_nobody() -> None:
    found = instructions()
    stages = [index for index, (name, _) in enumerate(found) if name == "FROM"]
    assert len(stages) == 2
    final = dict(found[stages[1] :])
    assert final["USER"] == "65532:65532"
    assert "--from=build" in final["COPY"]
    assert final["VOLUME"] == "/var/lib/apiguard"
    assert json.loads(final["CMD"]) == guard_container("static pod")["args"]
    probe = json.loads(final["HEALTHCHECK"].partition("CMD ")[2])
    assert probe[:2] == ["python", "-c"]
    compile(probe[2], "HEALTHCHECK", "exec")
    assert config_of("static-pod").admin.address + "/livez" in probe[2]


def test_the_image_has_what_it_is_built_from() -> None:
    """.dockerignore lets through what COPY takes."""
    let_through = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = {
        word
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    }
    assert copied <= set(let_through)


@pytest.mark.real
def test_the_sidecar_is_made_as_its_page_says(apiserver: RealApiServer, tmp_path: Path) -> None:
    """Its commands, word for word, in an empty folder with ``deploy``."""
    text = (DEPLOY / "sidecar/README.md").read_text()
    (script,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (tmp_path / "deploy").symlink_to(DEPLOY)
    config = tmp_path / "kubeconfig"
    cluster = {"server": apiserver.url, "certificate-authority": str(apiserver.ca_file)}
    config.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "it", "cluster": cluster}],
                "users": [{"name": "it", "user": {"token": ADMIN}}],
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "current-context": "it",
            }
        )
    )
    path = f"{KUBECTL.parent}:{os.environ.get('PATH', os.defpath)}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path, env={"PATH": path, "KUBECONFIG": str(config), "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "deployment.apps/telemetry-agent created" in done.stdout
