"""WATCH parameters mean what kube-apiserver takes them for; streams are its bytes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from apiguard.kube.framing import (
    BookmarkTemplate,
    EventType,
    ItemForm,
    JsonFrameSplitter,
    RawEvent,
    frame_splitter,
)
from apiguard.kube.lists import ListedItem, ListEnvelope
from apiguard.kube.status import Representation
from apiguard.relay.bodies import PIECE, BodyCache
from apiguard.relay.eventlog import Event, Frame, LogBounds
from apiguard.relay.fanout import Fanout
from apiguard.relay.listing import PassUpstream, Refuse
from apiguard.relay.selection import Selection, Test
from apiguard.relay.store import WatchCache
from apiguard.relay.watcher import STALL, Ending, State, Watcher, outcome
from apiguard.relay.watching import (
    Begin,
    BeginAt,
    BeginExpired,
    BeginFresh,
    WatchDecision,
    WatchQuery,
    decide_watch,
    parse_watch,
)
from tests.unit.kube.recorded_bodies import body

from .building import (
    JSON,
    PROTOBUF,
    bookmark,
    event,
    filled,
    gathered,
    key,
    listed,
    pod,
    read_list,
    selection,
    spec,
    with_pods,
)

ADDED, MODIFIED, DELETED = EventType.ADDED, EventType.MODIFIED, EventType.DELETED


@dataclass
class Line:
    """A transport with room for ``room`` frames."""

    room: int = 1 << 30
    frames: list[Frame] = field(default_factory=list)
    ending: Ending | None = None

    def write(self, frame: Frame) -> bool:
        self.frames.append(frame)
        return len(self.frames) < self.room

    def end(self, ending: Ending) -> None:
        self.ending = ending

    @property
    def data(self) -> bytes:
        return b"".join(frame.data for frame in self.frames)


class Bench:
    """A cache and its fanout."""

    def __init__(self, cache: WatchCache) -> None:
        self.cache = cache
        self.fanout = Fanout(cache, BodyCache(), random.Random(1))

    def open(
        self, query: WatchQuery, line: Line | None = None, *, deadline: float = 1e9
    ) -> tuple[Watcher, Line]:
        decision = decide_watch(query, self.cache, fresh=True)
        assert isinstance(decision, Begin), decision
        line = line or Line()
        watcher = self.fanout.open(decision, line, deadline, 0.0)
        while self.fanout.pull(watcher, 0.0):
            pass
        return watcher, line

    def apply(self, raw: RawEvent, now: float = 0.0) -> Event | None:
        happened = self.cache.apply(raw, now)
        if happened is not None:
            self.fanout.deliver(happened, now)
        return happened


def watch(
    revision: int | None, chosen: Selection | None = None, *, initial: bool = False
) -> WatchQuery:
    return WatchQuery(chosen or selection(), revision, initial, bookmarks=True)


def kinds(line: Line) -> list[str]:
    return [raw.type.value for raw in JsonFrameSplitter().receive_data(line.data)]


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"resourceVersion": "5"}, WatchQuery(selection(), 5, False, False)),
        ({"resourceVersion": "0"}, WatchQuery(selection(), 0, True, False)),
        ({}, WatchQuery(selection(), None, True, False)),
        ({"allowWatchBookmarks": ""}, WatchQuery(selection(), None, True, True)),
        ({"timeoutSeconds": "7"}, WatchQuery(selection(), None, True, False, 7)),
        (
            {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"},
            WatchQuery(selection(), None, True, False),
        ),
        (
            {
                "sendInitialEvents": "False",
                "resourceVersionMatch": "NotOlderThan",
                "resourceVersion": "9",
            },
            WatchQuery(selection(), 9, False, False),
        ),
        ({"timeoutSeconds": "x"}, PassUpstream("parameters")),
        ({"limit": "5"}, PassUpstream("parameters")),
    ],
)
def test_parameters_are_understood(query: dict[str, str], expected: object) -> None:
    assert parse_watch(query, selection()) == expected


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("watchlist-missing-match", {"sendInitialEvents": "true"}),
        ("watch-rv-invalid", {"resourceVersion": "abc"}),
    ],
)
def test_recorded_refusals_are_ours_word_for_word(name: str, query: dict[str, str]) -> None:
    refusal = parse_watch(query, selection())
    assert isinstance(refusal, Refuse)
    assert refusal.status.to_json() == body(name)


@pytest.mark.parametrize(
    "query",
    [
        {"resourceVersionMatch": "NotOlderThan"},
        {"resourceVersionMatch": "Exact", "sendInitialEvents": "true"},
        {"timeoutSeconds": ""},
        {"timeoutSeconds": "-5"},
        {"timeoutSeconds": "99999999999"},
        {"limit": ""},
        {"continue": ""},
        {"resourceVersion": str(1 << 64)},
    ],
)
def test_what_upstream_judges_in_another_order_goes_there(query: dict[str, str]) -> None:
    assert parse_watch(query, selection()) == PassUpstream("parameters")


def short_log() -> WatchCache:
    """The log knows 14 to 20; from 16 to 18 it was bridged."""
    cache = with_pods([pod("a/x", 10)], 10, log=LogBounds(seconds=1.0, fewest=1))
    for revision in (12, 14, 16):
        cache.apply(event(MODIFIED, pod("a/x", revision)), float(revision))
    read = read_list(listed([pod("a/y", 18)], 19), cache)
    assert cache.converge(*read, 16.5, lambda _: None, lambda *_: None)
    cache.apply(event(MODIFIED, pod("a/y", 20)), 16.6)
    return cache


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (watch(None, initial=True), BeginFresh),
        (watch(0, initial=True), Begin),
        (watch(20, initial=True), Begin),
        (watch(21, initial=True), BeginAt),
        (watch(20), Begin),
        (watch(99), Begin),
        (watch(16), Begin),
        (watch(19), Begin),
        (watch(17), BeginExpired),
        (watch(13), PassUpstream),
        (watch(20, selection(fields="spec.image=x")), PassUpstream),
    ],
    ids=str,
)
def test_where_a_stream_begins(query: WatchQuery, expected: type[WatchDecision]) -> None:
    """Below the log upstream is asked; inside of what a relist bridged nobody can tell."""
    decision = decide_watch(query, short_log())
    assert type(decision) is expected
    if isinstance(decision, BeginExpired):
        assert (decision.status.code, decision.status.reason) == (410, "Expired")


def test_an_unready_cache_opens_nothing() -> None:
    assert decide_watch(watch(0, initial=True), WatchCache(spec())) == PassUpstream("unready")


# --- streams --------------------------------------------------------------------------------------

RECORDED = [
    ("watchlist-json", JSON, False, "Pod", "v1"),
    ("watchlist-rv0", JSON, False, "Pod", "v1"),
    ("watchlist-protobuf", PROTOBUF, False, "Pod", "v1"),
    (
        "watchlist-partial-metadata-protobuf",
        PROTOBUF,
        True,
        "PartialObjectMetadata",
        "meta.k8s.io/v1",
    ),
]


@pytest.mark.parametrize(
    ("name", "representation", "partial", "kind", "version"), RECORDED, ids=[r[0] for r in RECORDED]
)
def test_a_recorded_watch_list_comes_out_byte_for_byte(
    name: str, representation: Representation, partial: bool, kind: str, version: str
) -> None:
    """Its initial objects as a list, its events as upstream's; bookmarks where it had them."""
    recorded = frame_splitter(representation).receive_data(body(name))
    first = next(at for at, raw in enumerate(recorded) if raw.type is EventType.BOOKMARK)
    form = ItemForm(representation, kind, version, bare=not partial)
    cache = WatchCache(spec(representation, metadata_only=partial))
    items = [form.item_of(raw.body) for raw in recorded[:first]]
    found = [cache.item(ListedItem(cache.peek(item), item)) for item in items]
    revision = BookmarkTemplate(form).learn(form.item_of(recorded[first].body))
    cache.fill(
        ListEnvelope(kind + "List", version, revision, "", None, False), gathered(cache, found), 0.0
    )
    cache.bookmarks.learn(form.item_of(recorded[-1].body))
    bench = Bench(cache)
    _, line = bench.open(watch(0, initial=True))
    for raw in recorded[first + 1 :]:
        bench.apply(raw)
        if raw.type is EventType.BOOKMARK:
            bench.fanout.bookmark(1.0)
    assert line.data == body(name)


