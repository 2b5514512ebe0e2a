"""Listening sockets, opened by the supervisor and inherited by workers.

They stay open while a worker is replaced, so that connections wait in the kernel's queue instead
of being refused. Several workers have a socket each on the same port (SO_REUSEPORT): the kernel
then spreads connections evenly, which one shared socket does not, since the worker that wakes
first takes all that wait.
"""

from __future__ import annotations

import errno
import ipaddress
import resource
import socket
from typing import Final

from apiguard.errors import StartupError

BACKLOG: Final = 4_096
"""Connections that wait while a worker is replaced; the kernel caps it at net.core.somaxconn."""


def split_address(address: str, field: str) -> tuple[str, int]:
    """``host:port`` with brackets around IPv6; 0.0.0.0 and [::] stand for all addresses."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise StartupError(f"{field}: {address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def open_listeners(address: str, count: int, field: str) -> list[socket.socket]:
    """``count`` sockets listening on ``address``; port 0 lets the kernel choose one for all.

    Raises StartupError naming ``field`` when the address is taken or not ours.
    """
    host, port = split_address(address, field)
    first = _listen(host, port, field, share=False)
    if count == 1:
        return [first]
    # The first, unshared bind proved that nobody else has the port: with SO_REUSEPORT alone a
    # second guard of the same user would silently take half of the connections.
    port = first.getsockname()[1]
    first.close()
    return [_listen(host, port, field, share=True) for _ in range(count)]


def _listen(host: str, port: int, field: str, *, share: bool) -> socket.socket:
    family = _family(host, field)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # [::] takes IPv4 too, whatever the system's default.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise StartupError(f"{field} {host}:{port}: {_reason(error)}") from error
    return sock


def _family(host: str, field: str) -> socket.AddressFamily:
    if host == "localhost":
        return socket.AF_INET
    try:
        version = ipaddress.ip_address(host).version
    except ValueError as error:
        raise StartupError(f"{field}: {host!r} is not an IP address") from error
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "port already in use"
    return error.strerror or str(error)


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open files to the hard one, which workers inherit; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
