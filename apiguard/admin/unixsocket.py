"""The Unix socket of the admin port: who may connect is who may write to the file."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import Final

from apiguard.errors import StartupError
from apiguard.policy.adminconfig import SocketConfig

LONGEST_PATH: Final = 107
"""Bytes of a socket's path: sun_path of unix(7) without its end."""

BACKLOG: Final = 128
ONLY_OWNER: Final = 0o177
PROBE_SECONDS: Final = 1.0


def open_socket(config: SocketConfig) -> socket.socket:
    """Listening, with the configured permissions. A socket nobody listens on any more is removed.

    Raises StartupError when the path holds anything else, or a socket that is in use.
    """
    if len(os.fsencode(config.path)) > LONGEST_PATH:
        raise StartupError(f"admin.socket.path: longer than {LONGEST_PATH} bytes: {config.path}")
    try:
        _remove_stale(config.path)
        return _listen(config)
    except OSError as error:
        raise StartupError(f"admin.socket.path {config.path}: {error.strerror}") from error


def close_socket(sock: socket.socket, config: SocketConfig) -> None:
    """Closes it and removes its file, unless another process has put its own there."""
    sock.close()
    with contextlib.suppress(OSError, StartupError):
        _remove_stale(config.path)


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise StartupError(f"admin.socket.path {path}: exists and is no socket")
    if _listens(path):
        raise StartupError(f"admin.socket.path {path}: another process listens on it")
    os.unlink(path)


def _listens(path: str) -> bool:
    """Whether a connection is accepted, or would be if there were room."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _listen(config: SocketConfig) -> socket.socket:
    """Closed to everybody else from the first moment: the mode is widened after binding."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(ONLY_OWNER)
        try:
            sock.bind(config.path)
        finally:
            os.umask(before)
        os.chmod(config.path, config.mode)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
