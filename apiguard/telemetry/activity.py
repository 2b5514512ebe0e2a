"""Who asks for what, in one worker and one reporting interval.

Counted per caller and kind of request; ``take`` turns what was counted into rows of plain texts,
which the supervisor sums up in ``toptalkers``. Rows of the same texts are one row, whatever
connections they came on, so a report is small where few clients are busy and bounded where many
are.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from apiguard.kube.identity import Caller, Standing
from apiguard.kube.requestinfo import ListShape, RequestInfo

CELLS = 4_096
"""Distinct (caller, verb, resource) an interval counts apart; 20,000 requests a second of nothing
but new callers get there."""

ROWS = 2_048
"""Rows of one interval; what is rarest is folded into rows without a client."""

FOLDED_ROWS = 64
"""Rows without a client: per verb and resource, and one for what does not fit either."""

LONGEST_FAMILY = 64
LONGEST_USER = 256
LONGEST_SOURCE = 64
LONGEST_VERB = 32
LONGEST_RESOURCE = 128
"""Characters that count; longer texts are cut, and those with the same beginning are one."""

_PATH_SEGMENTS = 2
"""Of a path that names no resource: ``/openapi/v3/apis/apps/v1`` is ``/openapi/v3``."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]  # no infinity: it would never leave a sum


class ActivityRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one client asked of one kind in one interval.

    ``user_agent``  the family
    ``user``        verified name, ``system:anonymous``, or "" for a credential not verified
    ``source``      textual IP address
    ``verb``        as in RequestInfo
    ``resource``    as in RequestInfo.qualified; the first two segments of a non-resource path
    ``requests``    all that ended, watches that began, and slow requests once they are known to be
                    slow; ``refused`` by the guard are among them
    ``bytes_out``   bytes of response bodies
    ``upstream_seconds``  from sending to the end of the answer, of a watch to its beginning
    ``unpaged``, ``rv_less``  LISTs without limit, and without resourceVersion; no watch-lists,
                    for that is how healthy informers begin
    ``folded``      stands for many rare clients: the three texts that name one are ""
    """

    user_agent: Annotated[str, msgspec.Meta(max_length=LONGEST_FAMILY)]
    user: Annotated[str, msgspec.Meta(max_length=LONGEST_USER)]
    source: Annotated[str, msgspec.Meta(max_length=LONGEST_SOURCE)]
    verb: Annotated[str, msgspec.Meta(max_length=LONGEST_VERB)]
    resource: Annotated[str, msgspec.Meta(max_length=LONGEST_RESOURCE)]
    requests: _Count = 0
    refused: _Count = 0
    bytes_out: _Count = 0
    upstream_seconds: _Amount = 0.0
    unpaged: _Count = 0
    rv_less: _Count = 0
    folded: bool = False


class Cell:
    """Sums of one key; see ActivityRow."""

    __slots__ = ("bytes_out", "refused", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.refused = 0
        self.bytes_out = 0
        self.seconds = 0.0


_Key = tuple[Caller, str, str, int]
"""Who, verb, resource or path, bits of ListShape."""

_Texts = tuple[str, str, str, str, str, bool]
"""What distinguishes rows: the first five fields of ActivityRow, and ``folded``."""

_Sums = list[float]
"""requests, refused, bytes, seconds, unpaged, without resourceVersion."""

_UNPAGED = ListShape.UNPAGED.value
_RV_LESS = ListShape.NO_RESOURCE_VERSION.value


class Activity:
    """What one worker counts; emptied by ``take`` five times a second.

    A key holds the Caller itself, which is compared by identity and lives as long as its
    connection, and texts of the request, whose hashes Python keeps; the shape is part of it so
    that what a LIST lacks is told by where it is counted. A request costs 0.4 us of a known key
    and 0.6 us of a new one, and a key 2 us in ``take`` (3.11, 2-core VM).
    """

    __slots__ = ("_cells", "folds")

    def __init__(self) -> None:
        self._cells: dict[_Key, Cell] = {}
        self.folds = 0
        """Requests counted without their client, because an interval had too many keys."""

    def count(self, caller: Caller, info: RequestInfo, bytes_out: int, seconds: float) -> None:
        """A request ended, or a watch began."""
        key = (caller, info.verb, info.qualified or info.path, info.shape._value_)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._new_cell(key)
        cell.requests += 1
        cell.bytes_out += bytes_out
        cell.seconds += seconds

    def refuse(self, caller: Caller, info: RequestInfo) -> None:
        """The guard refused a request."""
        key = (caller, info.verb, info.qualified or info.path, info.shape._value_)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._new_cell(key)
        cell.requests += 1
        cell.refused += 1

    def credit(self, caller: Caller, info: RequestInfo, bytes_out: int, seconds: float) -> None:
        """A request that has been counted got this much more, and took so much longer."""
        key = (caller, info.verb, info.qualified or info.path, info.shape._value_)
        cell = self._cells.get(key) or self._new_cell(key)
        cell.bytes_out += bytes_out
        cell.seconds += seconds

    def _new_cell(self, key: _Key) -> Cell:
        caller, verb, resource, shape = key
        if len(resource) > LONGEST_RESOURCE:  # else an interval could hold megabytes of path
            key = (caller, verb, resource[:LONGEST_RESOURCE], shape)
        if len(self._cells) >= CELLS:
            self.folds += 1
            key = (_NOBODY, verb, resource[:LONGEST_RESOURCE], shape)
            if key not in self._cells and len(self._cells) >= CELLS + FOLDED_ROWS:
                key = (_NOBODY, "", "", 0)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell()
        return cell

    def take(self) -> tuple[ActivityRow, ...]:
        """What was counted since the previous call: at most ``ROWS + FOLDED_ROWS`` rows."""
        cells, self._cells = self._cells, {}
        clients: dict[Caller, tuple[str, str, str]] = {}
        sums: dict[_Texts, _Sums] = {}
        for (caller, verb, resource, shape), cell in cells.items():
            client = clients.get(caller)
            if client is None:
                client = clients[caller] = _client(caller)
            texts = (*client, verb[:LONGEST_VERB], _resource(resource), caller is _NOBODY)
            n = cell.requests
            lacks = shape if verb == "list" else 0
            unpaged = n if lacks & _UNPAGED else 0
            rv_less = n if lacks & _RV_LESS else 0
            add = [n, cell.refused, cell.bytes_out, cell.seconds, unpaged, rv_less]
            _add(sums, texts, add)
        if len(sums) > ROWS:
            sums = self._folded(sums)
        return tuple(_row(texts, row) for texts, row in sums.items())

    def _folded(self, sums: dict[_Texts, _Sums]) -> dict[_Texts, _Sums]:
        """The ``ROWS`` rows that matter most, the others without their client."""
        requests, _, out, seconds, _, _ = (sum(row[i] for row in sums.values()) or 1 for i in _SIX)
        ranked = sorted(
            sums.items(),
            key=lambda item: item[1][0] / requests + item[1][2] / out + item[1][3] / seconds,
            reverse=True,
        )
        kept = dict(ranked[:ROWS])
        for (*_, verb, resource, _), row in ranked[ROWS:]:
            texts: _Texts = ("", "", "", verb, resource, True)
            if texts not in kept and len(kept) >= ROWS + FOLDED_ROWS - 1:
                texts = ("", "", "", "", "", True)
            self.folds += int(row[0])
            _add(kept, texts, row)
        return kept


_SIX = range(6)
_NOBODY = Caller(Standing.UNVERIFIED, None, "", "", "", "")


def _add(sums: dict[_Texts, _Sums], texts: _Texts, add: _Sums) -> None:
    known = sums.get(texts)
    if known is None:
        sums[texts] = add
    else:
        for i in _SIX:
            known[i] += add[i]


def _row(texts: _Texts, sums: _Sums) -> ActivityRow:
    user_agent, user, source, verb, resource, folded = texts
    requests, refused, bytes_out, seconds, unpaged, rv_less = sums
    return ActivityRow(
        user_agent,
        user,
        source,
        verb,
        resource,
        int(requests),
        int(refused),
        int(bytes_out),
        max(0.0, seconds),
        int(unpaged),
        int(rv_less),
        folded,
    )


def _client(caller: Caller) -> tuple[str, str, str]:
    identity = caller.identity
    user = _text(identity.user[:LONGEST_USER]) if identity is not None else ""
    return _text(caller.family[:LONGEST_FAMILY]), user, caller.source[:LONGEST_SOURCE]


def _resource(resource: str) -> str:
    if resource.startswith("/"):
        resource = "/".join(resource.split("/", _PATH_SEGMENTS + 1)[: _PATH_SEGMENTS + 1])
    return _text(resource[:LONGEST_RESOURCE])


def _text(text: str) -> str:
    """``text`` as MessagePack can carry it: lone surrogates become ``?``."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
