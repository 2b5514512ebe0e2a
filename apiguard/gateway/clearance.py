"""Clearance: who asks, and may he? Before it nobody learns anything from a cache.

::

    token upstream has not confirmed -> its review, at most TOKEN_SECONDS -> upstream
    proof that does not suffice      -> upstream
    proof that does                  -> SubjectAccessReview -> yes | 403 | upstream
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from apiguard.gateway.driver import Driver
from apiguard.gateway.lobby import Lobby, Place
from apiguard.gateway.serving import Serving
from apiguard.identity.accessreview import Allowed, Denied, Unknown, Verdict
from apiguard.identity.attributes import Questions
from apiguard.identity.authorizer import Authorizer
from apiguard.identity.cases import Waiting
from apiguard.identity.credentials import bearer_token
from apiguard.identity.forbidden import forbidden_status
from apiguard.identity.proof import Proof
from apiguard.identity.reviews import ASKED_SECONDS, Reviews
from apiguard.kube.identity import Caller, Identity
from apiguard.memo import Memo

TOKEN_SECONDS = 2.0
"""For upstream to confirm a token; then the request goes there itself."""


class Clearance:
    """``admit`` is called for whom a review allowed exactly what he asks.

    Whom upstream has confirmed stays confirmed for ``lately_seconds`` while it cannot be asked.
    """

    def __init__(
        self,
        lobby: Lobby,
        *,
        driver: Driver,
        authorizer: Authorizer,
        questions: Questions,
        reviews: Callable[[], Reviews | None],
        lately_seconds: float,
        clock: Callable[[], float],
        wall: Callable[[], float],
        admit: Callable[[Serving, Place], None],
    ) -> None:
        self._lobby = lobby
        self._driver = driver
        self._authorizer = authorizer
        self._questions = questions
        self._reviews = reviews
        self._lately_seconds = lately_seconds
        self._clock = clock
        self._wall = wall
        self._admit = admit
        self._confirmed: Memo[Caller, Caller] = Memo(1_024)

    def identify(self, serving: Serving, place: Place, now: float) -> None:
        caller, proof = serving.forward.caller, serving.serve.proof
        reviews = self._reviews()
        if reviews is not None and (proof is Proof.LOCAL or proof is Proof.NONE):
            token = bearer_token(serving.block.authorization)
            reviewed = reviews.lookup(token, now) if token else None
            identity = reviewed.identity if reviewed is not None else None
            if identity is None and token and not self._driver.reachable():
                identity = reviews.lately(token, now, self._wall(), self._lately_seconds)
            if identity is not None:
                caller, proof = self._confirm(caller, identity), Proof.CONFIRMED
            elif reviewed is not None and not reviewed.shed:
                if reviewed.until <= now + ASKED_SECONDS:  # under way
                    if serving not in self._lobby.waiting and self._lobby.full:
                        self._lobby.bypass(serving, "unproven")
                        return
                    self._lobby.wait(serving, place, now + TOKEN_SECONDS, "token")
                    return
                if reviewed.bad or self._driver.reachable():
                    proof = Proof.NONE
        place.caller = caller
        self._ask(serving, place, proof, now)

    def identify_again(self, serving: Serving, place: Place, now: float) -> None:
        """Its token is being reviewed: perhaps the answer has come."""
        deadline = place.deadline
        if now >= deadline:
            self._lobby.bypass(serving, "unproven")
            return
        self.identify(serving, place, now)
        if place.question is None and serving in self._lobby.waiting:
            place.deadline = deadline

    def _ask(self, serving: Serving, place: Place, proof: Proof, now: float) -> None:
        question = self._questions.of(
            place.caller, proof, serving.info, reachable=self._driver.reachable()
        )
        if isinstance(question, Unknown):
            self._lobby.bypass(serving, question.why)
            return
        place.question = question
        self._lobby.stop_waiting(serving, place)
        verdict = self._authorizer.ask(question, now, lambda told: self._judged(serving, told))
        if isinstance(verdict, Waiting):
            place.waiting = verdict
            self._lobby.waits["review"] += 1
        else:
            self._judged(serving, verdict)

    def _confirm(self, caller: Caller, identity: Identity) -> Caller:
        known = self._confirmed.get(caller)
        if known is None or known.identity is not identity:
            known = dataclasses.replace(caller, identity=identity)
            self._confirmed.put(caller, known)
        return known

    def _judged(self, serving: Serving, verdict: Verdict) -> None:
        place = self._lobby.places.get(serving)
        if place is None:
            return
        place.waiting = None
        if isinstance(verdict, Allowed):
            self._admit(serving, place)
        elif isinstance(verdict, Denied):
            question = place.question
            assert question is not None
            status = forbidden_status(question.user, serving.info, verdict.reason)
            self._lobby.refuse(serving, status, sniff=True)
        else:
            self._lobby.bypass(serving, verdict.why)
