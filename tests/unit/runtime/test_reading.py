"""What one connection read is its own, although all read into one buffer."""

from __future__ import annotations

from apiguard.runtime.malloc import MAPPED_BYTES
from apiguard.runtime.reading import READ_BYTES, Reader

TLS_RECORD_BYTES, TLS_OVERHEAD_BYTES = 16_384, 22  # of a full record of TLS 1.3


class Kept(Reader):
    def __init__(self) -> None:
        self.read: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.read.append(data)


def read(kept: Kept, data: bytes) -> None:
    """As loops do."""
    kept.get_buffer(-1)[: len(data)] = data
    kept.buffer_updated(len(data))


def test_a_later_read_of_another_connection_leaves_what_was_read_before() -> None:
    one, other = Kept(), Kept()
    read(one, b"one's bytes")
    read(other, b"other")
    assert (one.read, other.read) == ([b"one's bytes"], [b"other"])


def test_the_longest_read_encrypted_again_is_no_mapping_of_its_own() -> None:
    records = -(-READ_BYTES // TLS_RECORD_BYTES)
    assert READ_BYTES + records * TLS_OVERHEAD_BYTES < MAPPED_BYTES
    assert len(Kept().get_buffer(-1)) == READ_BYTES
