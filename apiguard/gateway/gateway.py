"""Gateway.decide: one request, one reading, one decision.

    line, block -> RequestInfo          what it means            (kube, memoised by line)
    block, peer -> Client               who asks, what goes on   (identity, kept on the block)
    both        -> Flow                 which rule               (policy, two bitmaps)
    Flow        -> Permit | Shed        may it                   (limiter)
                -> Forward | Refuse

Everything that depends on the line alone or on the header block alone is worked out once and kept
with it, an identity only until it must be proven again; what remains per request is a handful of
plain calls. ``explain`` takes the same path and
charges nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apiguard.errors import WireError
from apiguard.gateway import replies
from apiguard.gateway.decision import Decision, Forward, Peer, Refuse
from apiguard.gateway.eligible import explain_relay
from apiguard.gateway.observers import Observers
from apiguard.gateway.pressure import may_be_refused
from apiguard.gateway.relaydesk import RelayDesk
from apiguard.identity.authenticator import Authentication, Authenticator
from apiguard.identity.proof import Proof
from apiguard.kube.groups import BUILT_IN_GROUPS
from apiguard.kube.identity import Caller, user_agent_family, user_agent_text
from apiguard.kube.requestinfo import RequestInfo, parse_request
from apiguard.kube.status import Representation, negotiate
from apiguard.limiter.flow import Flow, Mode
from apiguard.limiter.limiter import ADMITTED, Limiter, Peek, Permit, Shed
from apiguard.memo import Memo
from apiguard.policy.config import Enforcement, GuardConfig
from apiguard.policy.judging import Judge
from apiguard.policy.policy import Policy
from apiguard.telemetry import bounds
from apiguard.telemetry.counters import Counters, RefusalSample
from apiguard.upstream.endpoint import Lane
from apiguard.upstream.kind import Kind
from apiguard.wire.frontproxy import CannotCarryError, FrontProxyNames, front_proxy_lines
from apiguard.wire.headers import impersonated_user, upgrade_asked, without_credentials
from apiguard.wire.messages import CHUNKED, HeaderBlock, RequestLine

if TYPE_CHECKING:
    from collections.abc import Mapping

INFO_MEMO = 16_384
"""Request lines whose meaning is remembered, in each of two generations (about 1 KiB each)."""

LONGEST_REMEMBERED = 1024
"""Bytes of a target whose meaning is remembered: giants would take gigabytes, and the codec makes
a new RequestLine each time for those."""

SHORT_OF_MEMORY_SECONDS = 5.0
"""About how long lists and watches are to stay away when memory is short."""

LONGEST_USER_AGENT = 512
"""Characters of a user-agent that count; what comes after distinguishes nobody."""

# Members off their Enum cost 40 ns a look on Python 3.11, globals 10.
_ENFORCE = Mode.ENFORCE
_SHADOW = Mode.SHADOW
_ORDINARY, _EXEMPT, _LONG, _COLLECTION = Lane
_PLAIN, _FRONT_PROXY = Kind

_BOUND_OF_CODE: Mapping[int, str] = {
    413: bounds.BODY_BYTES,
    414: bounds.TARGET_BYTES,
}


class Client:
    """What a header block says, for one connection: who asks, and what goes on upstream.

    Valid for one ``authenticator``, since with another the same credential may prove something
    else, and until ``until`` (monotonic seconds). ``refused`` is why its requests are answered
    401, "" when they are not.
    """

    __slots__ = (
        "authenticator",
        "caller",
        "fields",
        "kind",
        "proof",
        "refused",
        "representation",
        "until",
        "upgrade_fields",
    )

    def __init__(
        self,
        caller: Caller,
        fields: bytes,
        upgrade: bytes,
        representation: Representation,
        kind: Kind,
        refused: str,
        proof: Proof,
    ) -> None:
        self.caller = caller
        self.proof = proof
        self.fields = fields
        self.upgrade_fields = fields + b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n"
        self.representation = representation
        self.kind = kind
        self.refused = refused
        self.authenticator: Authenticator | None = None
        self.until = 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request would be treated as it would.

    ``peek`` is None for exempt flows; ``enforced`` whether what it finds over the limit is refused
    here: by the flow's mode, on this very key of a rule in rollout, under the guard's enforcement.
    ``relay`` is what the relay would do: none, bypass, consistent or relaxed.
    """

    info: RequestInfo
    caller: Caller
    flow: Flow
    peek: Peek | None
    enforced: bool
    relay: str

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
        wall: Callable[[], float],
        front_proxy: FrontProxyNames | None = None,
        observers: Observers | None = None,
    ) -> None:
        """``wall`` tells Unix seconds, asked only where a credential is judged. ``front_proxy``
        is absent when upstream knows no front proxy: callers with certificates are then refused.
        ``observers`` see every request that ends; None for none.
        """
        self.policy = policy
        self.limiter = limiter
        self.authenticator = authenticator
        self.counters = counters
        self.observers = observers
        self.relay: RelayDesk | None = None
        self._judge = Judge(limiter, enforcement)
        self.set_enforcement(enforcement)
        self.first_byte_seconds = float(config.bounds.upstream.first_byte_seconds)
        self._body_bytes = config.bounds.request.body_bytes
        self._relay_config = config.relay
        self._random = random
        self._wall = wall
        self._front_proxy = front_proxy
        self._infos: Memo[RequestLine, RequestInfo] = Memo(INFO_MEMO)
        self.refuse_reads = False
        """For want of memory, whatever is enforced; see ``pressure``. One look costs 20 ns."""

    # -- changes at runtime ------------------------------------------------------------------

    def apply_policy(self, policy: Policy, now: float) -> None:
        """From here on new requests are judged by ``policy``; living buckets keep their levels."""
        self.limiter.respec(policy.limits(), now)
        self._judge.forget()
        self.policy = policy

    def set_enforcement(self, enforcement: Enforcement) -> None:
        self.enforcement = self._judge.enforcement = enforcement
        self._limits = enforcement is not Enforcement.OFF
        self._enforces = enforcement is Enforcement.ENFORCE

    def give_back(self) -> None:
        """Drops what is remembered only to be quicker."""
        self._infos.clear()
        self._judge.forget()
        if self.relay is not None:
            self.relay.bodies.give_back()

    def set_relay(self, relay: RelayDesk) -> None:
        """From here on lists and watches may be answered by ``relay``."""
        self.relay = relay

    def set_authenticator(self, authenticator: Authenticator) -> None:
        """Later requests are judged by ``authenticator``, on open connections too."""
        self.authenticator = authenticator

    # -- deciding ----------------------------------------------------------------------------

    def decide(self, line: RequestLine, block: HeaderBlock, peer: Peer, now: float) -> Decision:
        client = block.context
        if (
            not isinstance(client, Client)
            or client.authenticator is not self.authenticator
            or now >= client.until
        ):
            client = self.client(block, peer, now)
        info = self._infos.get(line)
        if info is None:
            try:
                info = parse_request(line.method, line.target)
            except WireError as error:
                return self._reject(error)
            if len(line.target) <= LONGEST_REMEMBERED:
                self._infos.put(line, info)
        if client.refused:
            reply = replies.unauthorized(client.refused)
            return Refuse(reply, "rejected", info, client.caller, close=True)
        if block.length > self._body_bytes and self.body_limit(info) >= 0:
            return self._too_large(info, client.caller)
        return self._admit(info, client, block, line, now)

    def _admit(
        self, info: RequestInfo, client: Client, block: HeaderBlock, line: RequestLine, now: float
    ) -> Decision:
        caller = client.caller
        flow = self.policy.match(info, caller)
        over = False
        verdict: Permit | Shed
        if self.refuse_reads and may_be_refused(info, flow):
            return self._crowded(info, client)
        if self._limits and not flow.exempt:
            mode = flow.mode
            if mode is _ENFORCE and self._enforces:
                verdict = self.limiter.acquire(flow, info, caller, now)
            elif mode is _ENFORCE or (mode is _SHADOW and not flow.parts):
                verdict, over = ADMITTED, self.limiter.would_refuse(flow, info, caller, now)
            else:
                verdict, over = self._judge.judge(flow, info, caller, now)
            if isinstance(verdict, Shed):
                return self._shed(verdict, flow, info, client, line)
        if info.collection and not flow.exempt:
            lane = _COLLECTION
        elif info.long_running:
            lane = _LONG
        else:
            lane = _EXEMPT if flow.exempt else _ORDINARY
        upgrade = block.upgrade and upgrade_asked(line.method, block)
        fields = client.upgrade_fields if upgrade else client.fields
        forward = Forward(info, caller, flow, lane, fields, upgrade, over, client.kind)
        if self.relay is None:
            return forward
        return self.relay.consider(forward, line, block, client.proof, self.policy)

    def _shed(
        self, shed: Shed, flow: Flow, info: RequestInfo, client: Client, line: RequestLine
    ) -> Refuse:
        retry_after = self._retry_after(shed.wait)
        counters = self.counters
        if counters.sample_budget > 0:
            counters.sample(_sample(shed, flow, info, client.caller, line, retry_after))
        rate = shed.limit.bucket.rate
        reply = replies.over_limit(flow, rate, retry_after, client.representation)
        return Refuse(reply, "refused", info, client.caller, flow, shed.limit.id)

    def _crowded(self, info: RequestInfo, client: Client) -> Refuse:
        self.counters.hit(bounds.MEMORY_READS)
        reply = replies.too_busy(
            "apiguard is short of memory, please try again later",
            self._retry_after(SHORT_OF_MEMORY_SECONDS),
            client.representation,
        )
        return Refuse(reply, "failed", info, client.caller)

    def _retry_after(self, wait: float) -> int:
        """Whole seconds around ``wait``, jittered so that those refused together part."""
        floor, ceiling = replies.RETRY_FLOOR_SECONDS, replies.RETRY_CEILING_SECONDS
        if wait >= ceiling:  # also at rate 0, where no token ever comes
            return self._random.randint(ceiling // 2, ceiling)
        jittered = max(float(floor), wait) * (1.0 + self._random.random())
        return min(ceiling, int(jittered + self._random.random()))

    def spread(self, seconds: float) -> float:
        """From once to one and a half times ``seconds``, so that those who wait together part."""
        return seconds * (1.0 + 0.5 * self._random.random())

    def body_limit(self, info: RequestInfo) -> int:
        """Largest body in bytes; -1 where it is another server's business (rate-bound only)."""
        if info.is_resource and (
            info.subresource == "proxy"
            or info.verb == "proxy"
            or info.api_group not in BUILT_IN_GROUPS
        ):
            return -1
        return self._body_bytes

    def _too_large(self, info: RequestInfo, caller: Caller) -> Refuse:
        error = WireError(
            413, "RequestEntityTooLarge", f"the request body exceeds {self._body_bytes} bytes"
        )
        self.count_malformed(error)
        reply = replies.malformed(error.code, error.reason, error.message)
        return Refuse(reply, "rejected", info, caller, close=True)

    def _reject(self, error: WireError) -> Refuse:
        reply = replies.malformed(error.code, error.reason, error.message)
        return Refuse(reply, "rejected", close=error.close)

    def count_malformed(self, error: WireError) -> None:
        """Counts the bound an input error stands for, if it stands for one."""
        if error.code == 431:
            fields = error.message.endswith("fields")
            self.counters.hit(bounds.HEADER_FIELDS if fields else bounds.HEADER_BYTES)
        elif error.code in _BOUND_OF_CODE:
            self.counters.hit(_BOUND_OF_CODE[error.code])

    # -- who asks ----------------------------------------------------------------------------

    def client(self, block: HeaderBlock, peer: Peer, now: float) -> Client:
        """What ``block`` says on a connection of ``peer``; worked out once and kept there.

        When the proof has merely been renewed the same Client goes on, so that what policy and
        limiter remember of its Caller stays.
        """
        context = block.context
        known = context if isinstance(context, Client) else None
        if known is not None and known.authenticator is self.authenticator and now < known.until:
            return known
        authenticator = self.authenticator
        proof = self._authenticate(block, peer, now)
        if known is not None and _still(known, proof):
            client = known
        else:
            client = block.context = self._new_client(block, peer, proof)
        client.authenticator = authenticator
        client.until = proof.until
        return client

    def _authenticate(self, block: HeaderBlock, peer: Peer, now: float) -> Authentication:
        wall = self._wall()
        if peer.certificate is not None:
            return self.authenticator.authenticate_certificate(peer.certificate, now, wall)
        # Only of a request to become a WebSocket does upstream read the subprotocols.
        protocols = block.websocket_protocols if block.upgrade.lower() == b"websocket" else b""
        proof = self.authenticator.authenticate(block.authorization, protocols, now, wall)
        if proof.bound:
            self.counters.hit(proof.bound)
        return proof

    def _new_client(self, block: HeaderBlock, peer: Peer, proof: Authentication) -> Client:
        kind, refused, fields = _PLAIN, proof.refused, b""
        if peer.certificate is None:
            fields = block.forward
        elif not refused:
            kind = _FRONT_PROXY
            fields, refused = self._spoken_for(block, proof)
        fields += b"X-Forwarded-For: " + peer.source.encode("ascii") + b"\r\n" + _framing(block)
        return Client(
            caller_of(
                proof,
                user_agent_text(block.user_agent),
                peer,
                impersonated=impersonated_user(block),
            ),
            fields,
            block.upgrade,
            negotiate(block.get(b"accept").decode("latin-1")),
            kind,
            refused,
            proof.proof,
        )

    def _spoken_for(self, block: HeaderBlock, proof: Authentication) -> tuple[bytes, str]:
        """The fields of a request the guard speaks for, or why it cannot.

        The caller's own token stays here: the certificate is the credential in use.
        """
        identity = proof.identity
        if self._front_proxy is None or identity is None:
            return b"", "apiguard is not set up as a front proxy, use a bearer token"
        try:
            lines = front_proxy_lines(
                self._front_proxy, identity.user, identity.groups, identity.uid, identity.extra
            )
        except CannotCarryError as error:
            return b"", f"the identity cannot be passed on: {error}"
        return without_credentials(block) + lines, ""

    # -- explaining --------------------------------------------------------------------------

    def explain(self, method: str, target: str, caller: Caller, now: float) -> Explanation:
        """What would become of this request now. Raises WireError for one that is refused."""
        info = parse_request(method, target)
        flow = self.policy.match(info, caller)
        relay = explain_relay(self._relay_config, self.policy, info, caller)
        if flow.exempt:
            return Explanation(info, caller, flow, None, False, relay)
        peek, enforced = self._judge.peek(flow, info, caller, now)
        return Explanation(info, caller, flow, peek, enforced, relay)


def caller_of(
    proof: Authentication, user_agent: str, peer: Peer, *, impersonated: str | None = None
) -> Caller:
    user_agent = user_agent[:LONGEST_USER_AGENT]
    return Caller(
        standing=proof.standing,
        identity=proof.identity,
        user_agent=user_agent,
        family=user_agent_family(user_agent),
        source=peer.source,
        source_key=peer.source_key,
        claimed=proof.claimed,
        impersonated=impersonated,
    )


def _still(client: Client, proof: Authentication) -> bool:
    """Whether ``proof`` says of ``client`` what an earlier one did."""
    caller = client.caller
    return (
        proof.identity is caller.identity
        and proof.standing is caller.standing
        and proof.refused == client.refused
        and proof.proof is client.proof
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
