"""Shape of a GuardConfig file: text -> frozen values, or every problem with its line.

Each bound of the guard is one field of ``Bounds``, with its unit and the reason for its default;
its name in the file is the same in camelCase. File paths are left as written: whoever opened the
file resolves them against its directory.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from .adminconfig import AdminConfig as AdminConfig  # a GuardConfig is built from this module
from .adminconfig import read_admin
from .document import parse
from .fields import Findings, Section, check_kind
from .identityconfig import (
    CredentialsConfig,
    FrontProxyConfig,
    IdentityConfig,
    read_credentials,
    read_front_proxy,
    read_identity,
)
from .operatorconfig import (
    ObservabilityConfig,
    OverridesConfig,
    read_observability,
    read_overrides,
)
from .relayconfig import RelayConfig, read_relay
from .sources import Network, parse_network
from .tlsconfig import TlsConfig as TlsConfig
from .tlsconfig import read_tls

KIND = "GuardConfig"
MAX_SERVERS = 64
MAX_WORKERS = 64


class Enforcement(Enum):
    """What the guard as a whole does with a refusal."""

    ENFORCE = "enforce"  # answers 429
    SHADOW = "shadow"  # counts what it would refuse and lets everything pass
    OFF = "off"  # does not classify or count at all


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """Where clients connect."""

    address: str
    """``host:port``; an IPv6 host in brackets."""

    tls: TlsConfig | None = None
    """Absent: plain HTTP, over which kubectl sends no credentials."""

    trusted_proxy_cidrs: tuple[str, ...] = ()
    """Peers whose PROXY protocol header names the client; from others such a header is refused."""


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """The kube-apiservers behind the guard."""

    servers: tuple[str, ...]
    """``https://host:port`` (or http) of each, without path."""

    ca_file: str | None = None
    """PEM authorities that sign upstream's certificates; absent: the system's."""

    server_name: str | None = None
    """Name to ask for and to verify in upstream's certificate; absent: the host of the URL."""

    front_proxy: FrontProxyConfig | None = None
    """How callers with client certificates are passed on; required with ``clientCAFile``."""

    credentials: CredentialsConfig | None = None
    """The guard's own identity; absent: it asks upstream nothing on its own behalf."""


@dataclass(frozen=True, slots=True)
class RequestBounds:
    """One request on its way in."""

    header_bytes: int = 65_536
    """Bytes of request headers. More is 431."""

    header_fields: int = 256
    """Header lines. More is 431."""

    header_seconds: int = 10
    """Seconds for the complete head: a total, so that one byte at a time buys nothing."""

    target_bytes: int = 65_536
    """Bytes of path and query. More is 414."""

    body_bytes: int = 3_211_264
    """Bytes of a request body: upstream's 3 MiB and 64 KiB, so that its own limit answers first."""

    body_min_bytes_per_second: int = 1_024
    """Slowest body accepted, measured once ``bodyGraceSeconds`` have passed."""

    body_grace_seconds: int = 10
    """Seconds before a slow body counts as slow."""


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """Connections from clients."""

    handshake_seconds: int = 10
    """Seconds for a TLS handshake."""

    unfinished_handshakes: int = 64
    """Handshakes in progress per worker: the most expensive thing a stranger can ask for."""

    idle_client_seconds: int = 120
    """Seconds a connection may wait for its next request; above upstream's own 90."""

    connections: int = 0
    """Open connections per worker; 0: nine tenths of the descriptor limit less 256 kept for
    admin and upstream."""

    connections_per_source: int = 2_000
    """Open connections per source address, IPv6 by /64."""

    pipelined_requests: int = 16
    """Requests held while one is answered; then reading stops."""

    buffered_bytes: int = 262_144
    """Bytes held per direction before the other side is paused."""

    write_stall_seconds: int = 60
    """Seconds a client may accept no byte of an answer or a watch."""


@dataclass(frozen=True, slots=True)
class UpstreamBounds:
    """Connections to kube-apiserver."""

    idle_upstream_seconds: int = 60
    """Seconds a connection is kept for reuse: below upstream's 90, so that it closes last."""

    first_byte_seconds: int = 65
    """Seconds until upstream answers: its own deadline of 60 answers first. Long-running requests
    have none."""

    requests_per_upstream: int = 500
    """Requests in progress per upstream address, watches aside: below kube-apiserver's 400 + 200,
    so that there is room for exempt ones, which have as many of their own."""

    collection_reads_percent: int = 50
    """Part of ``requestsPerUpstream`` that lists may hold, and watch-lists until their objects are
    there: what else is asked does not wait for them. Half of 500 leaves half of kube-apiserver's
    400 reads, and all of its 200 writes."""

    watches_per_upstream: int = 20_000
    """Open watches and streams per upstream address: each is a local port of the guard."""

    waiting_requests: int = 1_000
    """Requests that wait for an upstream connection; more are answered 429. Of collection reads
    fewer, by those of others that wait; exempt requests and watches have as many of their own."""


