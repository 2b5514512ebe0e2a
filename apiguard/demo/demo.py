"""``apiguard demo``: a cluster, the guard before it, and what to try next.

The API server and the guard run in processes of their own, so that the guard has its own
interpreter as in real life; this one only starts, watches and ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from apiguard.demo.command import LISTENING
from apiguard.demo.workspace import Ports, Workspace

START_SECONDS = 30.0  # for each process, on a slow machine
DRAIN_SECONDS = 5.0  # for the guard's open requests after Ctrl-C
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Where and how large. ``quiet`` prints nothing but errors."""

    folder: Path = Path(".demo")
    ports: Ports = field(default_factory=Ports)
    nodes: int = 20
    pods: int = 400
    updates: float = 2.0
    quiet: bool = False


class DemoError(Exception):
    """The demo cannot start or go on: one line that says why."""


@dataclass(frozen=True, slots=True)
class _Child:
    name: str
    process: asyncio.subprocess.Process
    log: Path


def run(options: DemoOptions | None = None) -> int:
    """Runs the demo until Ctrl-C or SIGTERM; returns the exit code."""
    try:
        asyncio.run(run_demo(options if options is not None else DemoOptions()))
    except (DemoError, OSError) as error:
        print(f"apiguard demo: {error}", file=sys.stderr)
        return 1
    return 0


async def run_demo(options: DemoOptions) -> None:
    """As ``run``; raises ``DemoError`` or OSError."""
    check_ports(options.ports)
    workspace = Workspace(options.folder, options.ports)
    workspace.prepare()
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ending.set)
    children: list[_Child] = []
    try:
        if await _start_all(options, workspace, children, ending):
            if not options.quiet:
                print(_welcome(workspace), flush=True)
            await _watch(children, ending)
    finally:
        # The guard first: its open requests still have an upstream while it drains.
        for child in reversed(children):
            await _end(child)


def check_ports(ports: Ports) -> None:
    """Raises ``DemoError`` naming the port that is taken and what wants it."""
    wanted = (("guard", ports.guard), ("admin", ports.admin), ("API server", ports.apiserver))
    for what, port in wanted:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise DemoError(
                    f"port {port} on 127.0.0.1, wanted for the {what}, is in use ({error.strerror})"
                ) from None


async def _start_all(
    options: DemoOptions, workspace: Workspace, children: list[_Child], ending: asyncio.Event
) -> bool:
    """Starts both processes; false when told to end meanwhile."""
    apiserver = [sys.executable, "-m", "apiguard.demo.apiserver"]
    apiserver += ["--port", str(options.ports.apiserver), "--tokens", str(workspace.tokens)]
    apiserver += ["--cert", str(workspace.server_cert), "--key", str(workspace.server_key)]
    apiserver += ["--nodes", str(options.nodes), "--pods", str(options.pods)]
    apiserver += ["--updates", str(options.updates)]
    children.append(await _start("API server", apiserver, workspace.folder / "apiserver.log"))
    log = children[0].log
    if not await _until(lambda: LISTENING in log.read_text(), children[0], ending):
        return False
    guard = [sys.executable, "-m", "apiguard.cli", "serve", "--config", str(workspace.config)]
    children.append(await _start("guard", guard, workspace.folder / "guard.log"))
    port = options.ports.admin
    while not await _ready(port):
        if not await _until(lambda: True, children[1], ending, pause=0.1):
            return False
    return True


async def _start(name: str, command: list[str], log: Path) -> _Child:
    """Starts a process that writes to ``log`` and does not see this terminal's Ctrl-C."""
    die_with_parent = _death_signal()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    return _Child(name, process, log)


def _death_signal() -> Callable[[], object] | None:
    """On Linux: what makes a child end when this process is killed. Loaded before the fork."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _until(
    condition: Callable[[], bool], child: _Child, ending: asyncio.Event, *, pause: float = 0.05
) -> bool:
    """Waits for the condition, at least one pause; false when told to end.

    Raises ``DemoError`` when the process ended or the time is up.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), pause)
        if ending.is_set():
            return False
        if child.process.returncode is not None:
            raise DemoError(_epitaph(child))
        if condition():
            return True
        if loop.time() > deadline:
            raise DemoError(
                f"the {child.name} did not start within {START_SECONDS:.0f} s; see {child.log}"
            )


