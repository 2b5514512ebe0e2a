"""Gateway.decide: one request, one reading, one decision.

    line, block -> RequestInfo          what it means            (kube, memoised by line)
    block       -> Client               who asks, what goes on   (identity, kept on the block)
    both        -> Flow                 which rule               (policy, two bitmaps)
    Flow        -> Permit | Shed        may it                   (limiter)
                -> Forward | Refuse

Everything that depends on the line alone or on the header block alone is worked out once and kept
with it; what remains per request is a handful of plain calls. ``explain`` takes the same path and
charges nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apiguard.errors import WireError
from apiguard.gateway import replies
from apiguard.gateway.decision import Decision, Forward, Peer, Refuse
from apiguard.identity.authenticator import Authentication, Authenticator
from apiguard.kube.identity import Caller, user_agent_family
from apiguard.kube.requestinfo import RequestInfo, parse_request
from apiguard.kube.status import Representation, negotiate
from apiguard.limiter.flow import Flow, Mode
from apiguard.limiter.limiter import Limiter, Peek, Shed
from apiguard.memo import Memo
from apiguard.policy.config import Enforcement, GuardConfig
from apiguard.policy.policy import Policy
from apiguard.telemetry import bounds
from apiguard.telemetry.counters import Counters, RefusalSample
from apiguard.upstream.endpoint import Lane
from apiguard.wire.headers import upgrade_asked
from apiguard.wire.messages import CHUNKED, HeaderBlock, RequestLine

if TYPE_CHECKING:
    from collections.abc import Mapping

INFO_MEMO = 16_384
"""Request lines whose meaning is remembered, in each of two generations (about 1 KiB each)."""

LONGEST_REMEMBERED = 1024
"""Bytes of a target whose meaning is remembered: giants would take gigabytes, and the codec makes
a new RequestLine each time for those."""

LONGEST_USER_AGENT = 512
"""Characters of a user-agent that count; what comes after distinguishes nobody."""

BUILT_IN_GROUPS = frozenset(
    {
        "",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "internal.apiserver.k8s.io",
        "networking.k8s.io",
        "node.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "resource.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
        "storagemigration.k8s.io",
    }
)
"""Groups kube-apiserver serves itself, whose bodies it bounds itself; others may be aggregated."""

# Members off their Enum cost 40 ns a look on Python 3.11, globals 10.
_ENFORCE = Mode.ENFORCE
_ORDINARY, _EXEMPT, _LONG = Lane

_BOUND_OF_CODE: Mapping[int, str] = {
    413: bounds.BODY_BYTES,
    414: bounds.TARGET_BYTES,
}


class Client:
    """What a header block says, for one connection: who asks, and what goes on upstream.

    Valid for one ``authenticator``: with another the same credential may prove something else.
    """

    __slots__ = ("authenticator", "caller", "fields", "representation", "upgrade_fields")

    def __init__(
        self,
        caller: Caller,
        fields: bytes,
        upgrade_fields: bytes,
        representation: Representation,
        authenticator: Authenticator,
    ) -> None:
        self.authenticator = authenticator
        self.caller = caller
        self.fields = fields
        self.upgrade_fields = upgrade_fields
        self.representation = representation


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request would be treated as it would. ``peek`` is None for exempt flows."""

    info: RequestInfo
    caller: Caller
    flow: Flow
    peek: Peek | None
    enforced: bool

    @property
    def refused(self) -> bool:
        return self.enforced and self.peek is not None and isinstance(self.peek.verdict, Shed)


