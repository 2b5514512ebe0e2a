"""Log lines: one JSON object each, whatever clients put into the fields."""

from __future__ import annotations

import json
import logging
import os

import pytest

from apiguard.runtime.log import MAX_FIELD, MAX_WAITING, Bridge, Field, RelayLog, StreamLog, line


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


def test_what_libraries_log_becomes_a_line_that_ends_with_the_cause() -> None:
    said: list[tuple[str, str, dict[str, Field]]] = []
    bridge = Bridge(RelayLog(lambda level, message, fields: said.append((level, message, fields))))
    logger = logging.Logger("asyncio")
    logger.addHandler(bridge)
    logger.info("chatter")
    try:
        raise ValueError("the cause")
    except ValueError:
        logger.exception("task %s failed", 7)
    ((level, message, fields),) = said
    assert (level, message) == ("error", "task 7 failed")
    assert str(fields["traceback"]).endswith("ValueError: the cause")


def test_aiohttp_is_not_let_to_quote_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logging.getLogger("aiohttp.server"), "level", logging.NOTSET)
    monkeypatch.setattr(logging.getLogger("aiohttp.web"), "level", logging.NOTSET)
    monkeypatch.setattr(root, "level", logging.WARNING)
    said: list[str] = []
    Bridge(RelayLog(lambda level, message, fields: said.append(message))).install()
    logging.getLogger("aiohttp.server").error("Bad header: Authorization: Bearer secret")
    assert said == []
