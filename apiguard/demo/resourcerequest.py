"""One request for a resource, past identity and permission: from verb to answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from aiohttp import hdrs, web

from apiguard.demo import options, problems, responses, streams, subresources
from apiguard.demo.encoding import Object
from apiguard.demo.negotiation import Representation, negotiate
from apiguard.demo.options import Match
from apiguard.demo.representations import encode_ahead, write_object, write_value
from apiguard.demo.resources import PODS, Resource
from apiguard.demo.reviews import review
from apiguard.demo.store import Item
from apiguard.demo.target import Target
from apiguard.demo.verbs import BODY_LIMIT, Answer, parse_body, select
from apiguard.demo.watchstream import Watch, WatchStream, reach
from apiguard.kube.identity import Identity

if TYPE_CHECKING:
    from apiguard.demo.handling import Handler


_SLICE = 0.005  # seconds of encoding before others have their turn


class ResourceRequest:
    """One request for a resource, past identity and permission."""

    def __init__(
        self,
        handler: Handler,
        request: web.BaseRequest,
        target: Target,
        resource: Resource,
        identity: Identity,
        factor: float,
    ) -> None:
        self._handler = handler
        self._services = handler.services
        self._verbs = handler.services.verbs
        self._request = request
        self._target = target
        self._resource = resource
        self._identity = identity
        self._factor = factor

    async def answer(self, headers: list[tuple[str, str]]) -> Answer | web.StreamResponse:
        target, resource = self._target, self._resource
        if target.subresource and target.subresource != "status":
            return await self._subresource(headers)
        if target.subresource == "status":
            allowed = any(sub.name == "status" for sub in resource.subresources)
            if not allowed:
                raise problems.page_not_found()
        elif target.verb not in resource.verbs or not _has_route(target, resource):
            raise problems.method_not_allowed()
        match target.verb:
            case "get":
                return await self._get()
            case "list":
                return await self._list()
            case "watch":
                return await self._watch(headers)
            case "create":
                return await self._create()
            case "update" | "patch":
                return await self._modify()
            case "delete":
                return await self._delete()
            case "deletecollection":
                return await self._delete_collection()
        raise problems.method_not_allowed()

    def _representation(self, *, listing: bool = False, watching: bool = False) -> Representation:
        return negotiate(
            self._request.headers.get(hdrs.ACCEPT, ""),
            self._resource,
            streams=listing,
            watching=watching,
            include=self._target.query.get("includeObject"),
        )

    async def _get(self) -> Answer:
        representation = self._representation()
        revision = self._target.query.get("resourceVersion")
        why = options.revision_problem(revision) if revision else ""
        if why:
            raise problems.ApiError(500, "", why)
        if revision and not await reach(self._verbs.store, int(revision)):
            raise problems.too_large_revision(int(revision), self._verbs.store.revision)
        answer = self._verbs.get(self._resource, self._target, representation, time.time())
        await self._handler.work(self._factor)
        return answer

    async def _list(self) -> Answer:
        representation = self._representation(listing=True)
        wanted = options.parse_list_options(self._resource, self._target.query)
        if wanted.match is not Match.RECENT and wanted.revision:
            await reach(self._verbs.store, wanted.revision)
        if representation.binary and wanted.selectors.empty:
            await self._encode_ahead(representation)
        answer = self._verbs.list(self._resource, self._target, wanted, representation, time.time())
        await self._charge_list(answer.listed)
        return answer

    async def _encode_ahead(self, representation: Representation) -> None:
        """Encodes what a list will hold in short slices: 10,000 pods would stop the loop for 4 s.

        Once encoded, an item stays so; the second time this is a walk of milliseconds.
        """
        loop = asyncio.get_running_loop()
        namespace = self._target.namespace if self._resource.namespaced else ""
        end = loop.time() + _SLICE
        for item in self._verbs.store.collections[self._resource].items():
            if not namespace or item.namespace == namespace:
                encode_ahead(item, representation)
            if loop.time() >= end:
                await asyncio.sleep(0)
                end = loop.time() + _SLICE

    async def _charge_list(self, size: int) -> None:
        pacer = self._services.pacer
        if pacer is not None:
            zipped = size > responses.GZIP_THRESHOLD and responses.wants_gzip(self._request)
            cost = pacer.cpu.list_cost(size, gzip=zipped)
            await pacer.work(cost * self._factor, size)

    async def _watch(self, headers: list[tuple[str, str]]) -> web.StreamResponse:
        target, resource = self._target, self._resource
        representation = self._representation(listing=True, watching=True)
        wanted = options.parse_watch_options(
            resource, target.query, target.watch_prefix, target.name
        )
        timeout = wanted.timeout or self._services.rng.uniform(1800, 3600)
        scope = target.namespace if resource.namespaced else ""
        watch = Watch(resource, scope, wanted, representation, float(timeout))
        response = await self._open_stream(headers, representation.stream_type)
        transport = self._request.transport
        if transport is None:
            return response
        if wanted.initial:
            # As of a list, only what is selected: the cache has indexes for what nodes ask for.
            items = self._verbs.store.collections[resource].items()
            found = select(items, scope, wanted.selectors)
            await self._charge_list(sum(len(item.body) for item in found))
        hub = self._services.hubs[resource]
        stream = WatchStream(
            watch,
            self._verbs.store,
            hub,
            self._request.writer,
            transport,
            time.time,
            self._services.bookmark_every,
        )
        await stream.run()
        await response.write_eof()
        return response

    async def _open_stream(self, headers: list[tuple[str, str]], media: str) -> web.StreamResponse:
        response = web.StreamResponse()
        response.headers.extend([*headers, ("Content-Type", media)])
        response.enable_chunked_encoding()
        await response.prepare(self._request)
        return response

    async def _body(self) -> bytes:
        try:
            return await self._request.read()
        except web.HTTPRequestEntityTooLarge:
            raise problems.too_large_body(BODY_LIMIT) from None

    async def _object(self) -> Any:
        media = self._request.headers.get(hdrs.CONTENT_TYPE, "")
        return parse_body(self._resource, media, await self._body())

    async def _create(self) -> Answer:
        body = await self._object()
        if not _is_stored(self._resource):
            return await self._review(body)
        representation = self._representation()
        await self._work_of_write()
        item, _ = self._verbs.create(self._resource, self._target, body, time.time())
        return self._written(item, representation, 201)

    async def _review(self, body: Any) -> Answer:
        services = self._services
        representation = self._representation()
        await self._handler.work(self._factor)
        found = review(
            self._resource,
            body if isinstance(body, dict) else {},
            self._identity,
            services.authenticator,
            services.authorizer,
            time.time(),
        )
        return self._answered(found, representation, 201)

    async def _modify(self) -> Answer:
        representation = self._representation()
        if self._target.verb == "patch":
            raw = await self._body()
            await self._work_of_write()
            media = self._request.headers.get(hdrs.CONTENT_TYPE, "")
            item = self._verbs.patch(self._resource, self._target, media, raw, time.time())
        else:
            body = await self._object()
            await self._work_of_write()
            item = self._verbs.update(self._resource, self._target, body)
        return self._written(item, representation, 200)

    def _written(self, item: Item, representation: Representation, code: int) -> Answer:
        body = write_object(item, representation, time.time())
        return Answer(code, body, representation.media)

    def _answered(self, value: Object, representation: Representation, code: int) -> Answer:
        """An answer that is no stored object, always in its plain form."""
        return Answer(code, write_value(value, representation), representation.media)

    async def _delete_options(self) -> Object:
        raw = await self._body()
        if not raw:
            return {}
        media = self._request.headers.get(hdrs.CONTENT_TYPE, "")
        found = parse_body(self._resource, media, raw)
        return found if isinstance(found, dict) else {}

    async def _delete(self) -> Answer:
        representation = self._representation()
        given = await self._delete_options()
        await self._work_of_write()
        return self._verbs.delete(self._resource, self._target, given, representation, time.time())

    async def _delete_collection(self) -> Answer:
        await self._delete_options()
        representation = self._representation(listing=True)
        wanted = options.parse_list_options(self._resource, self._target.query)
        await self._work_of_write()
        return self._verbs.delete_collection(
            self._resource, self._target, wanted, representation, time.time()
        )

    async def _work_of_write(self) -> None:
        pacer = self._services.pacer
        if pacer is not None:
            await pacer.work(pacer.cpu.spec.per_write * self._factor)

    # --- subresources -----------------------------------------------------------------------

    async def _subresource(self, headers: list[tuple[str, str]]) -> Answer | web.StreamResponse:
        target, resource = self._target, self._resource
        served = next((s for s in resource.subresources if s.name == target.subresource), None)
        if served is None:
            raise problems.page_not_found()
        if target.verb not in served.verbs:
            raise problems.method_not_allowed()
        item = self._verbs.find(resource, target)
        match target.subresource:
            case "exec" | "attach" | "portforward":
                return await streams.upgrade(self._request, target)
            case "log":
                return await self._log(item, headers)
            case "scale":
                return await self._scale(item)
            case "eviction":
                found = subresources.evict(
                    self._verbs, item, await self._object_of_any(), target, time.time()
                )
                return self._answered(found, self._representation(), 201)
            case "token":
                found = subresources.token_request(
                    item, await self._object_of_any(), self._services.issuer, time.time()
                )
                return self._answered(found, self._representation(), 201)
            case "finalize":
                body = await self._object()
                return self._written(
                    self._verbs.update(resource, target, body), self._representation(), 200
                )
        raise problems.page_not_found()

    async def _object_of_any(self) -> Any:
        media = self._request.headers.get(hdrs.CONTENT_TYPE, "")
        return parse_body(PODS, media, await self._body())

    async def _scale(self, item: Item) -> Answer:
        if self._target.verb == "get":
            return self._answered(subresources.scale_of(item), self._representation(), 200)
        if self._target.verb == "patch":
            media = self._request.headers.get(hdrs.CONTENT_TYPE, "")
            scale = subresources.patched_scale(item, media, await self._body())
        else:
            scale = await self._object_of_any()
        found = subresources.rescale(self._verbs, item, self._target, scale)
        return self._answered(found, self._representation(), 200)

    async def _log(self, item: Item, headers: list[tuple[str, str]]) -> Answer | web.StreamResponse:
        lines = subresources.log_lines(item, self._target)
        if not self._target.query.flag("follow"):
            return Answer(200, b"".join(lines), "text/plain")
        response = await self._open_stream(headers, "text/plain")
        for line in lines:
            await response.write(line)
        beat = 0
        while True:
            await asyncio.sleep(1.0)
            beat += 1
            await response.write(f"heartbeat {beat}\n".encode())


def _is_stored(resource: Resource) -> bool:
    return resource.verbs != ("create",)


def _has_route(target: Target, resource: Resource) -> bool:
    """Whether the path takes the verb: creating names no object, changing needs one.

    The list over all namespaces is read and watched, never written.
    """
    match target.verb:
        case "create":
            return not target.name and bool(target.namespace or not resource.namespaced)
        case "update" | "patch":
            return bool(target.name)
    return True