def test_a_recorded_selector_watch_comes_out_byte_for_byte() -> None:
    """From the recorded list, what happened to it since, and an object leaving and returning."""
    cache = filled(body("list-json"))
    cache.apply(bookmark(11307), 0.0)
    bench = Bench(cache)
    for raw in JsonFrameSplitter().receive_data(body("watch-json")):
        bench.apply(raw)
    recorded = JsonFrameSplitter().receive_data(body("watch-json-label-selector"))
    _, line = bench.open(watch(11312, selection("golden25", labels="app=x")))
    bench.apply(event(MODIFIED, pod("golden25/a", 11314, labels={"app": "y"})))
    for raw in recorded[1:]:
        returning = raw.type is ADDED and b'"name":"a"' in raw.body[:80]
        bench.apply(RawEvent(MODIFIED, raw.body) if returning else raw)
    assert line.data == body("watch-json-label-selector")


def test_a_selector_turns_changes_into_comings_and_goings() -> None:
    """Who leaves is deleted as it was, at the revision of the change that took it out."""
    bench = Bench(with_pods([pod("a/x", 3, labels={"app": "x"})], 5))
    _, line = bench.open(watch(5, selection("a", labels="app=x")))
    left = pod("a/x", 6, labels={"app": "y"})
    for raw in (
        event(MODIFIED, left),
        event(MODIFIED, pod("a/x", 7, labels={"app": "y"})),
        event(MODIFIED, pod("a/x", 8, labels={"app": "x"})),
        event(MODIFIED, pod("a/x", 9, labels={"app": "x"})),
        event(ADDED, pod("b/x", 10, labels={"app": "x"})),
        event(DELETED, pod("a/x", 9, labels={"app": "x"}), 11),
    ):
        bench.apply(raw)
    told = JsonFrameSplitter().receive_data(line.data)
    assert told == [
        event(DELETED, pod("a/x", 3, labels={"app": "x"}), 6),
        event(ADDED, pod("a/x", 8, labels={"app": "x"})),
        event(MODIFIED, pod("a/x", 9, labels={"app": "x"})),
        event(DELETED, pod("a/x", 9, labels={"app": "x"}), 11),
    ]


