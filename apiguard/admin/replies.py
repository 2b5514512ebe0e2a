"""Responses of the admin port: JSON, text, and Status for everything that is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from apiguard.kube.status import Status
from apiguard.policy.config import camel_case
from apiguard.runtime.actor import Actor

ACTOR: Final = web.RequestKey("actor", Actor)
"""Under this key a request carries who asks, once that is proven."""

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store, private",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "apiguard",
}
"""On every response: nothing here is to be cached, sniffed, framed or made to load anything, and
versions of libraries are nobody's business."""

_encode = msgspec.json.Encoder().encode


def reply(
    value: object, *, code: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """``value`` as JSON with a line feed, so that a terminal shows it well."""
    body = msgspec.json.format(_encode(value), indent=2) + b"\n"
    return web.Response(
        status=code,
        body=body,
        content_type="application/json",
        headers={**HEADERS, **(headers or {})},
    )


def as_json(value: object) -> object:
    """Dataclasses as objects with names in camelCase, whatever they hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            camel_case(field.name): as_json(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def plain(
    text: str,
    *,
    code: int = 200,
    content_type: str = "text/plain",
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    return web.Response(
        status=code,
        text=text,
        content_type=content_type,
        charset="utf-8",
        headers={**HEADERS, **(headers or {})},
    )


def refuse(status: Status, headers: Mapping[str, str] | None = None) -> web.Response:
    """The Status body with its code, ``Retry-After`` and ``WWW-Authenticate`` where they belong."""
    extra = dict(headers or {})
    if status.retry_after_seconds:
        extra["Retry-After"] = str(status.retry_after_seconds)
    if status.code == 401:
        extra["WWW-Authenticate"] = 'Bearer realm="apiguard"'
    return web.Response(
        status=status.code,
        body=status.to_json(),
        content_type="application/json",
        headers={**HEADERS, **extra},
    )


def actor_of(request: web.Request) -> Actor:
    """Who asks; only where access has been checked."""
    return request[ACTOR]