@dataclass(frozen=True, slots=True)
class IdentityBounds:
    """Proving who callers are."""

    signature_checks_per_second: int = 500
    """New token signatures checked per worker and second: about 5 % of a core for RSA. Callers
    beyond it count as unverified until their turn comes."""

    remembered_tokens: int = 10_000
    """Tokens per worker whose verification is remembered, and as many each of bad ones, reviewed
    ones and ones a review found bad; a forgotten one is proven again."""


@dataclass(frozen=True, slots=True)
class ProcessBounds:
    """A worker and its tables."""

    buckets: int = 20_000
    """Buckets per worker; then new keys share one bucket per limit."""

    stall_seconds: int = 10
    """Seconds without a sign of life before a worker is replaced."""

    memory_bytes: int = 0
    """Resident bytes a worker stays below: near them it gives back caches, then refuses lists and
    watches, then cuts clients that hold answers without reading them. 0: worked out from the
    memory limit of the control group the guard runs in, in equal parts; without one none."""

    shutdown_delay_seconds: int = 0
    """Seconds after SIGTERM in which everybody is still served while ``/readyz`` of the admin port
    fails already: as long as whoever looks at it takes to send clients elsewhere."""

    drain_seconds: int = 60
    """Seconds for open requests after that, when no new connections are accepted any more. The
    guard ends as soon as the last of them has."""

    drain_watch_seconds: int = 3
    """Seconds of the drain over which open watches are ended one after the other: their clients
    return at once, to another guard or as soon as this one is back. Where there is no other,
    leaders give up after 10 s without one."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Every bound of the guard; reaching one is counted. In the file all are keys of ``bounds``."""

    request: RequestBounds = field(default_factory=RequestBounds)
    connection: ConnectionBounds = field(default_factory=ConnectionBounds)
    upstream: UpstreamBounds = field(default_factory=UpstreamBounds)
    identity: IdentityBounds = field(default_factory=IdentityBounds)
    process: ProcessBounds = field(default_factory=ProcessBounds)


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """A guard's settings, fixed for the life of its supervisor."""

    listen: ListenConfig
    upstream: UpstreamConfig
    admin: AdminConfig
    state_dir: str
    """Directory the guard may write: accepted policies and what survives a restart."""

    policy_file: str
    """The ThrottlePolicy to start with."""

    identity: IdentityConfig = field(default_factory=IdentityConfig)
    enforcement: Enforcement = Enforcement.ENFORCE
    workers: int = 1
    """Processes that carry traffic; one per core that may be spent on it."""

    bounds: Bounds = field(default_factory=Bounds)
    overrides: OverridesConfig = field(default_factory=OverridesConfig)
    observability: ObservabilityConfig = field(default_factory=ObservabilityConfig)
    relay: RelayConfig = field(default_factory=RelayConfig)


def parse_config(text: str, name: str) -> GuardConfig:
    """The configuration that ``text`` writes; ``name`` is what errors call the file.

    Raises ConfigError with every problem found.
    """
    findings = Findings(name)
    root = Section(findings, parse(text, name))
    check_kind(root, KIND)
    listen, upstream, identity, admin, bounds, overrides, observability, relay = (
        root.section(key, required=required)
        for key, required in (
            ("listen", True),
            ("upstream", True),
            ("identity", False),
            ("admin", True),
            ("bounds", False),
            ("overrides", False),
            ("observability", False),
            ("relay", False),
        )
    )
    config = GuardConfig(
        listen=_listen(listen) if listen else ListenConfig(""),
        upstream=_upstream(upstream) if upstream else UpstreamConfig(()),
        identity=read_identity(identity) if identity else IdentityConfig(),
        admin=read_admin(admin, _address(admin)) if admin else AdminConfig(""),
        state_dir=root.text("stateDir"),
        enforcement=root.choice("enforcement", Enforcement, Enforcement.ENFORCE),
        workers=root.integer("workers", least=1, most=MAX_WORKERS, default=1),
        policy_file=root.text("policyFile"),
        bounds=_bounds(bounds) if bounds else Bounds(),
        overrides=read_overrides(overrides) if overrides else OverridesConfig(),
        observability=read_observability(observability) if observability else ObservabilityConfig(),
        relay=read_relay(relay) if relay else RelayConfig(),
    )
    _check_together(findings, config, listen, identity)
    if relay and config.relay.resources and config.upstream.credentials is None:
        reason = "needs upstream.credentials: the relay lists, watches and reviews in its own name"
        findings.add(relay.mapping.line, "relay", reason)
    root.close()
    findings.raise_any()
    return config


