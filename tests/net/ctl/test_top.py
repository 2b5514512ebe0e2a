"""``apiguard top`` in a terminal: live figures, and a ban from there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.net.ctl.conftest import Run
from tests.net.ctl.fake import HOSTILE, FakeGuard, preview, row, status
from tests.net.ctl.terminal import PROGRAM, Terminal

MAIN_SCREEN, SHOWN_CURSOR = "\x1b[?1049l", "\x1b[?25h"


@pytest.fixture
def top(run: Run) -> Iterator[Terminal]:
    terminal = Terminal("top")
    yield terminal
    terminal.close()


def test_figures_refresh_by_themselves(top: Terminal, guard: FakeGuard) -> None:
    assert "1000 requests, 14 refused" in top.wait_for("telemetry")
    guard.routes["GET /v1/top"] = {"rows": [row("newcomer", "", 4321, new=True)], "totals": {}}
    assert "4321" in top.wait_for("newcomer")


def test_q_ends_and_leaves_the_terminal_as_it_was(top: Terminal) -> None:
    top.wait_for("telemetry")
    assert top.attributes != top.before
    top.press("q")
    assert top.end() == 0
    assert top.written.rstrip().endswith(SHOWN_CURSOR + MAIN_SCREEN)
    assert top.attributes == top.before


def test_ctrl_c_ends_it_as_well(top: Terminal) -> None:
    top.wait_for("telemetry")
    top.interrupt()
    assert top.end() == 130
    assert top.attributes == top.before


def test_keys_change_what_is_asked_for(top: Terminal, guard: FakeGuard) -> None:
    top.wait_for("by userAgent over 1m, by requests")
    top.press("s")
    top.wait_for("by userAgent over 1m, by bytes")
    top.press("w")
    top.wait_for("over 10m")
    top.press("b")
    top.wait_for("by user over 10m")
    top.wait_for("(unverified)")
    asked = [a.query for a in guard.asked if a.path == "/v1/top"]
    assert {"by": "user", "over": "10m", "sort": "bytes", "limit": "100"} in asked


def test_a_client_is_banned_after_reason_duration_preview_and_yes(
    top: Terminal, guard: FakeGuard
) -> None:
    top.wait_for("telemetry")
    top.press("B")
    top.wait_for("reason:")
    top.press("INC-7\r")
    top.wait_for("for: 30m")
    top.press("\x7f\x7f\x7f15m\r")
    shown = top.wait_for("ban for 15m? [y/N]")
    assert "would be refused: 6200 requests (31%)" in shown
    assert guard.last("POST").query == {"dryRun": "All"}
    top.press("y")
    top.wait_for("override/7f3a banned userAgents=telemetry,telemetry/*,telemetry *")
    banned = guard.last("POST")
    assert banned.query == {}
    assert banned.body == {
        "action": "ban",
        "match": {"userAgents": ["telemetry", "telemetry/*", "telemetry *"]},
        "reason": "INC-7",
        "ttlSeconds": 900,
    }


def test_no_bans_nobody(top: Terminal, guard: FakeGuard) -> None:
    top.wait_for("telemetry")
    top.press("BINC-7\r\r")
    top.wait_for("[y/N]")
    top.press("n")
    top.wait_for("not banned")
    assert all(asked.query for asked in guard.asked if asked.method == "POST")


def test_a_refused_preview_says_why(top: Terminal, guard: FakeGuard) -> None:
    guard.routes["POST /v1/overrides"] = status(403, "this needs the role operator")
    top.wait_for("telemetry")
    top.press("BINC-7\r\r")
    top.wait_for("this needs the role operator")


def test_arrows_choose_another_client(top: Terminal, guard: FakeGuard) -> None:
    rows = [row("first", "", 600), row("second", "", 300)]
    guard.routes["GET /v1/top"] = {"rows": rows, "totals": {}}
    top.wait_for("second")
    top.press("\x1b[BB")
    top.wait_for("ban userAgents=second,")


def test_what_clients_call_themselves_never_steers_the_terminal(
    top: Terminal, guard: FakeGuard
) -> None:
    guard.routes["POST /v1/overrides"] = preview(HOSTILE)
    top.wait_for("evil\\x1b]0;owned")
    top.press("jBINC-7\r\r")
    top.wait_for("evil\\x1b]0;owned\\x07\\x1b[2J\\u202eagent as (unverified)")
    top.press("n")
    top.wait_for("not banned")
    top.press("q")
    top.end()
    for steering in ("\x1b]", "\x07", "\u202e"):
        assert steering not in top.written


def test_a_guard_that_goes_away_is_reported_and_keys_still_work(
    top: Terminal, guard: FakeGuard
) -> None:
    top.wait_for("telemetry")
    guard.close()
    shown = top.wait_for("cannot reach")
    assert "telemetry" in shown
    top.press("q")
    assert top.end() == 0


def test_two_guards_rows_are_told_apart_and_both_ban(
    run_both: Run, guard: FakeGuard, second: FakeGuard
) -> None:
    second.routes["GET /v1/top"] = {"rows": [row("elsewhere", "", 9_000)], "totals": {}}
    terminal = Terminal("top")
    try:
        shown = terminal.wait_for("telemetry")
        assert shown.index("cp-2") < shown.index("elsewhere") < shown.index("telemetry")
        terminal.press("BINC-7\r\r")
        terminal.wait_for("[y/N]")
        terminal.press("y")
        terminal.wait_for("cp-2: override/7f3a banned")
        assert guard.last("POST").body == second.last("POST").body
    finally:
        terminal.close()


def test_without_a_terminal_it_prints_once(run: Run) -> None:
    for dumb in (["top"], ["top", "-o", "table"]):
        done = subprocess.run(
            [str(PROGRAM), *dumb], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert done.stdout.startswith("USER-AGENT")


def test_a_terminal_that_cannot_move_its_cursor_gets_it_once(run: Run) -> None:
    terminal = Terminal("top", term="dumb")
    try:
        assert terminal.end() == 0
        assert "\x1b" not in terminal.written
    finally:
        terminal.close()


def test_an_output_that_is_chosen_is_printed_once_in_a_terminal_too(run: Run) -> None:
    terminal = Terminal("top", "-o", "wide")
    try:
        assert terminal.end() == 0
        assert "SHARE-UPSTREAM" in terminal.written
        assert "\x1b" not in terminal.written
    finally:
        terminal.close()
