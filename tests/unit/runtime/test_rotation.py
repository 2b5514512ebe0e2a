"""Files that change: what is good is used, what is broken keeps what was good and is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from apiguard.demo.certs import Authority
from apiguard.errors import ConfigError, StartupError
from apiguard.policy.config import (
    AdminConfig,
    GuardConfig,
    ListenConfig,
    TlsConfig,
    UpstreamConfig,
)
from apiguard.policy.identityconfig import CredentialsConfig, FrontProxyConfig, IdentityConfig
from apiguard.runtime.files import (
    CLIENT_CA,
    FRONT_PROXY_CERT,
    FRONT_PROXY_KEY,
    OWN_TOKEN,
    SERVING_CERT,
    SERVING_KEY,
    STATIC_TOKENS,
    UPSTREAM_CA,
    File,
)
from apiguard.runtime.rotation import Rotation, own_token

AUTHORITY = Authority("rotation tests")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every file a guard can be told to follow."""
    AUTHORITY.server().write(tmp_path, "serving")
    AUTHORITY.client("proxy").write(tmp_path, "proxy")
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.certificate)
    (tmp_path / "own-token").write_text("own\n")
    (tmp_path / "tokens.csv").write_text("t,user,1\n")
    return tmp_path


def config_in(folder: Path) -> GuardConfig:
    def at(name: str) -> str:
        return str(folder / name)

    return GuardConfig(
        listen=ListenConfig("", TlsConfig(at("serving.crt"), at("serving.key"), at("ca.crt"))),
        upstream=UpstreamConfig(
            ("https://a",),
            ca_file=at("ca.crt"),
            front_proxy=FrontProxyConfig(at("proxy.crt"), at("proxy.key")),
            credentials=CredentialsConfig(token_file=at("own-token")),
        ),
        admin=AdminConfig("", ""),
        state_dir="",
        policy_file="",
        identity=IdentityConfig(static_tokens_file=at("tokens.csv")),
    )


@pytest.fixture
def rotation(folder: Path) -> Rotation:
    made = Rotation(config_in(folder))
    made.load()
    return made


def test_what_did_not_change_is_not_reported(rotation: Rotation, folder: Path) -> None:
    (folder / "tokens.csv").write_text("t,user,1\n")
    assert rotation.look() == {}
    assert rotation.problems == {}


def test_a_pair_changes_together(rotation: Rotation, folder: Path) -> None:
    new = AUTHORITY.client("proxy")
    new.write(folder, "proxy")
    changed = rotation.look()
    assert changed.keys() == {FRONT_PROXY_CERT, FRONT_PROXY_KEY}
    assert rotation.files[FRONT_PROXY_KEY].data == new.key
    assert rotation.look() == {}


def test_half_a_pair_keeps_the_old_one_until_the_other_half_is_there(
    rotation: Rotation, folder: Path
) -> None:
    old = dict(rotation.files)
    new = AUTHORITY.server()
    (folder / "serving.crt").write_bytes(new.certificate)
    assert rotation.look() == {}
    assert rotation.files == old
    assert "the key does not belong to the certificate" in rotation.problems[SERVING_CERT]
    assert str(folder / "serving.key") in rotation.problems[SERVING_CERT]
    (folder / "serving.key").write_bytes(new.key)
    assert rotation.look().keys() == {SERVING_CERT, SERVING_KEY}
    assert rotation.problems == {}


@pytest.mark.parametrize(
    ("name", "setting", "content"),
    [
        ("ca.crt", CLIENT_CA, b"no certificate"),
        ("proxy.key", FRONT_PROXY_CERT, b""),
        ("own-token", OWN_TOKEN, b"two words"),
        ("own-token", OWN_TOKEN, b"\xff"),
        ("tokens.csv", STATIC_TOKENS, b"t,user\n"),
        ("tokens.csv", STATIC_TOKENS, b"\xff"),
    ],
)
def test_a_broken_file_keeps_what_was_good_and_holds_up_no_other(
    rotation: Rotation, folder: Path, name: str, setting: str, content: bytes
) -> None:
    old = rotation.files[setting]
    (folder / name).write_bytes(content)
    AUTHORITY.server().write(folder, "serving")
    assert rotation.look().keys() == {SERVING_CERT, SERVING_KEY}
    assert rotation.files[setting] == old
    assert setting in rotation.problems


def test_a_file_that_vanishes_is_broken_and_is_counted_once(
    rotation: Rotation, folder: Path
) -> None:
    (folder / "own-token").unlink()
    for _ in range(3):
        assert rotation.look() == {}
    assert "No such file" in rotation.problems[OWN_TOKEN]
    assert rotation.rejected == 1


def test_a_bad_file_at_the_start_is_an_error(folder: Path) -> None:
    (folder / "proxy.key").write_bytes(AUTHORITY.client("other").key)
    with pytest.raises(StartupError, match=r"upstream\.frontProxy .*does not belong"):
        Rotation(config_in(folder)).load()
    AUTHORITY.client("proxy").write(folder, "proxy")
    (folder / "tokens.csv").write_text("t,user\n")
    with pytest.raises(ConfigError):
        Rotation(config_in(folder)).load()


def test_every_certificate_in_use_has_its_expiry(rotation: Rotation, folder: Path) -> None:
    (folder / "ca.crt").write_bytes(AUTHORITY.certificate + Authority("old", days=1).certificate)
    short = AUTHORITY.server(days=2)
    short.write(folder, "serving")
    rotation.look()
    names = [expiry.name for expiry in rotation.expiries]
    assert names.count(CLIENT_CA) == 2
    assert set(names) == {CLIENT_CA, SERVING_CERT, UPSTREAM_CA, FRONT_PROXY_CERT}
    serving = next(e for e in rotation.expiries if e.name == SERVING_CERT)
    assert serving.not_after == min(
        e.not_after for e in rotation.expiries if e.name in (SERVING_CERT, FRONT_PROXY_CERT)
    )


def test_nothing_configured_is_nothing_to_follow(folder: Path) -> None:
    config = replace(
        config_in(folder),
        listen=ListenConfig(""),
        upstream=UpstreamConfig(("http://a",)),
        identity=IdentityConfig(),
    )
    rotation = Rotation(config)
    rotation.load()
    assert (rotation.look(), rotation.files, rotation.expiries) == ({}, {}, ())


def test_keys_and_tokens_stay_out_of_what_is_printed() -> None:
    file = File("/etc/apiguard/own-token", b"secret")
    assert "secret" not in repr(file)
    assert own_token({OWN_TOKEN: file}) == "secret"
