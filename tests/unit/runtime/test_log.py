"""Log lines: one JSON object each, whatever clients put into the fields."""

from __future__ import annotations

import json
import os

from apiguard.runtime.log import MAX_FIELD, MAX_WAITING, StreamLog, line


def test_control_characters_never_reach_the_stream_raw() -> None:
    hostile = "".join(map(chr, (*range(32), 0x7F, *range(0x80, 0xA0), 0x2028)))
    data = line("info", hostile, {"agent": hostile}, 0.0)
    assert data.endswith(b"\n")
    assert all(0x20 <= byte < 0x7F for byte in data[:-1])
    assert json.loads(data)["agent"] == hostile


def test_long_fields_are_cut_and_say_so() -> None:
    record = json.loads(line("info", "m", {"agent": "x" * 70_000}, 0.0))
    assert len(record["agent"]) < MAX_FIELD + 40
    assert "70000 characters" in record["agent"]


def test_a_field_cannot_pose_as_the_level() -> None:
    record = json.loads(line("info", "m", {"level": "error", "time": "never"}, 0.0))
    assert record["level"] == "info"
    assert record["time"] == "1970-01-01T00:00:00.000Z"


def test_a_reader_that_stopped_reading_costs_lines_not_time() -> None:
    read, write = os.pipe()
    log = StreamLog(write)
    long = "x" * MAX_FIELD
    for _ in range(2 * MAX_WAITING):
        log.info(long)
    assert log.dropped > 0
    os.close(read)  # the writer wakes with an error instead of waiting for ever
    log.close()
    os.close(write)
