"""The file of contexts: what it may say, and how it is kept."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from apiguard.ctl.contexts import (
    Context,
    Contexts,
    GuardEntry,
    config_path,
    load_contexts,
    parse_contexts,
    save_contexts,
)
from apiguard.ctl.errors import CtlError

WRITTEN = """\
currentContext: prod
contexts:
  - name: prod
    guards:
      - {name: cp-1, server: "https://10.0.0.1:7444", tokenFile: prod.token, caFile: /etc/ca.crt}
      - {server: "unix:/run/apiguard/admin.sock"}
"""


def test_yaml_written_by_hand_is_read() -> None:
    contexts = parse_contexts(WRITTEN, "config.yaml")
    first, second = contexts.find("prod").guards
    assert contexts.current == "prod"
    assert (first.name, first.token_file) == ("cp-1", "prod.token")
    assert second.server == "unix:/run/apiguard/admin.sock"


def test_files_are_found_beside_the_file_that_names_them() -> None:
    entry = parse_contexts(WRITTEN, "config.yaml").find("prod").guards[0].beside("/home/me")
    assert (entry.token_file, entry.ca_file) == ("/home/me/prod.token", "/etc/ca.crt")


def test_what_is_saved_is_loaded_again_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "config.yaml"
    contexts = Contexts(
        "a", (Context("a", (GuardEntry("unix:/x", "n", "t", "c", "d", "e", "f"),)),)
    )
    save_contexts(str(path), contexts)
    assert load_contexts(str(path)).document() == contexts.document()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["config.yaml"]


def test_no_file_is_no_contexts(tmp_path: Path) -> None:
    assert not load_contexts(str(tmp_path / "none")).contexts


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("- a", "the file: must be a mapping"),
        ("contexs: []", "did you mean 'contexts'"),
        ("contexts: 1", "contexts: must be a list"),
        ("contexts: [{guards: []}]", "contexts[0].name: is required"),
        ("contexts: [{name: a}]", "contexts[0].guards: must list at least one"),
        ("contexts: [{name: a, guards: [{server: x}]}]", "contexts[0].guards[0].server"),
        ("contexts: [{name: a, guards: [{server: 1}]}]", "server: must be text"),
        ("a: [", "config.yaml:1"),
    ],
)
def test_a_mistake_is_named_with_file_and_field(text: str, field: str) -> None:
    with pytest.raises(CtlError) as raised:
        parse_contexts(text, "config.yaml")
    assert field in str(raised.value)
    assert str(raised.value).startswith("config.yaml")


def test_the_first_context_becomes_current_and_a_deleted_one_ceases_to_be() -> None:
    contexts = Contexts().having(Context("a", (GuardEntry("unix:/x"),)))
    assert contexts.current == "a"
    assert contexts.without("a").document() == Contexts().document()
    with pytest.raises(CtlError, match="did you mean 'a'"):
        contexts.find("aa")


def test_the_environment_says_where_the_file_is() -> None:
    assert config_path({"APIGUARD_CONFIG": "/x"}) == "/x"
    assert config_path({"XDG_CONFIG_HOME": "/home/me/conf"}) == "/home/me/conf/apiguard/config.yaml"
