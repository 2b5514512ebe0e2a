"""Holds answers of the admin port against what ``/openapi.json`` says of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis
from schemathesis.core.transport import Response

from apiguard.admin.openapi import document
from apiguard.admin.routes import ROUTES


def as_described(
    method: str, target: str, code: int, headers: Mapping[str, str], body: bytes
) -> None:
    """Raises ``schemathesis.openapi.checks.JsonSchemaError`` for a success that is described
    otherwise. Refusals are left alone: all are one shape, and there are thousands of them."""
    handler = _handler(method, urlsplit(target).path)
    if handler is None or code >= 400:
        return
    _operation(handler).validate_response(
        Response(
            status_code=code,
            headers={name.lower(): [value] for name, value in headers.items()},
            content=body,
            request=requests.Request(method, f"http://guard{target}").prepare(),
            elapsed=0.0,
            verify=False,
        )
    )


def _handler(method: str, path: str) -> str | None:
    for route in ROUTES:
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(route.path))
        if route.method == method and re.fullmatch(pattern, path):
            return route.handler
    return None


@functools.cache
def _operation(handler: str) -> Any:
    return schemathesis.openapi.from_dict(document()).find_operation_by_id(handler)
