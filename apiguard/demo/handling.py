"""One request through the server: fault, identity, permission, capacity, verb, answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

from aiohttp import hdrs, web

from apiguard.demo import (
    discovery,
    faults,
    problems,
    responses,
)
from apiguard.demo.authentication import Authenticator
from apiguard.demo.authorization import MASTERS, Authorizer
from apiguard.demo.control import Control
from apiguard.demo.duration import duration_problem
from apiguard.demo.encoding import NotJsonError, Object, decode, encode, pretty
from apiguard.demo.impersonation import impersonated
from apiguard.demo.negotiation import JSON, negotiate
from apiguard.demo.pacing import Pacer
from apiguard.demo.rbac import Attributes
from apiguard.demo.resourcerequest import ResourceRequest
from apiguard.demo.resources import Catalogue, Resource
from apiguard.demo.reviews import demanded
from apiguard.demo.serviceaccounts import TokenIssuer
from apiguard.demo.target import Target, parse_target
from apiguard.demo.verbs import Answer, Verbs
from apiguard.demo.watching import Hub
from apiguard.kube.identity import Identity

Parts = Sequence[str]


# Verb, resource (``pods`` or ``pods/status``) and representation, as in ``Representation.label``;
# "" where none could be negotiated.
Counted = tuple[str, str, str]


@dataclass(slots=True)
class Services:
    """What a handler works with; owned by ``EmbeddedApiServer``."""

    catalogue: Catalogue
    verbs: Verbs
    authenticator: Authenticator
    authorizer: Authorizer
    faults: faults.Faults
    hubs: dict[Resource, Hub]
    pacer: Pacer | None
    rng: random.Random
    address: str
    demo_faults: bool
    control: Control
    counts: Counter[Counted]
    bookmark_every: float
    issuer: TokenIssuer


class Handler:
    """Answers every request of one server."""

    def __init__(self, services: Services) -> None:
        self.services = services

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        target = parse_target(request.method, request.raw_path)
        headers = responses.base_headers(request)
        indent = responses.wants_pretty(request, target.query.get("pretty"))
        try:
            answer = await self._answer(request, target, headers)
            if isinstance(answer, web.StreamResponse):
                return answer
        except problems.ApiError as error:
            answer = responses.error_answer(error, request.headers.get(hdrs.ACCEPT, ""))
        except problems.PlainError as error:
            answer = responses.text_answer(error.code, error.text, retry_after=error.retry_after)
        except ConnectionResetError:
            _cut(request)
        try:
            return await responses.send(request, answer, headers, indent=indent)
        except ConnectionResetError:  # the client left in the middle: nothing to report
            _cut(request)

    async def _answer(
        self, request: web.BaseRequest, target: Target, headers: list[tuple[str, str]]
    ) -> Answer | web.StreamResponse:
        services = self.services
        if services.demo_faults and target.path == "/demo/faults":
            return await self._demo_faults(request)
        self._count(request, target)
        pacer = services.pacer
        if pacer is not None and pacer.down:
            raise ConnectionResetError("the modelled server is restarting")
        factor = await self._apply_fault(request, target)
        if not target.long_running:
            _check_timeout(target)
        pairs = _header_pairs(request)
        caller = services.authenticator.authenticate(pairs, _certificate(request), time.time())
        identity = impersonated(pairs, caller, services.authorizer.check)
        headers += responses.flow_headers(exempt=MASTERS in identity.groups)
        services.authorizer.check(_attributes(target, identity))
        if pacer is not None and not target.long_running and pacer.cpu.overloaded():
            raise problems.too_many_requests()
        if not target.is_resource:
            await self.work(factor)
            return self._non_resource(request, target)
        resource = services.catalogue.find(target.group, target.version, target.resource)
        if resource is None:
            raise problems.page_not_found()
        if request.method == "HEAD":
            raise problems.method_not_allowed()
        if resource.warning:
            headers.append(("Warning", f'299 - "{resource.warning}"'))
        return await ResourceRequest(self, request, target, resource, identity, factor).answer(
            headers
        )

    def _count(self, request: web.BaseRequest, target: Target) -> None:
        """Counts a request for a served resource, whatever becomes of it."""
        services = self.services
        resource = services.catalogue.find(target.group, target.version, target.resource)
        if resource is None:
            return
        name = f"{target.resource}/{target.subresource}" if target.subresource else target.resource
        try:
            label = negotiate(request.headers.get(hdrs.ACCEPT, ""), resource).label
        except problems.ApiError:
            label = ""
        services.counts[target.verb, name, label] += 1

    async def _apply_fault(self, request: web.BaseRequest, target: Target) -> float:
        fault = self.services.faults.hit(target, request.headers.get(hdrs.USER_AGENT, ""))
        if fault is None:
            return 1.0
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.reset:
            raise ConnectionResetError("fault")
        if fault.hang:
            await asyncio.Event().wait()  # ends when the connection does
        if fault.code:
            raise problems.ApiError(
                fault.code, "InternalError", "a fault was asked for", retry_after=fault.retry_after
            )
        return fault.factor

    async def work(self, factor: float, seconds: float | None = None, size: int = 0) -> None:
        pacer = self.services.pacer
        if pacer is not None:
            cost = pacer.cpu.spec.per_request if seconds is None else seconds
            await pacer.work(cost * factor, size)

    async def _demo_faults(self, request: web.BaseRequest) -> Answer:
        """GET, POST or DELETE of the faults in force; from loopback only."""
        peer = request.remote or ""
        if peer not in ("127.0.0.1", "::1"):
            raise problems.page_not_found()
        found, actions = self.services.faults, self.services.control.actions
        if request.method == "DELETE":
            found.clear()
        elif request.method == "POST":
            try:
                wanted = faults.read_faults(decode(await request.read()), actions)
            except (NotJsonError, ValueError) as error:
                raise problems.bad_request(str(error)) from None
            found.active.extend(wanted.faults)
            found.failing_checks |= wanted.failing_checks
            for name in wanted.actions:
                actions[name]()
        shown = {
            "faults": [
                {name: getattr(f, name) for name in faults.Fault.__slots__} for f in found.active
            ],
            "failingChecks": sorted(found.failing_checks),
            "requests": [
                {"verb": verb, "resource": name, "representation": label, "count": number}
                for (verb, name, label), number in sorted(self.services.counts.items())
            ],
        }
        return Answer(200, pretty(shown) + b"\n")

    def _non_resource(self, request: web.BaseRequest, target: Target) -> Answer:
        parts = [part for part in target.path.split("/") if part]
        if request.method not in ("GET", "HEAD"):
            raise problems.page_not_found()
        if not parts:
            paths = ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]
            return Answer(200, encode({"paths": paths}) + b"\n")
        if parts[0] in ("livez", "readyz", "healthz"):
            return self._health(target, parts)
        if parts == ["version"]:
            return Answer(200, pretty(discovery.VERSION))
        if parts == ["openid", "v1", "jwks"]:
            media = "application/jwk-set+json"
            return _published(self.services.issuer.key_set(), media)
        if parts == [".well-known", "openid-configuration"]:
            return _published(self.services.issuer.configuration(self.services.address), JSON)
        if parts[0] == "openapi":
            return self._openapi(parts)
        accept = request.headers.get(hdrs.ACCEPT, "")
        document, media = self._discovery(parts, accept)
        if document is None:
            raise problems.page_not_found()
        return Answer(200, encode(document) + b"\n", media)

    def _health(self, target: Target, parts: Parts) -> Answer:
        found = discovery.health(
            parts[0],
            "/".join(parts[1:]),
            target.query.all("exclude"),
            self.services.faults.failing_checks,
            verbose="verbose" in target.query,
        )
        if found is None:
            raise problems.page_not_found()
        return responses.text_answer(*found)

    def _openapi(self, parts: Parts) -> Answer:
        catalogue = self.services.catalogue
        if parts[1:] == ["v3"]:
            return Answer(200, encode(discovery.openapi_index(catalogue)) + b"\n")
        if len(parts) > 2 and parts[1] == "v3":
            document = discovery.openapi_document(catalogue, "/".join(parts[2:]))
            if document is not None:
                return Answer(200, encode(document) + b"\n")
        raise problems.page_not_found()

    def _discovery(self, parts: Parts, accept: str) -> tuple[Object | None, str]:
        catalogue = self.services.catalogue
        media = discovery.aggregated_type(accept) if len(parts) == 1 else ""
        match parts:
            case ["api"] if media:
                return discovery.aggregated(catalogue, media, core=True), media
            case ["apis"] if media:
                return discovery.aggregated(catalogue, media, core=False), media
            case ["api"]:
                return discovery.api_versions(self.services.address), JSON
            case ["apis"]:
                return discovery.group_list(catalogue), JSON
            case ["apis", group]:
                return discovery.group(catalogue, group), JSON
            case ["api", version]:
                return discovery.resource_list(catalogue, "", version), JSON
            case ["apis", group, version]:
                return discovery.resource_list(catalogue, group, version), JSON
        return None, JSON


def _published(document: Object, media: str) -> Answer:
    return Answer(200, encode(document), media, [("Cache-Control", "public, max-age=3600")])


def _check_timeout(target: Target) -> None:
    """The deadline a client asks for; refused before anybody asks who it is."""
    why = duration_problem(target.query.get("timeout") or "0")
    if why:
        raise problems.bad_request(f"invalid timeout specified in the request URL - {why}")


def _header_pairs(request: web.BaseRequest) -> list[tuple[str, str]]:
    """Values as Go's JSON shows them: bytes read as UTF-8, what is none replaced."""
    return [(k.decode("latin-1"), v.decode(errors="replace")) for k, v in request.raw_headers]


def _certificate(request: web.BaseRequest) -> bytes | None:
    transport = request.transport
    ssl_object = transport.get_extra_info("ssl_object") if transport is not None else None
    found: bytes | None = ssl_object.getpeercert(True) if ssl_object is not None else None
    return found


def _attributes(target: Target, identity: Identity) -> Attributes:
    if not target.is_resource:
        return Attributes(identity, target.verb, path=target.path)
    return Attributes(
        identity,
        target.verb,
        target.group,
        target.resource,
        target.subresource,
        target.namespace,
        target.name,
        fields=_required_fields(target),
    )


def _required_fields(target: Target) -> tuple[tuple[str, str], ...]:
    selector = target.query.get("fieldSelector")
    if target.verb not in ("list", "watch", "deletecollection") or not selector:
        return ()
    return demanded(selector)


def _cut(request: web.BaseRequest) -> NoReturn:
    """Ends the connection without an answer, and the task with it: aiohttp would send whatever is
    returned."""
    if request.transport is not None:
        # uvloop's are of no class of asyncio's.
        cast(asyncio.WriteTransport, request.transport).abort()
    raise asyncio.CancelledError("the connection is cut")