class Gateway:
    """Decides requests under one policy at a time; everything it needs is handed to it."""

    def __init__(
        self,
        *,
        policy: Policy,
        limiter: Limiter,
        authenticator: Authenticator,
        counters: Counters,
        random: random.Random,
        enforcement: Enforcement,
        config: GuardConfig,
    ) -> None:
        self.policy = policy
        self.limiter = limiter
        self.authenticator = authenticator
        self.counters = counters
        self.set_enforcement(enforcement)
        self.first_byte_seconds = float(config.bounds.upstream.first_byte_seconds)
        self._body_bytes = config.bounds.request.body_bytes
        self._random = random
        self._infos: Memo[RequestLine, RequestInfo] = Memo(INFO_MEMO)

    # -- changes at runtime ------------------------------------------------------------------

    def apply_policy(self, policy: Policy, now: float) -> None:
        """From here on new requests are judged by ``policy``; living buckets keep their levels."""
        self.limiter.respec(policy.limits(), now)
        self.policy = policy

    def set_enforcement(self, enforcement: Enforcement) -> None:
        self.enforcement = enforcement
        self._limits = enforcement is not Enforcement.OFF
        self._enforces = enforcement is Enforcement.ENFORCE

    def set_authenticator(self, authenticator: Authenticator) -> None:
        """Later requests are judged by ``authenticator``, on open connections too."""
        self.authenticator = authenticator

    # -- deciding ----------------------------------------------------------------------------

    def decide(self, line: RequestLine, block: HeaderBlock, peer: Peer, now: float) -> Decision:
        client = block.context
        if not isinstance(client, Client) or client.authenticator is not self.authenticator:
            client = self.client(block, peer)
        info = self._infos.get(line)
        if info is None:
            try:
                info = parse_request(line.method, line.target)
            except WireError as error:
                return self._reject(error)
            if len(line.target) <= LONGEST_REMEMBERED:
                self._infos.put(line, info)
        if peer.certified:
            return Refuse(replies.CERTIFICATE, "rejected", info.verb, close=True)
        if block.length > self._body_bytes and self.body_limit(info) >= 0:
            return self._too_large(info)
        return self._admit(info, client, block, line, now)

    def _admit(
        self, info: RequestInfo, client: Client, block: HeaderBlock, line: RequestLine, now: float
    ) -> Decision:
        caller = client.caller
        flow = self.policy.match(info, caller)
        over = False
        if self._limits and not flow.exempt:
            enforced = self._enforces and flow.mode is _ENFORCE
            verdict = self.limiter.acquire(flow, info, caller, now, shadow=not enforced)
            if isinstance(verdict, Shed):
                if enforced:
                    return self._shed(verdict, flow, info, client, line)
                over = True
        lane = _LONG if info.long_running else _EXEMPT if flow.exempt else _ORDINARY
        upgrade = block.upgrade and upgrade_asked(line.method, block)
        fields = client.upgrade_fields if upgrade else client.fields
        return Forward(info, caller, flow, lane, fields, upgrade, over)

    def _shed(
        self, shed: Shed, flow: Flow, info: RequestInfo, client: Client, line: RequestLine
    ) -> Refuse:
        retry_after = self._retry_after(shed.wait)
        counters = self.counters
        if counters.sample_budget > 0:
            counters.sample(_sample(shed, flow, info, client.caller, line, retry_after))
        rate = shed.limit.bucket.rate
        reply = replies.over_limit(flow, rate, retry_after, client.representation)
        return Refuse(reply, "refused", info.verb, flow)

    def _retry_after(self, wait: float) -> int:
        """Whole seconds around ``wait``, jittered so that those refused together part."""
        floor, ceiling = replies.RETRY_FLOOR_SECONDS, replies.RETRY_CEILING_SECONDS
        if wait >= ceiling:  # also at rate 0, where no token ever comes
            return self._random.randint(ceiling // 2, ceiling)
        jittered = max(float(floor), wait) * (1.0 + self._random.random())
        return min(ceiling, int(jittered + self._random.random()))

    def body_limit(self, info: RequestInfo) -> int:
        """Largest body in bytes; -1 where it is another server's business (rate-bound only)."""
        if info.is_resource and (
            info.subresource == "proxy"
            or info.verb == "proxy"
            or info.api_group not in BUILT_IN_GROUPS
        ):
            return -1
        return self._body_bytes

    def _too_large(self, info: RequestInfo) -> Refuse:
        error = WireError(
            413, "RequestEntityTooLarge", f"the request body exceeds {self._body_bytes} bytes"
        )
        self.count_malformed(error)
        reply = replies.malformed(error.code, error.reason, error.message)
        return Refuse(reply, "rejected", info.verb, close=True)

    def _reject(self, error: WireError) -> Refuse:
        reply = replies.malformed(error.code, error.reason, error.message)
        return Refuse(reply, "rejected", "", close=error.close)

    def count_malformed(self, error: WireError) -> None:
        """Counts the bound an input error stands for, if it stands for one."""
        if error.code == 431:
            fields = error.message.endswith("fields")
            self.counters.hit(bounds.HEADER_FIELDS if fields else bounds.HEADER_BYTES)
        elif error.code in _BOUND_OF_CODE:
            self.counters.hit(_BOUND_OF_CODE[error.code])

    # -- who asks ----------------------------------------------------------------------------

    def client(self, block: HeaderBlock, peer: Peer) -> Client:
        """What ``block`` says on a connection of ``peer``; worked out once and kept there."""
        context = block.context
        if isinstance(context, Client) and context.authenticator is self.authenticator:
            return context
        authenticator = self.authenticator
        # Only of a request to become a WebSocket does upstream read the subprotocols.
        protocols = block.websocket_protocols if block.upgrade.lower() == b"websocket" else b""
        proof = authenticator.authenticate(block.authorization, protocols)
        fields = block.forward + b"X-Forwarded-For: " + peer.source.encode("ascii") + b"\r\n"
        fields += _framing(block)
        client = Client(
            caller_of(proof, block.user_agent.decode("latin-1"), peer),
            fields,
            fields + b"Connection: Upgrade\r\nUpgrade: " + block.upgrade + b"\r\n",
            negotiate(block.get(b"accept").decode("latin-1")),
            authenticator,
        )
        block.context = client
        return client

    # -- explaining --------------------------------------------------------------------------

    def explain(self, method: str, target: str, caller: Caller, now: float) -> Explanation:
        """What would become of this request now. Raises WireError for one that is refused."""
        info = parse_request(method, target)
        flow = self.policy.match(info, caller)
        enforced = self._enforces and flow.mode is _ENFORCE
        peek = None if flow.exempt else self.limiter.peek(flow, info, caller, now)
        return Explanation(info, caller, flow, peek, enforced)


def caller_of(proof: Authentication, user_agent: str, peer: Peer) -> Caller:
    user_agent = user_agent[:LONGEST_USER_AGENT]
    return Caller(
        standing=proof.standing,
        identity=proof.identity,
        user_agent=user_agent,
        family=user_agent_family(user_agent),
        source=peer.source,
        source_key=peer.source_key,
    )


def _framing(block: HeaderBlock) -> bytes:
    if block.length == CHUNKED:
        return b"Transfer-Encoding: chunked\r\n"
    return b"Content-Length: %d\r\n" % block.length if block.declared else b""


def _sample(
    shed: Shed, flow: Flow, info: RequestInfo, caller: Caller, line: RequestLine, retry_after: int
) -> RefusalSample:
    return RefusalSample(
        rule=flow.name,
        limit=shed.limit.id,
        verb=info.verb,
        target=line.target,
        user=caller.identity.user if caller.identity is not None else "",
        user_agent=caller.user_agent,
        source=caller.source,
        retry_after=retry_after,
    )
