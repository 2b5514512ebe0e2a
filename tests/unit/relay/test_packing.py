"""gzip of list bodies: the same bytes as without, one member, compressed once for everybody."""

from __future__ import annotations

import random
import zlib

import pytest

from apiguard.relay import checksum
from apiguard.relay.bodies import BodyCache, ListAnswer
from apiguard.relay.listing import ListQuery, ServeList, answer, parse_list
from apiguard.relay.packing import THRESHOLD, GzipAnswer, Pack, accepts_gzip
from apiguard.relay.selection import Selection
from apiguard.relay.store import WatchCache

from .building import pod, whole, with_pods

SEED = 20_261_124


def filled(objects: int, *, size: int = 1_000) -> WatchCache:
    return with_pods((pod(f"a/{n:06}", n + 1, pad=size) for n in range(objects)), objects + 1)


def read_gzip(packed: GzipAnswer) -> tuple[bytes, int]:
    """What came, and how many pieces had to be compressed for it."""
    parts, packs = [], 0
    while (part := packed.read()) is not None:
        if isinstance(part, Pack):
            packs += 1
            part.keep(part.compress())
        else:
            parts.append(part)
    return b"".join(parts), packs


def listed(cache: WatchCache, bodies: BodyCache, query: dict[str, str]) -> ListAnswer:
    asked = parse_list({"resourceVersion": "0", **query}, Selection())
    assert isinstance(asked, ListQuery)
    serve = ServeList(asked, cache.snapshot())
    return answer(serve, cache, bodies)


def unpacked(member: bytes) -> bytes:
    """As a client that reads exactly one member."""
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    body = inflater.decompress(member)
    assert inflater.eof
    assert not inflater.unused_data
    return body


@pytest.mark.parametrize("length", [0, 1, 7, 255, 256, 4_096, 262_144, 1_000_003])
def test_sums_of_parts_make_the_sum_of_the_whole(length: int) -> None:
    rng = random.Random(SEED + length)
    first, second = rng.randbytes(100), rng.randbytes(length)
    joined = checksum.join(zlib.crc32(first), zlib.crc32(second), length)
    assert joined == zlib.crc32(first + second)


@pytest.mark.parametrize("objects", [130, 300, 3_000])
def test_a_packed_body_is_the_plain_one(objects: int) -> None:
    """Compressed by the first reader, found by the second."""
    cache, bodies = filled(objects), BodyCache()
    plain = whole(listed(cache, bodies, {}))
    assert len(plain) > THRESHOLD
    member, packs = read_gzip(GzipAnswer(listed(cache, bodies, {})))
    assert unpacked(member) == plain
    assert packs >= 1
    again, none = read_gzip(GzipAnswer(listed(cache, bodies, {})))
    assert (again, none) == (member, 0)


def test_readers_who_come_together_wait_for_the_same_piece() -> None:
    cache, bodies = filled(1_000), BodyCache()
    readers = [GzipAnswer(listed(cache, bodies, {})) for _ in range(3)]
    wishes = []
    for reader in readers:
        part: bytes | Pack | None = b""
        while not isinstance(part, Pack):
            part = reader.read()
        wishes.append(part)
    assert wishes[0] is wishes[1] is wishes[2]


def test_a_short_body_stays_as_it_is() -> None:
    cache, bodies = filled(20), BodyCache()
    packed = GzipAnswer(listed(cache, bodies, {}))
    member, packs = read_gzip(packed)
    assert not packed.gzipped
    assert (member, packs) == (whole(listed(cache, bodies, {})), 0)


def test_the_threshold_is_a_body_longer_than_that() -> None:
    """To the byte, as kube-apiserver has it."""
    for over in (0, 1):
        cache, bodies = filled(1), BodyCache()
        spare = THRESHOLD - len(whole(listed(cache, bodies, {})))
        cache = filled(1, size=1_000 + spare + over)
        packed = GzipAnswer(listed(cache, bodies, {}))
        read_gzip(packed)
        assert len(whole(listed(cache, bodies, {}))) == THRESHOLD + over
        assert packed.gzipped is bool(over)


def test_what_is_too_large_to_keep_is_packed_for_each_reader_and_not_kept() -> None:
    cache, bodies = filled(2_000), BodyCache(ceiling=1 << 20)
    for _ in range(2):
        packed = GzipAnswer(listed(cache, bodies, {}))
        member, packs = read_gzip(packed)
        assert packs > 1
        assert packed._packed is not None
        assert packed._packed.size == 0
        assert unpacked(member) == whole(listed(cache, bodies, {}))


def test_packed_bytes_count_towards_the_ceiling() -> None:
    cache, bodies = filled(2_000), BodyCache()
    whole(listed(cache, bodies, {}))
    bodies.settle()
    before = bodies.bytes
    member, _ = read_gzip(GzipAnswer(listed(cache, bodies, {})))
    bodies.settle()
    assert 0.9 * len(member) <= bodies.bytes - before <= len(member)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (b"gzip", True),
        (b"deflate, gzip", True),
        (b"gzip, deflate, br", True),
        (b"gzip;q=1.0", False),
        (b"*", False),
        (b"x-gzip", False),
        (b"", False),
    ],
)
def test_who_gets_it_is_read_as_kube_apiserver_reads_it(header: bytes, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted
