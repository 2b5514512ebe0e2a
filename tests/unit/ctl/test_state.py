"""What keys do to the live screen."""

from __future__ import annotations

from apiguard.ctl.live.keyboard import keys
from apiguard.ctl.live.state import BYS, Ban, Look, Mode, Preview, Quit, Screen, Shown, Wish


def shown(family: str, requests: int, guard: str = "g") -> Shown:
    return Shown(guard, {"key": {"userAgent": family}, "requests": requests})


def screen(*families: str) -> Screen:
    """A screen with these families, the first asking for most."""
    made = Screen()
    made.show([shown(f, 100 - i) for i, f in enumerate(families)], {}, [])
    return made


def press(on: Screen, typed: str) -> list[Wish]:
    """Presses characters; ``\\n`` is Enter, ``\\x1b`` Escape."""
    pressed = [on.press(key) for character in typed for key in keys(character.encode())]
    return [wish for wish in pressed if wish is not None]


def selected(on: Screen) -> str:
    position = on.position
    assert position is not None
    family: str = on.rows[position].row["key"]["userAgent"]
    return family


BODY = {
    "action": "ban",
    "match": {"userAgents": ["b", "b/*", "b *"]},
    "reason": "INC-7",
    "ttlSeconds": 900,
}


def test_arrows_and_letters_move_the_selection_within_the_rows() -> None:
    on = screen("a", "b", "c")
    moves = [("j", "b"), ("j", "c"), ("j", "c"), ("k", "b"), ("g", "a"), ("k", "a"), ("G", "c")]
    for key, family in moves:
        press(on, key)
        assert selected(on) == family
    on.press("up")
    assert selected(on) == "b"


def test_the_selection_stays_with_its_client_when_the_order_changes() -> None:
    on = screen("a", "b")
    press(on, "j")
    on.show([shown("b", 900), shown("a", 100)], {}, [])
    assert selected(on) == "b"


def test_a_selected_client_that_is_gone_leaves_the_first_selected() -> None:
    on = screen("a", "b")
    press(on, "j")
    on.show([shown("a", 1)], {}, [])
    assert selected(on) == "a"


def test_what_was_seen_stays_while_guards_do_not_answer() -> None:
    on = screen("a")
    on.show([], {}, ["cannot reach it"])
    assert (selected(on), on.errors) == ("a", ("cannot reach it",))


def test_s_b_and_w_change_what_is_asked_for_at_once() -> None:
    on = screen("a")
    assert [type(wish) for wish in press(on, "sbw")] == [Look, Look, Look]
    assert (on.sort, on.by, on.over, on.rows) == ("bytes", "user", "10m", ())
    press(on, "b" * len(BYS))
    assert on.by == "user"


def test_q_ends_only_while_browsing() -> None:
    on = screen("a")
    press(on, "B")
    assert press(on, "q") == []
    assert on.typed == "q"
    press(on, "\x1b")
    assert [type(wish) for wish in press(on, "q")] == [Quit]


def test_a_ban_asks_why_for_how_long_shows_the_preview_and_asks_again() -> None:
    on = screen("a", "b")
    assert press(on, "jBINC-7\n") == []
    assert on.typed == "30m"
    assert press(on, "\x7f\x7f\x7f15m\n") == [Preview(BODY)]
    on.previewed("6200 requests")
    assert (on.preview, on.question) == ("6200 requests", "ban for 15m? [y/N] ")
    assert press(on, "y") == [Ban(BODY)]
    on.banned("override/7f3a banned")
    assert (on.mode, on.message) == (Mode.BROWSE, "override/7f3a banned")


def test_anything_but_y_bans_nobody() -> None:
    for answer in ("n", "\n", "\x1b", "q", "N"):
        on = screen("a", "b")
        press(on, "jBINC-7\n\n")
        on.previewed("")
        assert press(on, answer) == []
        assert (on.mode, on.message) == (Mode.BROWSE, "not banned")


def test_a_ban_that_is_under_way_is_not_sent_twice() -> None:
    on = screen("a")
    press(on, "Bx\n\n")
    on.previewed("")
    assert len(press(on, "yyy\x1b")) == 1


def test_a_preview_that_comes_after_escape_is_ignored() -> None:
    on = screen("a")
    press(on, "Bx\n\n\x1b")
    on.previewed("late")
    assert on.mode is Mode.BROWSE


def test_the_banned_client_is_the_one_chosen_whatever_the_order_becomes() -> None:
    on = screen("a", "b")
    press(on, "jB")
    on.show([shown("b", 900), shown("a", 100), shown("c", 50)], {}, [])
    assert press(on, "INC-7\n\x7f\x7f\x7f15m\n") == [Preview(BODY)]


def test_a_ban_needs_a_reason_and_a_duration() -> None:
    on = screen("a")
    press(on, "B \n")
    assert (on.mode.value, "why" in on.message) == ("reason", True)
    press(on, "x\n0\n")
    assert (on.mode.value, "no duration" in on.message) == ("for", True)


def test_rows_that_name_nobody_cannot_be_banned() -> None:
    on = screen()
    press(on, "B")
    assert on.message == "nobody to ban"
    on.show([Shown("g", {"key": {"user": ""}, "requests": 1})], {}, [])
    press(on, "B")
    assert (on.mode, "no verified user" in on.message) == (Mode.BROWSE, True)


def test_a_failed_preview_returns_to_the_rows_with_the_reason() -> None:
    on = screen("a")
    press(on, "Bx\n\n")
    on.failed("needs the role operator")
    assert (on.mode, on.message) == (Mode.BROWSE, "needs the role operator")


def test_terminals_spell_keys_in_several_ways() -> None:
    assert keys(b"\x1b[A\x1bOBj\r\x7f\x1b[H") == ["up", "down", "j", "enter", "backspace", "home"]
    assert keys(b"\x1b") == ["escape"]
    assert keys(b"\x1b[99~\xff") == []