def test_a_selector_does_the_same_in_protobuf() -> None:
    """Recorded changes of a pod's label, over a recorded list."""
    bench = Bench(filled(body("list-protobuf"), spec(PROTOBUF)))
    _, everything = bench.open(watch(11306))
    _, chosen = bench.open(watch(11306, selection(labels="app=x")))
    for raw in frame_splitter(PROTOBUF).receive_data(body("watch-protobuf")):
        bench.apply(raw)
    assert everything.data == body("watch-protobuf")
    peeked = [
        (raw.type, bench.cache.peek(bench.cache.form.item_of(raw.body)))
        for raw in frame_splitter(PROTOBUF).receive_data(chosen.data)
    ]
    assert all(of.labels == {"app": "x"} for _, of in peeked)
    assert (peeked[0][0], peeked[0][1].name) == (DELETED, "a")
    revisions = [of.resource_version for _, of in peeked]
    assert revisions == sorted(set(revisions))
    assert revisions[0] > 11319


def test_one_frame_serves_everybody_of_one_outcome() -> None:
    """The same object, whatever their selections; also for who reads it later from the log."""
    bench = Bench(with_pods([pod("a/x", 3, node="n1")], 5))
    chosen = [selection(), selection("a"), selection(fields="spec.nodeName=n1")]
    lines = [bench.open(watch(5, each))[1] for each in chosen * 2]
    bench.apply(event(MODIFIED, pod("a/x", 6, node="n1")))
    _, late = bench.open(watch(5))
    assert len({id(line.frames[-1]) for line in [*lines, late]}) == 1


