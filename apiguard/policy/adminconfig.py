"""The part of a GuardConfig that says who may operate the guard, and by which door.

Three doors: the address, with bearer tokens; the address again, with client certificates when it
speaks TLS; and a Unix socket, which works for the host itself when network, tokens and
certificates do not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from .fields import Section
from .tlsconfig import TlsConfig, read_tls

MAX_TOKENS = 64
MAX_CERTIFICATES = 64
ONLY_TOKEN = "admin"  # noqa: S105  the name of the token in tokenFile, not the token


class Role(Enum):
    """What somebody may do; each role may also do what those before it may."""

    METRICS = "metrics"  # scrape
    VIEWER = "viewer"  # read everything, try changes without making them
    OPERATOR = "operator"  # overrides, enforcement, draining: what expires or is undone at once
    ADMIN = "admin"  # the policy itself

    @property
    def rank(self) -> int:
        """0 for the least."""
        return _RANKS[self]

    def includes(self, needed: Role) -> bool:
        """Whether whoever holds this role may do what ``needed`` allows."""
        return self.rank >= needed.rank


_RANKS = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class TokenConfig:
    """A bearer token, by the file that holds it. ``name`` is who acted, in the audit."""

    name: str
    role: Role
    file: str


@dataclass(frozen=True, slots=True)
class CertificateConfig:
    """Client certificates and their role: by common name or by organization, one of the two."""

    role: Role
    common_name: str | None = None
    organization: str | None = None


@dataclass(frozen=True, slots=True)
class SocketConfig:
    """A Unix socket; whoever may open it has its role, without a token."""

    path: str
    mode: int = 0o600
    """Permissions of the socket file: who may connect."""

    role: Role = Role.ADMIN


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """The port that still answers when traffic drowns."""

    address: str
    """``host:port``; keep it off public networks."""

    token_file: str | None = None
    """Holds the one bearer token of a small setup: role ``admin``, name ``admin``."""

    hosts: tuple[str, ...] = ()
    """Host names accepted besides the address itself; others are answered 421."""

    tokens: tuple[TokenConfig, ...] = ()
    tls: TlsConfig | None = None
    """Absent: plain HTTP, so that tokens should not leave the host."""

    certificates: tuple[CertificateConfig, ...] = ()
    """Needs ``tls.clientCAFile``."""

    socket: SocketConfig | None = None

    @property
    def all_tokens(self) -> tuple[TokenConfig, ...]:
        """``tokens`` and the one in ``tokenFile``."""
        if not self.token_file:
            return self.tokens
        return (TokenConfig(ONLY_TOKEN, Role.ADMIN, self.token_file), *self.tokens)


def read_admin(section: Section, address: str) -> AdminConfig:
    """``address`` is read by the caller. Problems go to the section's findings."""
    tls, socket = section.section("tls"), section.section("socket")
    config = AdminConfig(
        address=address,
        token_file=section.optional_text("tokenFile"),
        hosts=tuple(text.value.lower() for text in section.texts("hosts") or ()),
        tokens=tuple(_token(one) for one in section.sections("tokens", most=MAX_TOKENS)),
        tls=read_tls(tls) if tls else None,
        certificates=tuple(
            _certificate(one) for one in section.sections("certificates", most=MAX_CERTIFICATES)
        ),
        socket=_socket(socket) if socket else None,
    )
    _check_together(section, config)
    section.close()
    return config


def _check_together(section: Section, config: AdminConfig) -> None:
    names = [token.name for token in config.all_tokens]
    for name in sorted({name for name in names if names.count(name) > 1}):
        section.complain("tokens", f"name {name!r} twice: the audit could not tell them apart")
    if config.certificates and not (config.tls and config.tls.client_ca_file):
        section.complain("certificates", "needs admin.tls.clientCAFile")
    if not (config.all_tokens or config.certificates or config.socket):
        section.complain("tokenFile", "is required, unless tokens, certificates or socket is given")


def _token(section: Section) -> TokenConfig:
    config = TokenConfig(name=section.text("name"), role=_role(section), file=section.text("file"))
    section.close()
    return config


def _certificate(section: Section) -> CertificateConfig:
    config = CertificateConfig(
        role=_role(section),
        common_name=section.optional_text("commonName"),
        organization=section.optional_text("organization"),
    )
    if (config.common_name is None) == (config.organization is None):
        section.complain("commonName", "give either commonName or organization")
    elif "" in (config.common_name, config.organization):
        section.complain("commonName", "must not be empty")
    section.close()
    return config


def _role(section: Section) -> Role:
    if "role" not in section:
        section.complain("role", f"is required: {', '.join(role.value for role in Role)}")
    return section.choice("role", Role, Role.METRICS)


_MODE = re.compile(r"0?[0-7]{3}")


def _socket(section: Section) -> SocketConfig:
    mode = section.text("mode", default="0600")
    if not _MODE.fullmatch(mode):
        section.complain("mode", "must be permissions, such as 0660")
        mode = "0600"
    config = SocketConfig(
        path=section.text("path"),
        mode=int(mode, 8),
        role=section.choice("role", Role, Role.ADMIN),
    )
    section.close()
    return config
