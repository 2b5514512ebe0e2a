"""``apiguard demo`` starts, works, ends, and says in a line why it cannot."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from apiguard.demo.demo import DemoError, check_ports
from apiguard.demo.workspace import Ports, Workspace

KUBECTL = Path(sys.executable).with_name("kubectl")
SCRIPT = """
import sys
from pathlib import Path
from apiguard.demo.demo import DemoOptions, run
from apiguard.demo.workspace import Ports
ports = Ports(*(int(text) for text in sys.argv[1:4]))
sys.exit(run(DemoOptions(folder=Path(".demo"), ports=ports, nodes=3, pods=20)))
"""


def free_ports() -> Ports:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = Ports(*(s.getsockname()[1] for s in sockets))
    for opened in sockets:
        opened.close()
    return ports


def test_a_taken_port_is_named() -> None:
    ports = free_ports()
    with (
        socket.create_server(("127.0.0.1", ports.admin)),
        pytest.raises(DemoError, match=f"port {ports.admin} .*admin, is in use"),
    ):
        check_ports(ports)


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / ".demo", Ports())
    workspace.prepare()
    for path in (workspace.admin_token, workspace.tokens, workspace.kubeconfig):
        assert path.stat().st_mode & 0o077 == 0, path
    assert workspace.server_key.stat().st_mode & 0o077 == 0


@pytest.mark.e2e
async def test_the_demo_serves_through_the_guard_and_ends_with_its_children(
    tmp_path: Path,
) -> None:
    ports = free_ports()
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT),
        *(str(port) for port in (ports.guard, ports.admin, ports.apiserver)),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert demo.stdout is not None
        lines = await asyncio.wait_for(demo.stdout.readuntil(b"Ctrl-C ends all of it.\n"), 60)
        token = (tmp_path / ".demo/admin.token").read_text().strip()
        assert token.encode() in lines
        listed = await asyncio.to_thread(
            subprocess.run,
            [
                str(KUBECTL),
                f"--kubeconfig={tmp_path / '.demo/kubeconfig'}",
                f"--cache-dir={tmp_path / 'cache'}",
                *("get", "pods", "-A", "--no-headers"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert len(listed.stdout.splitlines()) >= 19
        demo.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(demo.communicate(), 30)
        assert (demo.returncode, errors) == (0, b"")
        check_ports(ports)
    finally:
        if demo.returncode is None:
            os.kill(demo.pid, signal.SIGKILL)
            await demo.wait()
