"""Watch frames: recorded streams split and build byte for byte."""

from __future__ import annotations

import pytest

from apiguard.kube.framing import (
    MAX_FRAME,
    BookmarkTemplate,
    EventType,
    ItemForm,
    RawEvent,
    error_code,
    error_frame,
    frame,
    frame_splitter,
)
from apiguard.kube.objects import ObjectError
from apiguard.kube.status import Representation, expired

from .recorded_bodies import body

JSON, PROTOBUF = Representation.JSON, Representation.PROTOBUF
STREAMS = [
    ("watch-json", JSON),
    ("watchlist-json", JSON),
    ("watch-bookmark-before-deadline", JSON),
    ("cr-watch-json", JSON),
    ("watch-partial-metadata", JSON),
    ("watch-protobuf", PROTOBUF),
    ("watchlist-protobuf", PROTOBUF),
    ("watch-bookmark-protobuf", PROTOBUF),
    ("cr-watch-partial-metadata-protobuf", PROTOBUF),
    ("watchlist-partial-metadata-protobuf", PROTOBUF),
    ("watch-rv-too-old-protobuf", PROTOBUF),
]
FORMS = {
    "watchlist-json": ItemForm(JSON, "Pod", "v1", bare=True),
    "watchlist-rv0": ItemForm(JSON, "Pod", "v1", bare=True),
    "watch-bookmark-before-deadline": ItemForm(JSON, "Pod", "v1", bare=True),
    "watchlist-protobuf": ItemForm(PROTOBUF, "Pod", "v1", bare=True),
    "watch-bookmark-protobuf": ItemForm(PROTOBUF, "Pod", "v1", bare=True),
    "watchlist-partial-metadata-protobuf": ItemForm(
        PROTOBUF, "PartialObjectMetadata", "meta.k8s.io/v1", bare=False
    ),
}


def split(data: bytes, representation: Representation, size: int) -> list[RawEvent]:
    splitter = frame_splitter(representation)
    found: list[RawEvent] = []
    for at in range(0, len(data), size):
        found += splitter.receive_data(data[at : at + size])
    assert not splitter.pending
    return found


@pytest.mark.parametrize("size", [1, 5, 4096])
@pytest.mark.parametrize(("name", "representation"), STREAMS)
def test_recorded_streams_come_out_as_they_went_in(
    name: str, representation: Representation, size: int
) -> None:
    data = body(name)
    events = split(data, representation, size)
    assert events
    assert b"".join(frame(*event, representation) for event in events) == data


@pytest.mark.parametrize("name", FORMS)
def test_an_object_undressed_and_dressed_is_the_same(name: str) -> None:
    form = FORMS[name]
    for event in split(body(name), form.representation, 4096):
        assert form.object_of(form.item_of(event.body)) == event.body


@pytest.mark.parametrize("name", FORMS)
def test_a_learned_bookmark_is_upstreams_own(name: str) -> None:
    """Each recorded bookmark is built anew from a template that saw another version."""
    form = FORMS[name]
    events = split(body(name), form.representation, 4096)
    marks = [event for event in events if event.type is EventType.BOOKMARK]
    template = BookmarkTemplate(form)
    for mark in marks:
        template.learn(form.item_of(mark.body))
    template.frame(1, initial_end=True)
    for mark in marks:
        version = BookmarkTemplate(form).learn(form.item_of(mark.body))
        initial_end = b"initial-events-end" in mark.body
        built = template.frame(version, initial_end=initial_end)
        assert built == frame(*mark, form.representation)


@pytest.mark.parametrize("initial_end", [True, False])
@pytest.mark.parametrize(
    "form",
    [
        *FORMS.values(),
        ItemForm(JSON, "Widget", "example.com/v1", bare=False),
        ItemForm(JSON, "PartialObjectMetadata", "meta.k8s.io/v1", bare=False),
    ],
)
def test_before_anything_is_learned_a_bookmark_holds_its_version(
    form: ItemForm, initial_end: bool
) -> None:
    data = BookmarkTemplate(form).frame(42, initial_end=initial_end)
    (event,) = split(data, form.representation, 4096)
    assert event.type is EventType.BOOKMARK
    assert BookmarkTemplate(form).learn(form.item_of(event.body)) == 42
    assert (b"k8s.io/initial-events-end" in event.body) is initial_end


def test_the_recorded_too_old_error_is_built_byte_for_byte() -> None:
    built = error_frame(expired("too old resource version: 1 (44212)"), PROTOBUF)
    assert built == body("watch-rv-too-old-protobuf")
    (event,) = split(built, PROTOBUF, 4096)
    assert error_code(event, PROTOBUF) == 410
    (event,) = split(error_frame(expired("x"), JSON), JSON, 4096)
    assert error_code(event, JSON) == 410
    assert error_code(RawEvent(EventType.ERROR, b"{"), JSON) == 500


def test_members_in_another_order_are_understood() -> None:
    (event,) = split(b'{ "object": {"a":1}, "type": "ADDED" }\n', JSON, 9)
    assert event == RawEvent(EventType.ADDED, b'{"a":1}')


@pytest.mark.parametrize(
    ("data", "representation"),
    [
        (b"{}\n", JSON),
        (b'{"type":"OTHER","object":{}}\n', JSON),
        (b"\0\0\0\2\x0a\x05", PROTOBUF),
        (b"\0\0\0\3\x0a\x01X", PROTOBUF),
        (b"\xff\0\0\0", PROTOBUF),
    ],
)
def test_what_is_no_event_is_refused(data: bytes, representation: Representation) -> None:
    with pytest.raises(ObjectError):
        split(data, representation, 4096)


def test_an_endless_line_is_given_up() -> None:
    with pytest.raises(ObjectError):
        frame_splitter(JSON).receive_data(b"x" * (MAX_FRAME + 1))


def test_an_object_of_another_kind_is_refused() -> None:
    form = ItemForm(JSON, "Pod", "v1", bare=True)
    with pytest.raises(ObjectError):
        form.item_of(b'{"kind":"Node","apiVersion":"v1","metadata":{}}')
    protobuf = ItemForm(PROTOBUF, "Node", "v1", bare=True)
    with pytest.raises(ObjectError):
        protobuf.item_of(split(body("watch-protobuf"), PROTOBUF, 4096)[0].body)
