"""Percent escapes and query strings as Go's ``net/url`` reads them.

kube-apiserver is a Go program; a query that two programs read differently smuggles parameters
past the one that judges. Python's ``urllib.parse`` is such a second reader: it keeps pairs with a
bad escape and lets the last duplicate win in a ``dict``. Source: ``src/net/url/url.go``.

Text in, text out: the input is the latin-1 view of the bytes received, the output their UTF-8
reading. Bytes that are no UTF-8 become U+FFFD, which is what Go writes when it encodes the same
string into an access review.
"""

from __future__ import annotations

import re
from collections.abc import Container
from urllib.parse import unquote_to_bytes

MAX_PARAMETERS = 10_000
"""Pairs after which Go's ``ParseQuery`` reads nothing at all (``GODEBUG=urlmaxqueryparams``).

Releases before 1.24 read on, so a longer query has two readings.
"""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def percent_decode(raw: str) -> str | None:
    """``raw`` with its escapes decoded; None when one is malformed. ``+`` stays ``+``."""
    if "%" in raw:
        if _BAD_ESCAPE.search(raw):
            return None
        return unquote_to_bytes(raw.encode("latin-1")).decode("utf-8", "replace")
    return raw if raw.isascii() else raw.encode("latin-1").decode("utf-8", "replace")


def query_decode(raw: str) -> str | None:
    """As ``percent_decode``, for a name or value of a query: ``+`` is a blank."""
    return percent_decode(raw.replace("+", " "))


def first_values(query: str, wanted: Container[str]) -> dict[str, str]:
    """The first value of each parameter named in ``wanted``; ``query`` is without its ``?``.

    Pairs are split on ``&`` alone; a pair holding ``;`` or a malformed escape is dropped, so that
    a later duplicate of it counts as the first. A name without ``=`` has the value "".
    """
    values: dict[str, str] = {}
    plain = "%" not in query and "+" not in query and query.isascii()
    for pair in query.split("&"):
        if ";" in pair:
            continue
        raw_name, _, raw_value = pair.partition("=")
        name = raw_name if plain else query_decode(raw_name)
        if name is None or name in values or name not in wanted:
            continue
        value = raw_value if plain else query_decode(raw_value)
        if value is not None:
            values[name] = value
    return values
