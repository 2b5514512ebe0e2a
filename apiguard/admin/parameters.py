"""Query parameters and JSON bodies: read strictly, refused with what is accepted.

An empty parameter counts as absent.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, TypeVar

import msgspec
from aiohttp import web

MAX_REASON: Final = 1_024
LONGEST_SECONDS: Final = 366 * 86_400.0

_PART: Final = re.compile(r"(\d{1,9})(ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}

B = TypeVar("B")


class ParameterError(ValueError):
    """What was asked makes no sense; the message is fit for whoever asked."""


def integer(request: web.Request, name: str, default: int, *, least: int, most: int) -> int:
    """Raises ParameterError."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19 and least <= int(text) <= most):
        raise ParameterError(f"{name} must be a number from {least} to {most}")
    return int(text)


def seconds(request: web.Request, name: str, default: float) -> float:
    """A duration such as ``90s``, ``10m`` or ``1h30m``. Raises ParameterError."""
    text = request.query.get(name, "")
    if not text:
        return default
    parts = _PART.findall(text[:64])
    total = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or total > LONGEST_SECONDS:
        raise ParameterError(f"{name} must be a duration such as 90s, 10m or 1h30m, at most 366d")
    return total


def choice(request: web.Request, name: str, of: Collection[str], default: str) -> str:
    """Raises ParameterError."""
    text = request.query.get(name, "") or default
    if text not in of:
        raise ParameterError(f"{name} must be one of {', '.join(of)}")
    return text


def dry_run(request: web.Request) -> bool:
    """Raises ParameterError for anything but ``dryRun=All``: a change must never be made by whoever
    meant to try it."""
    text = request.query.get("dryRun", "")
    if text not in ("", "All"):
        raise ParameterError("dryRun must be All")
    return text == "All"


def reason_of(request: web.Request) -> str:
    """``?reason=``. Raises ParameterError."""
    return checked_reason(request.query.get("reason", ""))


def checked_reason(reason: str) -> str:
    """Raises ParameterError for one that is no line of text."""
    if len(reason) > MAX_REASON:
        raise ParameterError(f"reason is longer than {MAX_REASON} characters")
    if not reason.isprintable():
        raise ParameterError("reason holds control characters or line ends")
    return reason.strip()


async def body_of(request: web.Request, shape: type[B], accepted: str) -> B:
    """The JSON body; ``accepted`` is an example of what it may be. Raises ParameterError."""
    try:
        return msgspec.json.decode(await request.read(), type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ParameterError(f"{error}; the body must be JSON like {accepted}") from error


async def text_of(request: web.Request) -> str:
    """The body as text that the YAML reader takes. Raises ParameterError when it is not UTF-8.

    JSON is YAML except for tabs between tokens; inside JSON strings there are none.
    """
    try:
        text = (await request.read()).decode()
    except UnicodeDecodeError as error:
        raise ParameterError("the body is not UTF-8") from error
    return text.replace("\t", " ") if request.content_type == "application/json" else text
