"""The guard's own answers: Kubernetes Status bodies, serialised once.

A body is a Status in JSON, or in protobuf for clients whose Accept prefers it, with the headers
kube-apiserver sends beside its own.
"""

from __future__ import annotations

import functools
import http

from apiguard.errors import WireError
from apiguard.kube import status as kube_status
from apiguard.kube.status import Representation, Status
from apiguard.limiter.flow import Flow
from apiguard.wire.messages import Reply

RETRY_FLOOR_SECONDS = 1
RETRY_CEILING_SECONDS = 30

_CACHE = b"Cache-Control: no-cache, private\r\n"
_NOSNIFF = b"X-Content-Type-Options: nosniff\r\n"


def reply_to(
    status: Status,
    representation: Representation = Representation.JSON,
    *,
    retry_after: int = 0,
    lines: bytes = b"",
    sniff: bool = True,
) -> Reply:
    """``status`` as a complete answer; ``lines`` are further header lines. ``sniff`` forbids
    browsers to guess the type, as kube-apiserver does on some of its errors and not on others."""
    body = status.encoded(representation)
    retry_after = retry_after or status.retry_after_seconds
    common = _CACHE + _NOSNIFF if sniff else _CACHE
    if retry_after:
        lines += b"Retry-After: %d\r\n" % retry_after
    return Reply(
        status.code,
        http.HTTPStatus(status.code).phrase.encode("ascii"),
        b"%bContent-Type: %b\r\n%bContent-Length: %d\r\n"
        % (
            common,
            representation.value.encode("ascii"),
            lines,
            len(body),
        ),
        body,
    )


@functools.lru_cache(maxsize=1024)
def malformed(code: int, reason: str, message: str) -> Reply:
    """The answer to a request that cannot be accepted."""
    return reply_to(kube_status.from_wire_error(WireError(code, reason, message)))


@functools.lru_cache(maxsize=4096)
def over_limit(flow: Flow, rate: float, retry_after: int, representation: Representation) -> Reply:
    """429 of a rule. Cached: in a storm the same thirty answers per rule go out again and again."""
    allowance = "no requests" if rate == 0 else f"{rate:g} requests per second"
    status = kube_status.too_many_requests(
        f'rule "{flow.name}" of apiguard allows {allowance} here, please try again later',
        retry_after,
    )
    return reply_to(
        status, representation, lines=b"Apiguard-Rule: " + flow.name.encode("latin-1") + b"\r\n"
    )


@functools.lru_cache(maxsize=64)
def too_busy(message: str, retry_after: int, representation: Representation) -> Reply:
    """429 for a bound that is not a rule's: a few sentences, cached as ``over_limit`` is."""
    return reply_to(kube_status.too_many_requests(message, retry_after), representation)


@functools.lru_cache(maxsize=64)
def unauthorized(reason: str) -> Reply:
    """401 for a client certificate; ``reason`` is one of a few fixed sentences."""
    return reply_to(kube_status.unauthorized(f"Unauthorized: {reason}"))


UNAVAILABLE = reply_to(
    kube_status.service_unavailable("no API server behind apiguard can be reached", 1)
)

LOST_READ = reply_to(
    kube_status.service_unavailable("the API server closed the connection before it answered", 1)
)

OUTCOME_UNKNOWN = reply_to(kube_status.outcome_unknown())

SILENT = reply_to(kube_status.gateway_timeout("the API server did not answer in time"))
