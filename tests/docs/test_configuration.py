"""``docs/configuration.md`` is what the parsers ask for, and says what each key means."""

from __future__ import annotations

import re

import pytest

from apiguard.errors import ConfigError
from apiguard.policy.config import parse_config
from apiguard.policy.fields import Section
from tests.docs.reference import GUARD, TARGET, keys_of, page, undescribed


def test_the_reference_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == page(), "run python -m tests.docs.reference"


def test_the_example_names_every_setting() -> None:
    """Given or commented out: what is not there is not found."""
    example = (TARGET.parents[1] / "config" / "guard.yaml").read_text(encoding="utf-8")
    settings = page().partition("## ThrottlePolicy")[0]
    keys = set(re.findall(r"^\| `(\w+)(?:\[\])?`", settings, re.MULTILINE))
    assert {key for key in keys if not re.search(rf"\b{key}\b", example)} == set()


def test_every_key_says_what_it_means() -> None:
    assert undescribed() == []


def test_the_reference_finds_what_is_nested_deeply() -> None:
    kind, parse = GUARD
    document = {"apiVersion": "apiguard.io/v1alpha1", "kind": kind}
    found = keys_of(lambda text: parse(text, "reference"), document)
    assert "prefix" in found["identity.jwt[].claimMappings.username"]
    assert found["bounds"]["drainSeconds"].default == "`60`"


def test_parsers_are_as_before_afterwards() -> None:
    before = Section.text
    page()
    assert Section.text is before
    with pytest.raises(ConfigError):
        parse_config("{}", "empty")
