"""Who asks for what, in one worker and one reporting interval.

Counted per caller and kind of request; ``take`` turns what was counted into rows of plain texts,
which the supervisor sums up in ``toptalkers``. Rows of the same texts are one row, whatever
connections they came on, so a report is small where few clients are busy and bounded where many
are.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from apiguard.kube.identity import ANONYMOUS_USER, Caller, Standing
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
    ``requests``    all that ended, and watches that began; ``refused`` by the guard are among them
    ``bytes_out``   bytes of response bodies
    ``upstream_seconds``  from sending to the end of the answer, of a watch to its beginning
    ``unpaged``, ``rv_less``  LISTs without limit, and without resourceVersion
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


Cell = list[float]
"""requests, refused, bytes_out, upstream_seconds, unpaged, rv_less."""

_Kind = tuple[str, str]
_UNPAGED = tuple(int(ListShape.UNPAGED in ListShape(bits)) for bits in range(8))
_RV_LESS = tuple(int(ListShape.NO_RESOURCE_VERSION in ListShape(bits)) for bits in range(8))


class Activity:
    """What one worker counts; emptied by ``take`` five times a second.

    Keyed by the Caller itself, which is compared by identity and lives as long as its connection,
    and by texts of the request, whose hashes Python keeps.
    """

    __slots__ = ("_cells", "_folded", "folds")

    def __init__(self) -> None:
        self._cells: dict[tuple[Caller, str, str], Cell] = {}
        self._folded: dict[_Kind, Cell] = {}
        self.folds = 0
        """Requests counted without their client, because an interval had too many."""
