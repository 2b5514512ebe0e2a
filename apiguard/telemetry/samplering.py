"""The samples of the last minutes, in bounded memory.

Kept encoded: a decoded Sample takes four times the room. In blocks of a second; when there is no
room the largest block gives up every second sample, and the rest stand for twice as many, so that
busy minutes grow coarser and a quiet one among them stays whole. Which half goes is drawn, so
that estimates stay unbiased, and neighbours are of one worker and one kind, so that both kinds
thin evenly.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from apiguard.telemetry.sample import (
    ADMITTED_PER_INTERVAL,
    REFUSED_PER_INTERVAL,
    Sample,
)

MOST = 20_000
MOST_BYTES = 10 << 20
SECONDS = 300.0

_OVERHEAD = 48  # bytes of a bytes object and its place in a list, before its content
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Sample)


class Recent(NamedTuple):
    """Samples in order of time, what they stand for, and since when (monotonic) there are any.

    ``how`` says in a sentence how they were chosen; ``thinned`` by what number, at most, they were
    thinned out later.
    """

    samples: tuple[Sample, ...]
    represented: float
    since: float
    how: str
    thinned: int


class _Block:
    """What came within one second; ``size`` in bytes."""

    __slots__ = ("began", "encoded", "size", "thinned")

    def __init__(self, began: float) -> None:
        self.began = began
        self.encoded: list[bytes] = []
        self.size = 0
        self.thinned = 1


class SampleRing:
    """At most ``most`` samples and ``most_bytes``, none older than ``seconds``.

    Filling takes 3 us a sample, ``recent`` of a full ring 50 ms (3.11, 2-core VM): off the loop,
    if that must not wait; nothing but a list is read.
    """

    __slots__ = ("_blocks", "_bytes", "_count", "_most", "_most_bytes", "_random", "_seconds")

    def __init__(
        self,
        random: random.Random,
        *,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        seconds: float = SECONDS,
    ) -> None:
        self._random = random
        self._most = most
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._blocks: deque[_Block] = deque()
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def add(self, samples: Sequence[Sample], now: float) -> None:
        """One report's samples; ``now`` is monotonic."""
        blocks = self._blocks
        while blocks and blocks[0].began < now - self._seconds:
            self._forget(blocks.popleft())
        if not samples:
            return
        if not blocks or now - blocks[-1].began >= 1.0:
            blocks.append(_Block(now))
        self._fill(blocks[-1], [_encoder.encode(sample) for sample in samples])
        while self._count > self._most or self._bytes > self._most_bytes:
            self._thin(max(blocks, key=lambda block: block.size))

    def _fill(self, block: _Block, encoded: list[bytes]) -> None:
        block.encoded += encoded
        size = sum(map(len, encoded)) + _OVERHEAD * len(encoded)
        block.size += size
        self._bytes += size
        self._count += len(encoded)

    def _forget(self, block: _Block) -> None:
        self._bytes -= block.size
        self._count -= len(block.encoded)

    def _thin(self, block: _Block) -> None:
        self._forget(block)
        kept = block.encoded[self._random.randrange(2) :: 2]
        block.encoded, block.size = [], 0
        block.thinned *= 2
        self._fill(block, [_encoder.encode(_doubled(_decoder.decode(each))) for each in kept])

    def recent(self, now: float, seconds: float = SECONDS) -> Recent:
        """The samples of the last ``seconds``."""
        since = now - min(seconds, self._seconds)
        blocks = [block for block in self._blocks if block.began >= since]
        samples = sorted(
            (_decoder.decode(each) for block in blocks for each in block.encoded),
            key=lambda sample: sample.at,
        )
        thinned = max((block.thinned for block in blocks), default=1)
        return Recent(
            samples=tuple(samples),
            represented=sum(sample.weight for sample in samples),
            since=min((block.began for block in blocks), default=now),
            how=_how(thinned),
            thinned=thinned,
        )


def _doubled(sample: Sample) -> Sample:
    return msgspec.structs.replace(sample, weight=sample.weight * 2.0)


def _how(thinned: int) -> str:
    text = (
        f"uniformly, at most {ADMITTED_PER_INTERVAL} admitted and {REFUSED_PER_INTERVAL} refused "
        "requests per worker and 200 ms, each weighted by how many it stands for"
    )
    return text if thinned == 1 else f"{text}; of busy seconds one in {thinned} was kept"
