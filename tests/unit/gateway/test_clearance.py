"""Who is answered from a cache: a proof that suffices, and upstream's yes to his question."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import cast

import pytest

from apiguard.gateway.asking import read_accept, read_line
from apiguard.gateway.clearance import TOKEN_SECONDS, Clearance
from apiguard.gateway.decision import Forward, Serve
from apiguard.gateway.driver import Driver
from apiguard.gateway.lobby import Lobby, Place
from apiguard.gateway.serving import Serving
from apiguard.identity.attributes import Questions
from apiguard.identity.budget import Budget
from apiguard.identity.proof import Proof, Trust
from apiguard.identity.reviews import Reviews
from apiguard.kube.identity import Caller, Identity, Standing
from apiguard.kube.requestinfo import RequestInfo, parse_request
from apiguard.kube.status import Status
from apiguard.limiter.flow import Flow
from apiguard.upstream.endpoint import Lane
from apiguard.upstream.kind import Kind
from apiguard.wire.messages import RequestLine
from tests.unit.gateway.building import OPEN_POLICY, WALL, policy_of
from tests.unit.identity.asking import NO, World

TARGET = "/api/v1/namespaces/a/pods?resourceVersion=0"
ALICE = Identity("alice", ("devs", "system:authenticated"))
GOOD = b'{"status": {"authenticated": true, "user": {"username": "alice", "groups": ["devs"]}}}'
BAD = b'{"status": {}}'


class Block:
    """The headers a clearance looks at."""

    authorization = b"Bearer secret"

    def get(self, _: bytes) -> bytes:
        return b""


class Asker:
    """A serving whose fate is noted."""

    def __init__(self, proof: Proof, *, named: bool = True) -> None:
        self.info: RequestInfo = parse_request("GET", TARGET)
        standing = Standing.VERIFIED if named else Standing.UNVERIFIED
        caller = Caller(standing, ALICE if named else None, "a/1", "a", "192.0.2.1", "192.0.2.1")
        line = RequestLine("GET", TARGET, b"GET")
        flow = Flow("r", ())
        self.forward = Forward(self.info, caller, flow, Lane.ORDINARY, b"", b"", False, Kind.PLAIN)
        wanted, form = read_line(line, self.info), read_accept("", watch=False, custom=False)
        assert not isinstance(wanted, str)
        assert not isinstance(form, str)
        self.serve = Serve(self.forward, wanted, form, proof, policy_of(OPEN_POLICY))
        self.block = Block()
        self.fate = ""

    def pass_upstream(self) -> None:
        self.fate = "upstream"

    def refuse_with(self, status: Status, *, sniff: bool = False) -> None:
        self.fate = str(status.code)


@dataclass
class Wishes:
    """A driver that only knows whether upstream is there."""

    up: bool = True

    def reachable(self) -> bool:
        return self.up

    def wake(self) -> None:
        pass


@dataclass
class Desk:
    """A clearance and what it stands between."""

    trust: Trust = field(default_factory=Trust)
    up: bool = True
    reviewing: bool = True

    def __post_init__(self) -> None:
        self.world = World()
        self.wishes = Wishes(self.up)
        driver = cast(Driver, self.wishes)
        self.reviews = Reviews(secret=b"s", budget=Budget(100.0, self.world.now), remembered=10)
        self.lobby = Lobby(driver, random.Random(1), 10)
        self.clearance = Clearance(
            self.lobby,
            driver=driver,
            authorizer=self.world.authorizer,
            questions=Questions(trust=self.trust),
            reviews=lambda: self.reviews if self.reviewing else None,
            lately_seconds=900.0,
            clock=lambda: self.world.now,
            wall=lambda: WALL,
            admit=self._admit,
        )

    def _admit(self, serving: Serving, place: Place) -> None:
        assert place.question is not None
        assert place.caller.identity == ALICE
        cast(Asker, serving).fate = "cache"

    def ask(self, asker: Asker) -> str:
        """What becomes of it once every access review that was wished for is answered."""
        serving = cast(Serving, asker)
        self.clearance.identify(serving, self.lobby.enter(serving), self.world.now)
        self.world.drive()
        return asker.fate

    def later(self, asker: Asker, seconds: float) -> str:
        self.world.now += seconds
        serving = cast(Serving, asker)
        self.clearance.identify_again(serving, self.lobby.places[serving], self.world.now)
        self.world.drive()
        return asker.fate

    def review(self, body: bytes | None) -> None:
        """Upstream's word on the token, or none."""
        review = self.reviews.next_wish()
        assert review is not None
        if body is None:
            self.reviews.failed(review, self.world.now)
        else:
            self.reviews.answered(review, body, self.world.now)


