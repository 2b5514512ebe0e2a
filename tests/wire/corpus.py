"""The wire corpus as values; its format is described in ``corpus/README.md``."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent / "corpus"

BYTEWISE_LIMIT = 16_384
"""Longer inputs are cut into 1,000 pieces rather than bytes."""


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    verdict: dict[str, Any]

    @property
    def expect(self) -> list[dict[str, Any]]:
        expected: list[dict[str, Any]] = self.verdict["expect"]
        return expected

    def __str__(self) -> str:
        return self.name


def cases(side: str) -> list[Case]:
    found = []
    for path in sorted(ROOT.rglob("*.json")):
        verdict = json.loads(path.read_text())
        if verdict["side"] == side:
            found.append(Case(str(path.relative_to(ROOT))[:-5], _data(path, verdict), verdict))
    return found


def _data(path: Path, verdict: dict[str, Any]) -> bytes:
    if "generate" not in verdict:
        return path.with_suffix(".raw").read_bytes()
    return b"".join(
        piece.encode("latin-1")
        if isinstance(piece, str)
        else piece["repeat"].encode("latin-1") * piece["times"]
        for piece in verdict["generate"]
    )


CUTS = ("whole", "bytewise", "random-1", "random-2", "random-3")


def cut(data: bytes, how: str) -> Iterator[bytes]:
    """``data`` in pieces: ``whole``, ``bytewise`` or ``random-SEED``."""
    kind, _, seed = how.partition("-")
    if kind == "whole":
        yield data
    elif kind == "bytewise":
        size = 1 if len(data) <= BYTEWISE_LIMIT else len(data) // 1000
        for at in range(0, len(data), size):
            yield data[at : at + size]
    else:
        rng = random.Random(zlib.crc32(data) + int(seed))
        places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(1, 8)))
        for start, end in zip([0, *places], [*places, len(data)], strict=True):
            yield data[start:end]
