"""Two Python proxies of our own: the measuring stick, and what aiohttp makes easy."""

from __future__ import annotations

import sys

from loadtests.bench.peers.peer import Peer, Running, Setting
from loadtests.bench.processes import free_port


def start(setting: Setting) -> Running:
    return _start("floor", "loadtests.bench.peers.floor_proxy", setting)


def start_naive(setting: Setting) -> Running:
    return _start("aiohttp", "loadtests.bench.peers.naive_proxy", setting)


def _start(name: str, module: str, setting: Setting) -> Running:
    port = free_port()
    arguments = [str(port), str(setting.upstream_port)]
    if setting.secure:
        issued = setting.certificates
        arguments += [str(issued.authority), str(issued.certificate), str(issued.key)]
    process = setting.fleet.start(
        name, [sys.executable, "-m", module, *arguments], cpus=setting.cpus.proxy, ports=[port]
    )
    return Running(name, port, process)


FLOOR = Peer("floor", start)
NAIVE = Peer("aiohttp", start_naive)
