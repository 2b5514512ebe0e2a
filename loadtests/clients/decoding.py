"""Lists and watch frames, as far as a reflector looks into them: versions, types, how many.

Representations are told apart by Content-Type. Raises ``apiguard.kube.objects.ObjectError`` for
bytes that are none of these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from apiguard.kube.framing import (
    INITIAL_EVENTS_END,
    EventType,
    FrameSplitter,
    RawEvent,
    error_code,
    frame_splitter,
)
from apiguard.kube.lists import list_splitter
from apiguard.kube.objects import FieldTable, ObjectError, peeker, protobuf_version, unwrap
from apiguard.kube.status import Representation

STAMP = "loadtest/sent"
"""Annotation that says when an object was written: CLOCK_MONOTONIC with six decimals."""

_NOTHING = FieldTable(())
_VERSION = re.compile(rb'"resourceVersion":"(\d+)"')
# In JSON three characters lie between key and value, in protobuf a tag and a length below 48.
_STAMPED = re.compile(STAMP.encode() + rb"[^0-9]{1,4}(\d+\.\d{6})")
_END = INITIAL_EVENTS_END.encode()


@dataclass(frozen=True, slots=True)
class Listed:
    """What a page of a list says."""

    version: str
    items: int
    token: str


def representation_of(content_type: str) -> Representation:
    binary = content_type.startswith(Representation.PROTOBUF.value)
    return Representation.PROTOBUF if binary else Representation.JSON


def read_list(body: bytes, content_type: str) -> Listed:
    representation = representation_of(content_type)
    splitter = list_splitter(representation, peeker(representation, _NOTHING))
    items = len(splitter.receive_data(body))
    last, envelope = splitter.receive_eof()
    return Listed(str(envelope.resource_version), items + len(last), envelope.token)


@dataclass(frozen=True, slots=True)
class Event:
    """``version`` is "" for an error; ``stamp`` 0.0 where the object bears none."""

    type: EventType
    version: str
    code: int
    stamp: float
    ends_initial: bool


class Events:
    """The events of one stream."""

    def __init__(self, content_type: str) -> None:
        self._representation = representation_of(content_type)
        self._splitter: FrameSplitter = frame_splitter(self._representation)

    def receive(self, data: bytes) -> list[Event]:
        return [self._read(raw) for raw in self._splitter.receive_data(data)]

    def _read(self, raw: RawEvent) -> Event:
        if raw.type is EventType.ERROR:
            return Event(raw.type, "", error_code(raw, self._representation), 0.0, False)
        found = _STAMPED.search(raw.body)
        stamp = float(found[1]) if found else 0.0
        ends = raw.type is EventType.BOOKMARK and _END in raw.body
        return Event(raw.type, self._version(raw.body), 0, stamp, ends)

    def _version(self, body: bytes) -> str:
        if self._representation is Representation.PROTOBUF:
            return str(protobuf_version(unwrap(body).raw))
        # Metadata precedes everything else that could hold such a member.
        found = _VERSION.search(body)
        if found is None:
            raise ObjectError("an event without a resourceVersion")
        return found[1].decode()
