"""Watch frames of both framings, split and built; and what an object wears in which place.

JSON: one compact ``{"type":T,"object":O}`` and a line feed per event. Protobuf: four bytes of
length, big-endian, then ``WatchEvent`` {1 type, 2 RawExtension {1 raw}} whose raw bytes are an
envelope (``kube.protobuf``). Sources: k8s.io/apimachinery/pkg/util/framer/framer.go and
k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto.

The same object differs between a list and a watch: in a watch it names its kind and apiVersion,
as an item of a built-in list it does not. A relay keeps the bytes of the item; ``ItemForm`` adds
and removes the rest. Metadata-only objects (PartialObjectMetadata) are a form of their own.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from apiguard.kube.objects import (
    ObjectError,
    parse_resource_version,
    protobuf_version,
    restamped,
    unwrap,
    with_metadata,
)
from apiguard.kube.protobuf import bytes_field, envelope, string_field
from apiguard.kube.protoreader import ProtobufError, fields
from apiguard.kube.status import Representation, Status

MAX_FRAME = 16 << 20
"""Bytes of one event; see ``lists.MAX_ITEM``."""


class EventType(enum.StrEnum):
    """k8s.io/apimachinery/pkg/watch/watch.go."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


_TYPES = {kind.value.encode(): kind for kind in EventType}


class RawEvent(NamedTuple):
    """One event; ``body`` is the object as it stood there: JSON text or an envelope."""

    type: EventType
    body: bytes


# --- splitting ----------------------------------------------------------------------------------


