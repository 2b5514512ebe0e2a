"""Lines are whole or absent, old files leave, and the last lines come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from apiguard.runtime.linefile import LineFile


def _file(tmp_path: Path, most_bytes: int = 100) -> LineFile:
    return LineFile(tmp_path / "a.jsonl", most_bytes=most_bytes)


@pytest.mark.parametrize("torn", [b"", b"{", b"half a li", b"x" * 70_000])
def test_what_a_crash_left_of_a_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"one\n" + torn)
    file = _file(tmp_path)
    assert file.read_back(10, 1_000_000) == [b"one\n"]
    file.append(b"two\n", durable=False)
    assert (tmp_path / "a.jsonl").read_bytes() == b"one\ntwo\n"
    file.close()


def test_a_full_file_gives_way_and_four_stay(tmp_path: Path) -> None:
    file = _file(tmp_path)
    for number in range(40):
        file.append(b"%027d\n" % number, durable=False)
    file.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a.jsonl", "a.jsonl.1", "a.jsonl.2", "a.jsonl.3"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    last = [int(line) for line in _file(tmp_path).read_back(7, 10_000)]
    assert last == list(range(33, 40)), "across files, oldest first"


def test_reading_back_is_bounded_by_bytes_too(tmp_path: Path) -> None:
    file = _file(tmp_path, 10_000)
    for number in range(50):
        file.append(b"%09d\n" % number, durable=False)
    file.close()
    assert [int(line) for line in file.read_back(50, 35)] == [47, 48, 49]


def test_an_append_can_be_taken_back(tmp_path: Path) -> None:
    file = _file(tmp_path)
    file.append(b"one\n", durable=True)
    file.append(b"two\n", durable=True)
    file.undo()
    file.append(b"three\n", durable=True)
    file.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b"one\nthree\n"


def test_what_could_not_be_taken_back_is_gone_before_the_next_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _file(tmp_path)
    file.append(b"one\n", durable=False)

    def broken(_descriptor: int, _size: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.ftruncate", broken)
        file.undo()
    file.append(b"two\n", durable=False)
    file.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b"two\n"


def test_lines_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    file = _file(tmp_path)
    file.append(b"one\n", durable=False)
    file.rewrite(b"two\n")
    file.append(b"three\n", durable=False)
    file.close()
    assert (tmp_path / "a.jsonl").stat().st_mode & 0o077 == 0
    assert (tmp_path / "a.jsonl").read_bytes() == b"two\nthree\n"
