"""Who somebody at the admin port is: by bearer token, by client certificate, by Unix socket."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import struct
from collections.abc import Sequence
from typing import Final

from apiguard.errors import StartupError
from apiguard.identity.certificate import ClientAuthority, ClientCertificate
from apiguard.policy.adminconfig import (
    ONLY_TOKEN,
    CertificateConfig,
    Role,
    SocketConfig,
    TokenConfig,
)
from apiguard.runtime.actor import Actor

MAX_TOKEN_BYTES: Final = 4_096
MAX_NAME: Final = 256


class TokenFile:
    """One admin token; read again when the file changes, so it can be replaced while running.

    A file that cannot be read any more leaves the last token in force: losing a mount must not
    lock the operator out in the middle of an incident. ``problem`` says so. Raises StartupError
    when the first read fails.
    """

    def __init__(self, path: str, setting: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self.token = b""
        self.problem = ""
        self.refresh()
        if self.problem:
            raise StartupError(f"{setting} {path}: {self.problem}")

    def refresh(self) -> None:
        """Takes a new token if there is one."""
        try:
            found = os.stat(self._path)
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen == self._seen:
                return
            with open(self._path, "rb") as file:
                token = file.read(MAX_TOKEN_BYTES).strip()
        except OSError as error:
            self.problem = error.strerror or str(error)
            return
        self.problem = "" if token else "holds no token"
        if token:
            self.token = token
            self._seen = seen


class Tokens:
    """All tokens, each with its name and role.

    Finding one takes equally long whichever it is and wherever they differ: all are compared, as
    digests under a key of this process, so that neither length nor order is told by time.
    """

    def __init__(self, configs: Sequence[TokenConfig]) -> None:
        """Raises StartupError when a file cannot be used."""
        self._key = secrets.token_bytes(32)
        # Of two files that hold the same token the lesser role counts.
        ordered = sorted(configs, key=lambda config: config.role.rank)
        self._files = [(config, TokenFile(config.file, _setting(config))) for config in ordered]

    def find(self, presented: bytes) -> TokenConfig | None:
        """The token's name and role; None for a token that is none of ours."""
        asked = self._digest(presented)
        found: TokenConfig | None = None
        for config, file in self._files:
            file.refresh()
            if hmac.compare_digest(asked, self._digest(file.token)) and found is None:
                found = config
        return found

    def refresh(self) -> None:
        """Looks at every file."""
        for _, file in self._files:
            file.refresh()

    @property
    def settings(self) -> tuple[str, ...]:
        return tuple(_setting(config) for config, _ in self._files)

    @property
    def problems(self) -> dict[str, str]:
        """Files that cannot be read any more, by setting."""
        return {_setting(config): file.problem for config, file in self._files if file.problem}

    def _digest(self, token: bytes) -> bytes:
        return hashlib.blake2b(token, key=self._key).digest()


def _setting(config: TokenConfig) -> str:
    if config.name == ONLY_TOKEN:
        return "admin.tokenFile"
    return f"admin.tokens[{config.name}]"


def certificate_actor(
    sent: tuple[bytes, ...],
    configs: Sequence[CertificateConfig],
    authority: ClientAuthority,
    *,
    source: str,
    wall: float,
) -> Actor | str:
    """Whom a client certificate stands for, or why for nobody. ``sent`` begins with it; the rest
    may lead from it to ``authority``.

    It is verified again for every request: the handshake's word is as old as its connection, and
    authorities change. Of several configurations that match, the greatest role counts.
    """
    certificate = ClientCertificate(sent[0], sent[1:], None, wall)
    problem = certificate.problem(authority, wall)
    identity = certificate.identity
    if problem or identity is None:
        return problem or "the client certificate names nobody"
    roles = [
        config.role
        for config in configs
        if config.common_name == identity.user or config.organization in identity.groups
    ]
    if not roles:
        return "the client certificate has no role here; see admin.certificates"
    role = max(roles, key=lambda role: role.rank)
    return Actor(identity.user[:MAX_NAME], role.value, source, "certificate")


def socket_actor(connection: socket.socket, config: SocketConfig) -> Actor:
    """The user at the other end of the Unix socket: SO_PEERCRED, unix(7)."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("3i", credentials)
    return Actor(f"uid {uid} ({_user_name(uid)})", config.role.value, "unix", "unix")


def _user_name(uid: int) -> str:
    """From the file itself: a directory service asked in an incident may not answer."""
    try:
        with open("/etc/passwd", encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.split(":")
                if len(fields) > 2 and fields[2] == str(uid):
                    return fields[0][:MAX_NAME]
    except OSError:
        pass
    return "unknown"


def role_of(actor: Actor) -> Role:
    return Role(actor.role)
