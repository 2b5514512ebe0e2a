"""Relaying: carries out what the desk and its reflectors wish for, in one worker.

One task per feed follows its reflector: discover, list, watch, pause, as told. Proofs and digest
checks are tasks of their own, a few at a time. Whoever is to be sent something has a turn of the
loop for each step, in turns of at most ``TURN_SECONDS``; after every turn the touched connections
are flushed, as after every read from upstream.

Several workers hold caches of their own: N workers cost upstream N lists and N watches per form.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import msgspec

from apiguard.gateway.asking import collection_path
from apiguard.gateway.feeds import Feed
from apiguard.gateway.relaydesk import RelayDesk
from apiguard.identity import accessreview
from apiguard.identity.authorizer import Authorizer, Limits
from apiguard.identity.authorizer import Review as AccessReview
from apiguard.identity.reviews import Reviews
from apiguard.kube.framing import RawEvent, frame_splitter
from apiguard.kube.lists import ListEnvelope, list_splitter
from apiguard.kube.objects import NO_FIELDS, ObjectError, Peeked, peeker
from apiguard.kube.selectors import field_selector_text, label_selector_text
from apiguard.kube.status import Representation
from apiguard.policy.relayconfig import RelayConfig
from apiguard.relay.freshness import Proof, ProveNarrow
from apiguard.relay.gathering import Gathering
from apiguard.relay.packing import Pack
from apiguard.relay.reflector import (
    Failure,
    ListFrom,
    Pause,
    Reflector,
    Rest,
    WatchFrom,
    Wish,
)
from apiguard.runtime.defects import report_defect
from apiguard.runtime.relayclient import (
    METADATA,
    NO_ANSWER,
    RelayClient,
    UpstreamError,
    turn,
    warnings_of,
)
from apiguard.runtime.relaydiscovery import definition_of, discover

TURN_SECONDS: Final = 0.002
"""How long those who are ready are let go on before the loop comes round."""

TICK_SECONDS: Final = 0.1

EVENTS_PER_STEP: Final = 16
"""Events applied before the loop comes round: 5 ms with a thousand watchers."""

CONCURRENT_REVIEWS: Final = 16
CONCURRENT_PROOFS: Final = 16
UNREACHED: Final = (0, 502, 503)
"""Answers that say that no API server was reached: none at all, and a load balancer's. Any other
failure is one server's word on one resource, while reviews may well be answered."""

UNREACHED_SECONDS: Final = 1.0
"""How long that must last: a connection that breaks is no outage."""

CUT_SHORT_SECONDS: Final = 5.0
"""A watch that ends so much before its time was ended by a server that goes: who answers next may
have another storage behind it."""

STEP_BYTES: Final = 64 << 10

_log = logging.getLogger(__name__)


class Carrier(Protocol):
    """What the relay needs of the traffic it is part of."""

    def flush(self) -> None:
        """Send what was written."""


class Servers(Protocol):
    """Where a call may go."""

    def fit(self) -> list[str]:
        """URLs of servers that can be asked, best first."""