async def _ready(port: int) -> bool:
    """Whether the guard's admin port says it is ready."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        await writer.drain()
        return b" 200 " in await asyncio.wait_for(reader.readline(), 5.0)
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _watch(children: list[_Child], ending: asyncio.Event) -> None:
    """Until told to end; raises ``DemoError`` when a process ends by itself."""
    waits = {asyncio.ensure_future(child.process.wait()): child for child in children}
    told = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait({told, *waits}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (told, *waits):
            task.cancel()
        await asyncio.gather(told, *waits, return_exceptions=True)
    if not ending.is_set():
        gone = next(child for child in children if child.process.returncode is not None)
        raise DemoError(_epitaph(gone))


def _epitaph(child: _Child) -> str:
    lines = child.log.read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    return f"the {child.name} ended with code {child.process.returncode}: {last}"


async def _end(child: _Child) -> None:
    """SIGTERM, and SIGKILL to the whole session of a process that does not end in time."""
    process = child.process
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), DRAIN_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _welcome(workspace: Workspace) -> str:
    folder, ports = workspace.folder, workspace.ports
    token = workspace.admin_token.read_text().strip()
    guard, admin = f"https://127.0.0.1:{ports.guard}", f"http://127.0.0.1:{ports.admin}"
    noisy = (
        "for i in 1 2 3 4 5 6; do curl -s -o /dev/null -w '%{http_code} ' \\\n"
        f'      -A noisy-agent/1.0 --cacert {workspace.ca} -H "Authorization: Bearer '
        f'$(cat {folder}/telemetry-user.token)" \\\n'
        f"      {guard}/api/v1/namespaces/shop/pods; done; echo"
    )
    lists = (
        "for i in $(seq 20); do curl -s -o /dev/null -w '%{http_code} ' \\\n"
        f'      -A telemetry-agent/1.0 --cacert {workspace.ca} -H "Authorization: Bearer '
        f'$(cat {folder}/telemetry-user.token)" \\\n'
        f"      {guard}/api/v1/pods; done; echo"
    )
    # The tests' extra brings kubectl along; a machine's own goes first.
    path = f'PATH="$PATH:{Path(sys.executable).absolute().parent}"'
    bearer = f'-H "Authorization: Bearer $(cat {workspace.admin_token})"'
    return f"""\
guard       {guard}    what clients talk to
admin       {admin}     answers while the guard is drowning
API server  https://127.0.0.1:{ports.apiserver}    embedded, with a synthetic cluster
admin token {token}    (also in {workspace.admin_token})

Use the cluster through the guard:
  export KUBECONFIG="{workspace.kubeconfig.absolute()}" {path}
  kubectl get pods -A
  kubectl get pods -n shop -w
  kubectl create configmap hello --from-literal=a=b
  kubectl --context viewer auth whoami

See who asks for what, and stop whom you choose:
  export APIGUARD_CONFIG="{workspace.contexts.absolute()}" {path}
  apiguard top
  apiguard ban --user-agent 'noisy-agent/*' --for 2m --reason 'trying it' --dry-run

Throttle a user-agent. First six requests, all 200:
  {noisy}
Then put a policy that allows it one request every two seconds, and send them again:
  curl -X PUT {bearer} \\
      -H 'Content-Type: application/yaml' --data-binary @{workspace.throttle} \\
      {admin}/v1/policy
Now the burst of 2 passes and the rest is 429, while kubectl notices nothing.

Let agents read from the guard's memory: twenty lists, which cost upstream one list and a watch:
  {lists}
  apiguard relay

Look inside:
  apiguard flows
  apiguard status
  curl {bearer} {admin}/v1/status
  curl {admin}/readyz?verbose

Logs: {folder}/guard.log and {folder}/apiserver.log. Ctrl-C ends all of it.
"""