def _check_together(
    findings: Findings, config: GuardConfig, listen: Section | None, identity: Section | None
) -> None:
    """What one section needs of another."""
    tls = config.listen.tls
    if listen and tls and tls.client_ca_file and config.upstream.front_proxy is None:
        reason = "needs upstream.frontProxy, to tell upstream who the caller is"
        findings.add(listen.line("tls"), "listen.tls.clientCAFile", reason)
    if identity and config.identity.asks_upstream and config.upstream.credentials is None:
        reason = "tokenReview and jwksFromUpstream need upstream.credentials"
        findings.add(identity.mapping.line, "identity", reason)


# -- sections


def _listen(section: Section) -> ListenConfig:
    tls = section.section("tls")
    proxy = section.section("proxyProtocol")
    config = ListenConfig(
        address=_address(section),
        tls=read_tls(tls) if tls else None,
        trusted_proxy_cidrs=_networks(proxy) if proxy else (),
    )
    section.close()
    return config


def _networks(section: Section) -> tuple[str, ...]:
    texts = section.texts("trustedCIDRs") or ()
    section.close()
    networks: list[Network] = []
    for text in texts:
        try:
            networks.append(parse_network(text.value))
        except ValueError as error:
            section.findings.add(text.line, text.field, str(error))
    return tuple(str(network) for network in networks)


_SERVER = re.compile(r"(https?)://([^/?#@\s]+)/?")


def _upstream(section: Section) -> UpstreamConfig:
    missing = "must name at least one server, as in https://10.0.0.1:6443"
    servers = section.texts("servers", most=MAX_SERVERS, empty=missing)
    if servers is None:
        section.complain("servers", missing)
    for text in servers or ():
        found = _SERVER.fullmatch(text.value)
        reason = _address_problem(found[2], port_required=False) if found else "no"
        if reason:
            reason = "must be https://host:port or http://host:port, without path"
            section.findings.add(text.line, text.field, reason)
    front_proxy, credentials = section.section("frontProxy"), section.section("credentials")
    config = UpstreamConfig(
        servers=tuple(text.value.rstrip("/") for text in servers or ()),
        ca_file=section.optional_text("caFile"),
        server_name=section.optional_text("serverName"),
        front_proxy=read_front_proxy(front_proxy) if front_proxy else None,
        credentials=read_credentials(credentials) if credentials else None,
    )
    section.close()
    return config


def _address(section: Section) -> str:
    address = section.text("address")
    if "address" in section and address:
        reason = _address_problem(address, port_required=True)
        if reason:
            section.complain("address", reason)
    return address


def _address_problem(address: str, *, port_required: bool) -> str:
    """Why ``address`` is no ``host:port``, or "" when it is one."""
    host, colon, port = address.rpartition(":")
    if address.endswith("]") or not colon:
        host, port = address, ""
    if not port and (port_required or address.endswith(":")):
        return "must be host:port"
    if port and not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        return "has no port from 0 to 65535"
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1] if host.endswith("]") else "")
        except ValueError:
            return "has no IPv6 address between the brackets"
        return ""
    return "must have an IPv6 address in brackets" if ":" in host else "" if host else _NO_HOST


_NO_HOST = "must name a host; 0.0.0.0 or [::] stand for all addresses"


# -- bounds

# The default is the value for nearly everybody; these only tell a setting from a slip.
_MOST = {
    "seconds": 86_400,
    "bytes": 1 << 30,
    "second": 1 << 30,
    "memory_bytes": 1 << 40,
    "percent": 100,
}
_MOST_ELSE = 10_000_000


def camel_case(name: str) -> str:
    """``header_bytes`` -> ``headerBytes``: the name of a bound in the file."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _bounds(section: Section) -> Bounds:
    bounds = Bounds()
    groups = {
        group.name: _group(section, getattr(bounds, group.name))
        for group in dataclasses.fields(bounds)
    }
    section.close()
    return dataclasses.replace(bounds, **groups)


_G = TypeVar("_G", RequestBounds, ConnectionBounds, UpstreamBounds, IdentityBounds, ProcessBounds)


def _group(section: Section, defaults: _G) -> _G:
    read = {}
    for bound in dataclasses.fields(defaults):
        default: int = getattr(defaults, bound.name)
        unit = bound.name.rpartition("_")[2]
        most = _MOST.get(bound.name) or _MOST.get(unit, _MOST_ELSE)
        read[bound.name] = section.integer(
            camel_case(bound.name), least=min(default, 1), most=most, default=default
        )
    return dataclasses.replace(defaults, **read)