@pytest.mark.parametrize(
    ("proof", "up", "local"), list(itertools.product(Proof, (False, True), (False, True)))
)
def test_only_a_proof_that_suffices_is_even_asked_about(
    proof: Proof, *, up: bool, local: bool
) -> None:
    """A signature alone: only while upstream is away, and only where an operator said so."""
    desk = Desk(Trust(local_tokens=local), up, reviewing=False)
    suffices = proof in (Proof.CERTIFICATE, Proof.CONFIRMED)
    suffices |= proof is Proof.LOCAL and local and not up
    assert desk.ask(Asker(proof)) == ("cache" if suffices else "upstream")
    assert desk.world.authorizer.counts.reviews == suffices


def test_a_no_is_upstreams_own_403_and_no_answer_goes_upstream() -> None:
    desk = Desk()
    desk.world.say = lambda question: NO
    assert desk.ask(Asker(Proof.CERTIFICATE)) == "403"
    desk = Desk()
    desk.world.say = lambda question: None
    assert desk.ask(Asker(Proof.CERTIFICATE)) == "upstream"


@pytest.mark.parametrize("proof", [Proof.LOCAL, Proof.NONE])
def test_a_token_waits_for_upstreams_word_and_no_longer(proof: Proof) -> None:
    for said, fate in ((GOOD, "cache"), (BAD, "upstream"), (None, "upstream")):
        desk, asker = Desk(), Asker(proof, named=proof is Proof.LOCAL)
        assert desk.ask(asker) == ""
        desk.review(said)
        assert desk.later(asker, 0.1) == fate
    desk, asker = Desk(), Asker(proof)
    assert desk.ask(asker) == ""
    assert desk.later(asker, TOKEN_SECONDS) == "upstream"
    assert desk.world.authorizer.counts.reviews == 0


def test_what_upstream_has_refused_is_no_local_proof_when_it_is_away() -> None:
    """Nor after its word is too old to be the last one asked for."""
    desk = Desk(Trust(local_tokens=True))
    asker = Asker(Proof.LOCAL)
    desk.ask(asker)
    desk.review(BAD)
    desk.wishes.up = False
    assert desk.later(asker, 0.1) == "upstream"
    desk.world.now += 60.0
    asker = Asker(Proof.LOCAL)
    assert desk.ask(asker) == ""
    desk.review(None)
    assert desk.later(asker, 0.1) == "upstream"


def test_a_local_proof_that_upstream_never_saw_suffices_while_it_is_away() -> None:
    desk, asker = Desk(Trust(local_tokens=True), up=False), Asker(Proof.LOCAL)
    assert desk.ask(asker) == ""
    desk.review(None)
    assert desk.later(asker, 0.1) == "cache"


def test_a_confirmed_token_outlives_upstream_as_long_as_configured() -> None:
    """Its last review got no answer: what upstream said before stands, for 15 minutes."""
    desk, asker = Desk(), Asker(Proof.NONE, named=False)
    desk.ask(asker)
    desk.review(GOOD)
    assert desk.later(asker, 0.1) == "cache"
    desk.wishes.up = False
    desk.world.say = lambda question: None
    desk.world.now += 600.0
    assert desk.ask(Asker(Proof.NONE, named=False)) == "cache"
    desk.world.now += 301.0
    late = Asker(Proof.NONE, named=False)
    desk.ask(late)
    desk.review(None)
    assert desk.later(late, 0.1) == "upstream"


def test_nobody_waits_for_a_token_where_too_many_wait() -> None:
    desk = Desk()
    askers = [Asker(Proof.NONE, named=False) for _ in range(11)]
    assert [desk.ask(asker) for asker in askers] == [""] * 10 + ["upstream"]