def test_a_change_asks_only_the_groups_it_concerns(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many judgements with 500 nodes watched as with 5; both nodes of a move among them."""
    judged: list[object] = []

    def counting(happened: Event, test: Test) -> EventType | None:
        judged.append(test)
        return outcome(happened, test)

    monkeypatch.setattr("apiguard.relay.fanout.outcome", counting)
    counts = []
    for nodes in (5, 500):
        bench = Bench(with_pods([pod("a/x", 3, node="n1")], 5))
        for at in range(nodes):
            bench.open(watch(5, selection(fields=f"spec.nodeName=n{at}")))
            bench.open(watch(5, selection(f"ns{at}")))
            bench.open(watch(5, selection("a", fields=f"metadata.name=p{at}")))
        judged.clear()
        bench.apply(event(MODIFIED, pod("a/x", 6, node="n1")))
        bench.apply(event(MODIFIED, pod("a/x", 7, node="n2")))
        counts.append(len(judged))
    assert counts == [3, 3]


def test_a_future_revision_waits_and_hears_nothing_at_or_below_it() -> None:
    bench = Bench(with_pods([pod("a/x", 3)], 5))
    _, line = bench.open(watch(7))
    bench.fanout.bookmark(0.0)
    for revision in (6, 7, 8):
        bench.apply(event(MODIFIED, pod("a/x", revision)))
    assert JsonFrameSplitter().receive_data(line.data) == [event(MODIFIED, pod("a/x", 8))]


def test_a_full_line_costs_the_others_nothing_and_loses_nothing() -> None:
    bench = Bench(with_pods([pod("a/x", 3)], 5))
    slow, narrow = bench.open(watch(5), Line(room=2))
    _, wide = bench.open(watch(5))
    for revision in range(6, 12):
        bench.apply(event(MODIFIED, pod("a/x", revision)))
    assert (len(narrow.frames), len(wide.frames)) == (2, 6)
    assert (slow.state, bench.fanout.lagging, bench.fanout.lagged) == (State.LAGGING, 1, 1)
    narrow.room = 1 << 30
    assert not bench.fanout.pull(slow, 1.0)
    assert narrow.frames == wide.frames
    assert (slow.state, bench.fanout.lagging) == (State.LIVE, 0)


def test_a_cursor_that_left_the_log_is_told_410() -> None:
    bench = Bench(with_pods([pod("a/x", 3)], 5, log=LogBounds(seconds=1.0, fewest=2)))
    slow, line = bench.open(watch(5), Line(room=1))
    for revision in range(6, 12):
        bench.apply(event(MODIFIED, pod("a/x", revision)), 5.0 * revision)
    line.room = 1 << 30
    bench.fanout.pull(slow, 56.0)
    assert kinds(line) == ["MODIFIED", "ERROR"]
    assert b'"code":410' in line.frames[-1].data
    assert line.ending is Ending.EXPIRED
    assert len(bench.fanout) == 0


def test_a_line_that_takes_nothing_is_closed_after_a_minute() -> None:
    """And one that takes a little is not."""
    bench = Bench(with_pods([pod("a/x", 3)], 5))
    _, stuck = bench.open(watch(5), Line(room=1))
    creeping, slow = bench.open(watch(5), Line(room=1))
    bench.apply(event(MODIFIED, pod("a/x", 6)), 10.0)
    creeping.progressed(40.0)
    endings = []
    for now in (10.0 + STALL - 0.1, 10.0 + STALL):
        bench.fanout.tick(now)
        endings.append((stuck.ending, slow.ending))
    assert endings == [(None, None), (Ending.STALLED, None)]
    assert bench.fanout.ended[Ending.STALLED] == 1


def test_a_stream_ends_at_its_deadline_with_a_bookmark_two_seconds_before() -> None:
    bench = Bench(with_pods([pod("a/x", 3)], 5))
    _, line = bench.open(watch(5), deadline=30.0)
    _, silent = bench.open(WatchQuery(selection(), 5, False, bookmarks=False), deadline=30.0)
    bench.fanout.tick(27.9)
    assert line.frames == []
    bench.fanout.tick(28.1)
    assert kinds(line) == ["BOOKMARK"]
    bench.fanout.tick(30.0)
    assert (line.ending, silent.ending) == (Ending.TIMEOUT, Ending.TIMEOUT)
    assert silent.frames == []


def test_bookmarks_come_about_every_minute_and_are_shared() -> None:
    bench = Bench(with_pods([pod("a/x", 3)], 5))
    lines = [bench.open(watch(5))[1] for _ in range(50)]
    seconds = 0
    while seconds < 600:
        seconds += 1
        bench.fanout.tick(float(seconds))
    assert all(9 <= len(line.frames) <= 12 for line in lines)
    assert len({id(frame) for line in lines for frame in line.frames}) == 1


def test_a_lagging_stream_gets_no_bookmark() -> None:
    bench = Bench(with_pods([pod("a/x", 3)], 5))
    _, line = bench.open(watch(5), Line(room=1))
    bench.apply(event(MODIFIED, pod("a/x", 6)), 50.0)
    bench.apply(bookmark(9), 50.0)
    bench.fanout.bookmark(51.0)
    bench.fanout.tick(61.0)
    assert kinds(line) == ["MODIFIED"]


def test_a_break_with_the_past_ends_streams_spread_over_time() -> None:
    """After it, nothing but the end is written."""
    bench = Bench(with_pods([pod("a/x", 3)], 5))
    lines = [bench.open(watch(5))[1] for _ in range(100)]
    bench.fanout.reset(100.0, 20.0)
    bench.cache.fill(*read_list(listed([pod("a/y", 9)], 9), bench.cache), 100.0)
    bench.apply(event(MODIFIED, pod("a/y", 10)), 100.0)
    over = []
    for second in range(21):
        bench.fanout.tick(100.0 + second)
        over.append(sum(line.ending is not None for line in lines))
    assert over[-1] == 100
    assert 20 < over[10] < 80
    assert all(kinds(line) == ["ERROR"] for line in lines)
    assert len(bench.fanout) == 0


def test_who_comes_and_goes_leaves_nothing_behind() -> None:
    bench = Bench(with_pods([pod("a/x", 3)], 5))
    for at in range(2_000):
        watcher, line = bench.open(watch(5, selection(f"ns{at}")))
        bench.fanout.close(watcher)
        bench.fanout.close(watcher)
        assert line.ending is Ending.CLOSED
    assert len(bench.fanout) == 0
    assert bench.fanout.ended[Ending.CLOSED] == 2_000
    assert len(bench.fanout._due) < 200
    assert not bench.fanout._homes


def test_large_initial_events_come_in_bounded_pieces_and_are_built_once() -> None:
    pods = [pod(f"a/p{at:03}", 1, pad=20_000) for at in range(40)]
    pods.append(pod("a/p999", 1, pad=2 * PIECE))
    bench = Bench(with_pods(pods, 5))
    lines = [bench.open(watch(0, initial=True))[1] for _ in range(2)]
    assert max(len(frame.data) for frame in lines[0].frames) <= PIECE
    told = JsonFrameSplitter().receive_data(lines[0].data)
    assert told[:-1] == [event(ADDED, each) for each in sorted(pods, key=key)]
    assert lines[0].frames[0].data is lines[1].frames[0].data