class Relaying:
    """The relay of one worker, and the Driver of its desk."""

    def __init__(
        self,
        config: RelayConfig,
        *,
        carrier: Carrier,
        servers: Servers,
        client: RelayClient,
        reviews: Callable[[], Reviews | None],
        workers: int,
        rng: random.Random,
    ) -> None:
        self._carrier = carrier
        self._servers = servers
        self._client = client
        self._rng = rng
        asked = config.authorization
        self.authorizer = Authorizer(
            asked.reviews_per_second / workers,
            rng=rng,
            limits=Limits(
                stale_allow_seconds=float(asked.stale_allow_seconds),
                waiters=max(Limits().waiters, config.waiting),
            ),
            wished=self._wished,
        )
        self.desk = RelayDesk(
            config,
            driver=self,
            authorizer=self.authorizer,
            reviews=reviews,
            clock=time.monotonic,
            wall=time.time,
            rng=rng,
        )
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: dict[Feed, asyncio.Task[None]] = {}
        self._watching: dict[Feed, asyncio.Task[Wish]] = {}
        self._cut_short: set[Feed] = set()
        self._reviewing = 0
        self._proofs = asyncio.Semaphore(CONCURRENT_PROOFS)
        # One thread: what it computes would otherwise compete with traffic for the second core.
        self._packer = ThreadPoolExecutor(1, "apiguard-gzip")
        self._turn_due = False
        self._review_due = False
        self._ticker = self._loop.call_later(TICK_SECONDS, self._tick)

    def use(self, tls: ssl.SSLContext, token: str) -> None:
        """Credentials of the guard changed: watches end, and are resumed with the new ones."""
        self._client.use(tls, token)

    async def close(self) -> None:
        """Lets go of everything."""
        self._ticker.cancel()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._packer.shutdown(wait=False)
        self._client.close()

    # -- turns -------------------------------------------------------------------------------

    def wake(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Flushes between steps: encrypting takes longer than deciding, and must count."""
        self._turn_due = False
        until, more = time.monotonic() + TURN_SECONDS, True
        while more and time.monotonic() < until:
            more = self._guarded(lambda: self.desk.work(until), True)
            self._carrier.flush()
        if more:
            self.wake()

    def _tick(self) -> None:
        self._guarded(lambda: self.desk.tick(time.monotonic()), None)
        self._carrier.flush()
        self._ticker = self._loop.call_later(TICK_SECONDS, self._tick)

    def _guarded(self, call: Callable[[], Any], otherwise: Any) -> Any:
        """A defect of ours costs what it happened to, never the turn or the tick itself."""
        try:
            return call()
        except Exception as defect:
            report_defect(defect)
            return otherwise

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A defect of ours is told when it happens, not when its task is collected."""
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(defect := task.exception(), Exception):
            report_defect(defect)

    # -- reviews -----------------------------------------------------------------------------

    def _wished(self) -> None:
        if not self._review_due:
            self._review_due = True
            self._loop.call_soon(self._begin_reviews)

    def _begin_reviews(self) -> None:
        self._review_due = False
        while self._reviewing < CONCURRENT_REVIEWS:
            review = self.authorizer.next_wish(time.monotonic())
            if review is None:
                return
            self._reviewing += 1
            self._task(self._review(review))

    async def _review(self, review: AccessReview) -> None:
        """Every review that was taken is reported, whatever happens to it."""
        status, body = NO_ANSWER
        try:
            for server in self._servers.fit()[:1]:
                status, body = await self._client.review(server, accessreview.PATH, review.body)
        finally:
            self._reviewing -= 1
            now = time.monotonic()
            self._guarded(lambda: self.authorizer.answered(review, status, body, now), None)
            self._carrier.flush()
            self._wished()

    # -- the driver of the desk --------------------------------------------------------------

    def reachable(self) -> bool:
        """As probes and the relay's own watches know it."""
        since = time.monotonic() - UNREACHED_SECONDS
        if any(feed.unreached and feed.lost_at <= since for feed in self.desk.feeds.values()):
            return False
        return bool(self._servers.fit())

    def start(self, feed: Feed) -> None:
        if feed not in self._following:
            self._following[feed] = self._task(self._follow(feed))

    def stop(self, feed: Feed) -> None:
        task = self._following.pop(feed, None)
        if task is not None:
            task.cancel()

    def prove(self, feed: Feed, proof: Proof) -> None:
        self._task(self._prove(feed, proof))

    def check(self, feed: Feed, revision: int) -> None:
        self._task(self._check(feed, revision))

    def pack(self, wish: Pack) -> None:
        self._task(self._pack(wish))

    async def _pack(self, wish: Pack) -> None:
        """Every wish that was taken is reported, or its readers would wait for ever."""
        block = None
        try:
            block = await self._loop.run_in_executor(self._packer, wish.compress)
        except Exception as defect:
            report_defect(defect)
        self.desk.packed(wish, block)
        self._carrier.flush()

    # -- following a reflector ---------------------------------------------------------------

    async def _follow(self, feed: Feed) -> None:
        reason = "failed"
        try:
            reason = await self._discover(feed) or await self._reflect(feed)
        except asyncio.CancelledError:
            raise
        except Exception as defect:
            report_defect(defect)
        now = time.monotonic()
        self._following.pop(feed, None)  # first: whoever is told may want it started again
        reflector = feed.reflector
        if reason == "failed" and reflector is not None:
            reflector.stop(reason, now)
        self.desk.rested(feed, reason, now)
        self._carrier.flush()

    async def _discover(self, feed: Feed) -> str:
        """Finds out what the resource is; why it cannot be relayed, "" if it can."""
        if feed.reflector is not None:
            if not await self._redefined(feed):
                return ""
            self.desk.redefined(feed, time.monotonic())
        for attempt in range(3):
            if attempt:
                await asyncio.sleep(0.2 * (1 + self._rng.random()))
            for server in self._servers.fit()[:1]:
                try:
                    found = await discover(self._client, server, feed.key)
                    definition = await definition_of(self._client, server, feed.key)
                except UpstreamError as error:
                    if error.failure.code in (403, 404):
                        return "gone" if error.failure.code == 404 else "forbidden"
                    continue
                except msgspec.DecodeError:
                    continue
                if found is None or not found.relayable:
                    return "unknown"
                self.desk.discovered(feed, found.namespaced, definition)
                return ""
        return "failed"

    async def _redefined(self, feed: Feed) -> bool:
        """Whether a custom resource is not what it was. Upstream ends its watches when a CRD
        changes, so this is asked before each."""
        for server in self._servers.fit()[:1]:
            try:
                found = await definition_of(self._client, server, feed.key)
            except UpstreamError:
                return False
            return found != feed.definition
        return False

    async def _reflect(self, feed: Feed) -> str:
        reflector = feed.reflector
        assert reflector is not None
        wish = reflector.start(time.monotonic())
        while True:
            match wish:
                case ListFrom():
                    wish = await self._list(feed, reflector, wish)
                case WatchFrom():
                    if await self._redefined(feed):
                        self.desk.redefined(feed, time.monotonic())
                        return "redefined"
                    wish = await self._watch(feed, reflector, wish)
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                    wish = reflector.resume(time.monotonic())
                case Rest(reason):
                    return reason
            self._advanced(feed)

    def _advanced(self, feed: Feed) -> None:
        self.desk.turn += 1
        self.desk.advanced(feed, time.monotonic())
        self._carrier.flush()

    def _server(self) -> str:
        servers = self._servers.fit()
        if not servers:
            raise UpstreamError(Failure())
        return self._rng.choice(servers)

    async def _list(self, feed: Feed, reflector: Reflector, wish: ListFrom) -> Wish:
        cache, key = feed.cache, feed.key
        assert cache is not None
        query = {}
        if wish.revision is not None:
            query = {
                "resourceVersion": str(wish.revision),
                "resourceVersionMatch": "NotOlderThan",
            }
        begun = time.monotonic()
        splitter = list_splitter(key.form.representation, cache.peek)
        gathered = cache.gather()
        path = collection_path(key.group, key.version, key.resource)
        try:
            async with self._client.read(self._server(), path, query, key.form) as pieces:
                feed.warnings = warnings_of(pieces)
                async for piece in pieces:
                    for at in range(0, len(piece), STEP_BYTES):
                        listed = splitter.receive_data(piece[at : at + STEP_BYTES])
                        gathered.add([cache.item(one) for one in listed])
                        await turn()
            last, envelope = splitter.receive_eof()
        except UpstreamError as error:
            return self._lost(feed, reflector, error.failure)
        except ObjectError as error:
            _log.warning("a list of %s cannot be read: %s", key.resource, error)
            return self._lost(feed, reflector, Failure())
        gathered.add([cache.item(one) for one in last])
        epoch = cache.epoch
        breaks = reflector.breaks
        answer = reflector.listed(envelope, gathered, time.monotonic())
        _note_breaks(feed, reflector, breaks)
        if cache.epoch != epoch:
            feed.forget()
        if wish.revision is None and cache.ready and cache.revision >= envelope.resource_version:
            feed.fresh_since = begun
        self._task(_let_go(gathered))
        feed.lost_at = 0.0
        feed.unreached = False
        return answer

    def _lost(self, feed: Feed, reflector: Reflector, failure: Failure) -> Wish:
        """Upstream did not do what it was asked."""
        now = time.monotonic()
        if not feed.lost_at and failure.code not in (404, 410):
            feed.lost_at = now
        feed.unreached = failure.code in UNREACHED
        if failure.code in (401, 403) and not feed.ready:
            return reflector.stop("forbidden", now)
        return reflector.failed(failure, now)

    def _heard(self, feed: Feed) -> None:
        """Upstream answers again, perhaps from another storage."""
        feed.unreached = False
        if feed.lost_at or feed in self._cut_short:
            feed.lost_at = 0.0
            self._cut_short.discard(feed)
            self._task(self._compare_revisions(feed))

    async def _watch(self, feed: Feed, reflector: Reflector, wish: WatchFrom) -> Wish:
        """As a task of its own, so that a digest that differs can end it."""
        watching = self._loop.create_task(self._receive(feed, reflector, wish))
        self._watching[feed] = watching
        try:
            return await watching
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                watching.cancel()
                raise
            return reflector.contradicted(time.monotonic())
        finally:
            del self._watching[feed]

    async def _receive(self, feed: Feed, reflector: Reflector, wish: WatchFrom) -> Wish:
        key = feed.key
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(wish.revision),
            "timeoutSeconds": str(wish.timeout),
        }
        begun, breaks = time.monotonic(), reflector.breaks
        splitter = frame_splitter(key.form.representation)
        path = collection_path(key.group, key.version, key.resource)
        try:
            async with self._client.read(
                self._server(), path, query, key.form, watch=True
            ) as pieces:
                feed.warnings = warnings_of(pieces)
                self._heard(feed)
                async for piece in pieces:
                    events = splitter.receive_data(piece)
                    for at in range(0, len(events), EVENTS_PER_STEP):
                        step = events[at : at + EVENTS_PER_STEP]
                        told = self._tell(reflector, step, alone=len(events) == 1)
                        if told is not None:
                            _note_breaks(feed, reflector, breaks)
                            return told
                        self._advanced(feed)
                        await turn()
        except UpstreamError as error:
            return self._lost(feed, reflector, error.failure)
        except ObjectError as error:
            _log.warning("a watch of %s cannot be read: %s", key.resource, error)
            return self._lost(feed, reflector, Failure())
        now = time.monotonic()
        if now - begun < wish.timeout - CUT_SHORT_SECONDS:
            self._cut_short.add(feed)
        return reflector.ended(now)

    def _tell(self, reflector: Reflector, step: list[RawEvent], *, alone: bool) -> Wish | None:
        """Applied and told; what several events send to one watcher is written together."""
        desk = self.desk
        desk.alone = alone
        try:
            return reflector.received(step, time.monotonic())
        finally:
            desk.alone = False

    # -- proofs ------------------------------------------------------------------------------

    async def _prove(self, feed: Feed, proof: Proof) -> None:
        query: dict[str, str] = {}
        namespace = ""
        if isinstance(proof, ProveNarrow):
            selection = proof.selection
            namespace = selection.namespace
            texts = {
                "labelSelector": label_selector_text(selection.labels),
                "fieldSelector": field_selector_text(selection.fields),
            }
            query = {name: text for name, text in texts.items() if text}
        found = None
        async with self._proofs:
            found = await self._metadata(feed, namespace, query)
        if found is None:
            self.desk.unproven(feed, proof)
        else:
            envelope, listed = found
            self.desk.proven(feed, proof, envelope.resource_version, listed)
        self._carrier.flush()

    async def _check(self, feed: Feed, revision: int) -> None:
        query = {"resourceVersion": str(revision), "resourceVersionMatch": "Exact"}
        async with self._proofs:
            found = await self._metadata(feed, "", query)
        if found is None:
            await self._compare_revisions(feed)
        elif not self.desk.checked(feed, revision, found[1]):
            self._contradict(feed)

    async def _compare_revisions(self, feed: Feed) -> None:
        """Whether upstream is where it was: a watch from a revision that upstream has not reached
        is silent, and would stay so for as long as that takes."""
        cache = feed.cache
        if cache is None or not cache.ready:
            return
        held = cache.revision
        async with self._proofs:
            found = await self._metadata(feed, "", {"limit": "1"})
        if found is not None and found[0].resource_version < held:
            self._contradict(feed)

    def _contradict(self, feed: Feed) -> None:
        _log.warning("the cache of %s differs from upstream: filled anew", feed.key.resource)
        if feed.reflector is not None:
            feed.reflector.doubt()
        watching = self._watching.get(feed)
        if watching is not None:
            watching.cancel()

    async def _metadata(
        self, feed: Feed, namespace: str, query: dict[str, str]
    ) -> tuple[ListEnvelope, list[Peeked]] | None:
        """Keys and revisions of a collection; None without an answer."""
        key = feed.key
        splitter = list_splitter(Representation.JSON, peeker(Representation.JSON, NO_FIELDS))
        path = collection_path(key.group, key.version, key.resource, namespace)
        listed: list[Peeked] = []
        try:
            async with self._client.read(self._server(), path, query, METADATA) as pieces:
                async for piece in pieces:
                    for at in range(0, len(piece), STEP_BYTES):
                        found = splitter.receive_data(piece[at : at + STEP_BYTES])
                        listed += [one.peeked for one in found]
                        await turn()
            last, envelope = splitter.receive_eof()
        except (UpstreamError, ObjectError) as error:
            _log.debug("no proof for %s: %s", key.resource, error)
            return None
        listed += [one.peeked for one in last]
        return envelope, listed


async def _let_go(gathered: Gathering) -> None:
    """Frees what the cache did not take over of a list: all together takes milliseconds."""
    while gathered.let_go():
        await turn()


def _note_breaks(feed: Feed, reflector: Reflector, before: int) -> None:
    """Something did not follow from what is held; that is to be seen before readers ask why."""
    if reflector.breaks > before:
        _log.warning("%s of upstream contradict what the relay holds", feed.key.resource)