class _JsonEvent(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


_decode_event = msgspec.json.Decoder(_JsonEvent).decode
_BEFORE_TYPE: Final = b'{"type":"'
_BEFORE_OBJECT: Final = b'","object":'


class JsonFrameSplitter:
    """Lines -> events. Raises ``ObjectError``."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> list[RawEvent]:
        """The events complete so far that were not returned before."""
        self._buffer += data
        cut = self._buffer.rfind(b"\n")
        if cut < 0:
            if len(self._buffer) > MAX_FRAME:
                raise ObjectError("a watch event that is longer than any object")
            return []
        lines = bytes(self._buffer[:cut])
        del self._buffer[: cut + 1]
        return [_json_event(line) for line in lines.split(b"\n") if line]

    @property
    def pending(self) -> bool:
        """Whether a frame has begun: a stream that ends now ends in the middle."""
        return bool(self._buffer)


def _json_event(line: bytes) -> RawEvent:
    """The members in Go's order are cut out; any other spelling is decoded."""
    at = line.find(_BEFORE_OBJECT, len(_BEFORE_TYPE), 32)
    if at > 0 and line.startswith(_BEFORE_TYPE) and line.endswith(b"}}"):
        kind = _TYPES.get(line[len(_BEFORE_TYPE) : at])
        if kind is not None:
            return RawEvent(kind, line[at + len(_BEFORE_OBJECT) : -1])
    try:
        event = _decode_event(line)
        return RawEvent(EventType(event.type), bytes(event.object))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ObjectError(f"a line that is no watch event: {error}") from None


class ProtobufFrameSplitter:
    """Length-prefixed frames -> events. Raises ``ObjectError``."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> list[RawEvent]:
        """The events complete so far that were not returned before."""
        buffer = self._buffer
        buffer += data
        found: list[RawEvent] = []
        at = 0
        while len(buffer) - at >= 4:
            length = int.from_bytes(buffer[at : at + 4])
            if length > MAX_FRAME:
                raise ObjectError("a watch event that is longer than any object")
            end = at + 4 + length
            if end > len(buffer):
                break
            found.append(_protobuf_event(bytes(buffer[at + 4 : end])))
            at = end
        del buffer[:at]
        return found

    @property
    def pending(self) -> bool:
        """Whether a frame has begun: a stream that ends now ends in the middle."""
        return bool(self._buffer)


def _protobuf_event(message: bytes) -> RawEvent:
    kind, body = b"", b""
    try:
        for number, _, start, end in fields(message):
            if number == 1:
                kind = message[start:end]
            elif number == 2:
                for inner, _, first, last in fields(message, start, end):
                    if inner == 1:
                        body = message[first:last]
    except ProtobufError as error:
        raise ObjectError(f"a frame that is no watch event: {error}") from None
    found = _TYPES.get(kind)
    if found is None:
        raise ObjectError("a watch event of unknown type")
    return RawEvent(found, body)


FrameSplitter = JsonFrameSplitter | ProtobufFrameSplitter


def frame_splitter(representation: Representation) -> FrameSplitter:
    """A splitter for one stream."""
    if representation is Representation.PROTOBUF:
        return ProtobufFrameSplitter()
    return JsonFrameSplitter()


# --- building -----------------------------------------------------------------------------------

_JSON_HEADS = {kind: b'{"type":"%s","object":' % kind.value.encode() for kind in EventType}
_PROTOBUF_HEADS = {kind: string_field(1, kind.value) for kind in EventType}


def frame(kind: EventType, body: bytes, representation: Representation) -> bytes:
    """One event as it is sent; ``body`` as in ``RawEvent``."""
    if representation is Representation.JSON:
        return b"".join((_JSON_HEADS[kind], body, b"}\n"))
    event = _PROTOBUF_HEADS[kind] + bytes_field(2, bytes_field(1, body))
    return len(event).to_bytes(4) + event


def error_frame(status: Status, representation: Representation) -> bytes:
    """The last event of a stream that cannot go on."""
    return frame(EventType.ERROR, status.encoded(representation).rstrip(b"\n"), representation)


def error_code(event: RawEvent, representation: Representation) -> int:
    """The HTTP code of an ERROR event's Status; 500 where it names none."""
    if representation is Representation.PROTOBUF:
        try:
            codes = [value for number, _, value, _ in fields(unwrap(event.body).raw) if number == 6]
        except ProtobufError:
            codes = []
        return codes[0] if codes else 500
    try:
        return msgspec.json.decode(event.body, type=_Code).code
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 500


class _Code(msgspec.Struct, frozen=True):
    code: int = 500


# --- items and objects --------------------------------------------------------------------------

PARTIAL = "PartialObjectMetadata"
_PARTIAL_VERSION = "meta.k8s.io/v1"
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class ItemForm:
    """How one resource's objects are written in one representation.

    ``kind`` and ``api_version`` are those of an object. ``bare``: JSON items of lists lack them
    (lists of Go structs do, unstructured and metadata-only lists do not).
    """

    representation: Representation
    kind: str
    api_version: str
    bare: bool
    _prefix: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = self.kind.encode(), self.api_version.encode()
        object.__setattr__(self, "_prefix", b'{"kind":"%s","apiVersion":"%s",' % names)

    @property
    def list_kind(self) -> str:
        return self.kind + "List"

    @property
    def sorted_keys(self) -> bool:
        """Whether JSON members stand in alphabetical order, as unstructured lists have them."""
        json_items = self.representation is Representation.JSON and not self.bare
        return json_items and not (self.kind == PARTIAL and self.api_version == _PARTIAL_VERSION)

    def object_of(self, item: bytes) -> bytes:
        """An item of a list as a watch sends it."""
        if self.representation is Representation.PROTOBUF:
            return envelope(self.api_version, self.kind, item)
        return self._prefix + item[1:] if self.bare else item

    def event(self, kind: EventType, item: bytes) -> bytes:
        """``frame(kind, object_of(item))`` with one copy of the item instead of three."""
        if self.representation is Representation.JSON:
            if self.bare:
                rest = memoryview(item)[1:]
                return b"".join((_JSON_HEADS[kind], self._prefix, rest, b"}\n"))
            return b"".join((_JSON_HEADS[kind], item, b"}\n"))
        return frame(kind, self.object_of(item), self.representation)

    def item_of(self, body: bytes) -> bytes:
        """The object of a watch event as an item of a list; raises ``ObjectError``."""
        if self.representation is Representation.PROTOBUF:
            found = unwrap(body)
            if (found.kind, found.api_version) != (self.kind, self.api_version):
                raise ObjectError(f"an object of another kind: {found.kind}")
            return found.raw
        if not self.bare:
            return body
        prefix = self._prefix
        if not body.startswith(prefix):
            raise ObjectError("an object that does not begin with its kind and apiVersion")
        return b"{" + body[len(prefix) :]


class BookmarkTemplate:
    """Builds BOOKMARK events of one resource in one representation.

    A bookmark's object is the kind's zero value, which differs per kind (a Pod's has
    ``"spec":{"containers":null}``). What upstream sends is learned and only its version exchanged;
    until then the object holds metadata alone, which decodes to the same.
    """

    __slots__ = ("_form", "_learned")

    def __init__(self, form: ItemForm) -> None:
        self._form = form
        self._learned = _plain_bookmark(form)

    def learn(self, item: bytes) -> int:
        """Keeps upstream's bookmark (as an item) and returns its version; raises ObjectError."""
        if self._form.representation is Representation.PROTOBUF:
            version = protobuf_version(item)
        else:
            stamps = _VERSION.findall(item)
            if len(stamps) != 1:
                raise ObjectError("a bookmark that names not exactly one resourceVersion")
            version = parse_resource_version(stamps[0].decode())
        if INITIAL_EVENTS_END.encode() not in item:
            self._learned = item
        return version

    def frame(self, version: int, *, initial_end: bool) -> bytes:
        """A bookmark at ``version``; ``initial_end`` marks the end of the initial events."""
        form = self._form
        if form.representation is Representation.PROTOBUF:
            item = restamped(self._learned, 0, version, form.representation)
            if initial_end:
                item = with_metadata(item, lambda meta: meta + _ANNOTATION_FIELD)
        else:
            stamp = b'"resourceVersion":"%d"' % version
            if initial_end:
                parts = (_ANNOTATIONS, stamp) if form.sorted_keys else (stamp, _ANNOTATIONS)
                stamp = b",".join(parts)
            item = _VERSION.sub(stamp, self._learned)
        return frame(EventType.BOOKMARK, form.object_of(item), form.representation)


_VERSION = re.compile(rb'"resourceVersion":"([0-9]+)"')
_ANNOTATIONS = b'"annotations":{"%s":"true"}' % INITIAL_EVENTS_END.encode()
# Field 12 of ObjectMeta, a map; nothing a bookmark holds comes behind it.
_ANNOTATION_FIELD = bytes_field(12, string_field(1, INITIAL_EVENTS_END) + string_field(2, "true"))


def _plain_bookmark(form: ItemForm) -> bytes:
    """An item with nothing but a version."""
    if form.representation is Representation.PROTOBUF:
        return bytes_field(1, string_field(6, "0"))
    metadata = b'"metadata":{"resourceVersion":"0"}}'
    if form.bare:
        return b"{" + metadata
    if form.sorted_keys:
        head = b'{"apiVersion":"%s","kind":"%s",' % (form.api_version.encode(), form.kind.encode())
        return head + metadata
    return b'{"kind":"%s","apiVersion":"%s",%s' % (
        form.kind.encode(),
        form.api_version.encode(),
        metadata,
    )
