"""What is decided about a request, as values."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from apiguard.gateway.asking import Form, Wanted
from apiguard.identity.certificate import ClientCertificate
from apiguard.identity.proof import Proof
from apiguard.kube.identity import Caller
from apiguard.kube.requestinfo import RequestInfo
from apiguard.limiter.flow import Flow
from apiguard.policy.policy import Policy
from apiguard.upstream.endpoint import Lane
from apiguard.upstream.kind import Kind
from apiguard.wire.messages import Reply


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a client connection.

    ``source`` is its address as upstream shall audit it, ``source_key`` what per-source buckets
    are keyed by; ``certificate`` what it presented in the TLS handshake, if anything.
    """

    source: str
    source_key: str
    certificate: ClientCertificate | None = None

    @classmethod
    def at(cls, address: str, *, certificate: ClientCertificate | None = None) -> Peer:
        """``address`` is a textual IP address, perhaps with an IPv6 zone."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if isinstance(ip, ipaddress.IPv6Address):
            # One subscriber usually holds a /64: 2**64 addresses are no fresh buckets.
            network = ipaddress.IPv6Network((int(ip) >> 64 << 64, 64))
            return cls(str(ip), str(network), certificate)
        return cls(str(ip), str(ip), certificate)


class Forward:
    """The request goes upstream.

    ``fields`` are all header lines upstream gets; ``upgrade`` is the protocol to switch to, b""
    for none; ``kind`` is the kind of connection it may go out on, and no other. ``over_limit``
    marks a request that a limit not enforced would have refused. Not a dataclass: one is built per
    request, and a frozen one costs three times as much to build (0.9 against 0.3 us).
    """

    __slots__ = ("caller", "fields", "flow", "info", "kind", "lane", "over_limit", "upgrade")

    def __init__(
        self,
        info: RequestInfo,
        caller: Caller,
        flow: Flow,
        lane: Lane,
        fields: bytes,
        upgrade: bytes,
        over_limit: bool,
        kind: Kind,
    ) -> None:
        self.info = info
        self.caller = caller
        self.flow = flow
        self.lane = lane
        self.fields = fields
        self.upgrade = upgrade
        self.over_limit = over_limit
        self.kind = kind


class Refuse:
    """The request is answered here. ``flow`` is the rule that refused it, None for bad requests.

    ``decision`` is one of ``telemetry.counters.DECISIONS``. ``info`` and ``caller`` are who asked
    for what, None where that could not be read; ``limit`` the id of the limit that was reached.
    """

    __slots__ = ("caller", "close", "decision", "flow", "info", "limit", "reply")

    def __init__(
        self,
        reply: Reply,
        decision: str,
        info: RequestInfo | None = None,
        caller: Caller | None = None,
        flow: Flow | None = None,
        limit: str = "",
        close: bool = False,
    ) -> None:
        self.reply = reply
        self.decision = decision
        self.info = info
        self.caller = caller
        self.flow = flow
        self.limit = limit
        self.close = close

    @property
    def verb(self) -> str:
        return self.info.verb if self.info is not None else ""


class Serve:
    """The relay may answer ``wanted`` in ``form``; ``forward`` is how the request goes upstream if
    it cannot. ``proof`` is what stands behind the caller; ``policy`` is the one the request was
    decided under, to be asked again when its token has told who it is."""

    __slots__ = ("form", "forward", "policy", "proof", "wanted")

    def __init__(
        self, forward: Forward, wanted: Wanted, form: Form, proof: Proof, policy: Policy
    ) -> None:
        self.forward = forward
        self.wanted = wanted
        self.form = form
        self.proof = proof
        self.policy = policy


Decision = Forward | Refuse | Serve
