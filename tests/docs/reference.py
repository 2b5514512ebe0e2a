"""Writes ``docs/configuration.md``: every key the parsers of configuration and policy ask for.

    python -m tests.docs.reference      # writes the file; a test holds it current

The parsers themselves are the source. They are given documents without any value while what they
ask a section for is taken down, with bounds and defaults; sections asked for are added to the
document, until nothing new is asked for. Only what a key means comes from elsewhere: the sentence
under the field of the dataclass it is read into, or ``SENTENCES`` where there is no such field.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import enum
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from apiguard.errors import ConfigError
from apiguard.policy import (
    adminconfig,
    config,
    identityconfig,
    operatorconfig,
    overrides,
    relayconfig,
    schema,
    tlsconfig,
)
from apiguard.policy.fields import API_VERSION, Section

TARGET = Path(__file__).parents[2] / "docs" / "configuration.md"
REQUIRED = "required"

MODULES: tuple[ModuleType, ...] = (
    config, tlsconfig, adminconfig, identityconfig, operatorconfig, relayconfig, schema, overrides,
)  # fmt: skip

CLASSES = {
    "GuardConfig": {
        "": "GuardConfig",
        "listen": "ListenConfig",
        "listen.tls": "TlsConfig",
        "listen.proxyProtocol": "ListenConfig",
        "upstream": "UpstreamConfig",
        "upstream.frontProxy": "FrontProxyConfig",
        "upstream.credentials": "CredentialsConfig",
        "identity": "IdentityConfig",
        "identity.jwt[]": "JwtConfig",
        "identity.tokenReview": "TokenReviewConfig",
        "admin": "AdminConfig",
        "admin.tokens[]": "TokenConfig",
        "admin.certificates[]": "CertificateConfig",
        "admin.socket": "SocketConfig",
        "admin.tls": "TlsConfig",
        "overrides": "OverridesConfig",
        "observability": "ObservabilityConfig",
        "relay": "RelayConfig",
        "relay.resources[]": "RelayedResource",
        "relay.authorization": "RelayAuthorization",
        "bounds": "RequestBounds ConnectionBounds UpstreamBounds IdentityBounds ProcessBounds",
    },
    "ThrottlePolicy": {
        "": "PolicyDocument",
        "rules[]": "RuleDocument",
        "rules[].match": "Match",
        "rules[].match.listShape": "ListShapeMatch",
        "rules[].limits[]": "LimitDocument BucketSpec",
        "default": "RuleDocument",
    },
    "Override": {"": "Override OverrideRequest"},
}
"""Into which dataclasses a section is read. Where none is named, ``SENTENCES`` says it all."""

SENTENCES: dict[str, str] = json.loads(
    Path(__file__).with_name("sentences.json").read_text(encoding="utf-8")
)
"""By ``Kind:path.key``; they go before what a dataclass says."""


@dataclass(frozen=True, slots=True)
class Key:
    """One thing a parser asks a section for; ``default`` is "" when there is none."""

    name: str
    value: str
    default: str
    nested: bool = False


Sections = dict[str, dict[str, Key]]


def keys_of(parse: Callable[[str], object], document: dict[str, Any]) -> Sections:
    """Every section and key that ``parse`` asks for, beginning with ``document``."""
    found: Sections = {}
    while True:
        before = sum(map(len, found.values()))
        with recording(found), contextlib.suppress(ConfigError):
            parse(json.dumps(document))
        for path, keys in found.items():
            for key in keys.values():
                if key.nested:
                    _add(document, path, key)
        if sum(map(len, found.values())) == before:
            return found


def _add(document: dict[str, Any], path: str, key: Key) -> None:
    """An empty section where one was asked for."""
    where: Any = document
    for step in filter(None, path.split(".")):
        where = where[step.removesuffix("[]")]
        where = where[0] if step.endswith("[]") else where
    where.setdefault(key.name.removesuffix("[]"), [{}] if key.name.endswith("[]") else {})


@contextlib.contextmanager
def recording(found: Sections) -> Iterator[None]:
    """Takes down what sections are asked for, while they answer as ever."""
    kept = {name: getattr(Section, name) for name in READERS}

    def recorded(name: str, read: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(read)

        def asked(self: Section, *given: Any, **named: Any) -> Any:
            bound = signature.bind(self, *given, **named)
            bound.apply_defaults()
            key = READERS[name](bound.arguments)
            path = re.sub(r"\[\d+\]", "[]", self.path)
            found.setdefault(path, {}).setdefault(key.name, key)
            return read(self, *given, **named)

        return asked

    try:
        for name, read in kept.items():
            setattr(Section, name, recorded(name, read))
        yield
    finally:
        for name, read in kept.items():
            setattr(Section, name, read)


def _text(asked: dict[str, Any]) -> Key:
    default = REQUIRED if asked["default"] is None else _written(asked["default"])
    return Key(asked["key"], "text", default)


def _number(asked: dict[str, Any]) -> Key:
    default = REQUIRED if asked["default"] is None else _written(asked["default"])
    return Key(asked["key"], f"{_bound(asked['least'])} to {_bound(asked['most'])}", default)


def _choice(asked: dict[str, Any]) -> Key:
    return Key(asked["key"], _names(asked["of"]), _written(asked["default"].value))


def _names(of: type[enum.Enum]) -> str:
    return ", ".join(f"`{member.value}`" for member in of)


def _bound(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 or not value else f"{value:g}"


def _written(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`" if value != "" else ""


READERS: dict[str, Callable[[dict[str, Any]], Key]] = {
    "text": _text,
    "optional_text": lambda asked: Key(asked["key"], "text", ""),
    "number": _number,
    "integer": _number,
    "boolean": lambda asked: Key(asked["key"], "`true` or `false`", ""),
    "choice": _choice,
    "texts": lambda asked: Key(asked["key"], "list of text", ""),
    "choices": lambda asked: Key(asked["key"], f"list of {_names(asked['of'])}", ""),
    "section": lambda asked: Key(asked["key"], "section", "", nested=True),
    "sections": lambda asked: Key(asked["key"] + "[]", "list of sections", "", nested=True),
}


# -- what keys mean


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a dataclass: the sentence under it, and its default."""

    sentence: str
    default: str


def fields_of(name: str) -> dict[str, Field]:
    """By the name in lower case without underscores, in which files and code agree."""
    (found,) = {vars(module)[name] for module in MODULES if name in vars(module)}
    (tree,) = ast.parse(inspect.getsource(found)).body
    assert isinstance(tree, ast.ClassDef)
    sentences: dict[str, str] = {}
    for field, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            text = str(after.value.value) if said else ""  # type: ignore[union-attr]  # that is what said is
            sentences[field.target.id] = inspect.cleandoc(text)
    return {
        field.name.replace("_", ""): Field(sentences.get(field.name, ""), _default(field))
        for field in dataclasses.fields(found)
    }


def _default(field: dataclasses.Field[Any]) -> str:
    plain = isinstance(field.default, bool | int | str) and field.default != ""
    if isinstance(field.default, tuple) and field.default and isinstance(field.default[0], str):
        return ", ".join(f"`{one}`" for one in field.default)
    return _written(field.default) if plain else ""


def described(kind: str, path: str, key: Key) -> tuple[str, str]:
    """What a key means, and its default; the sentence is "" when nobody says it."""
    sentence, default = SENTENCES.get(f"{kind}:{path}.{key.name}".replace(":.", ":"), ""), ""
    for name in CLASSES[kind].get(path, "").split():
        field = fields_of(name).get(key.name.removesuffix("[]").lower())
        if field is not None:
            sentence, default = sentence or field.sentence, default or field.default
    return " ".join(sentence.replace("``", "`").split()), key.default or default


# -- the page

GUARD = "GuardConfig", config.parse_config
POLICY = "ThrottlePolicy", schema.parse_policy
SKIPPED = frozenset({"apiVersion", "kind"})

HEAD = """\
# Configuration

<!-- Written by `python -m tests.docs.reference`; a test holds it current. -->

A guard reads two files: its own settings, a `GuardConfig`, and a `ThrottlePolicy`, which can be
replaced while it runs. Both are one YAML document (1.2's plain values; no anchors, tags or merge
keys) that begins with

```yaml
apiVersion: {version}
kind: GuardConfig
```

Unknown and repeated keys are errors. File names are relative to the configuration's directory.
`apiguard check FILE...` names every problem with its line. [`config/`](../config) holds commented
examples, [cookbook.md](cookbook.md) policies for purposes.

A section marked `[]` is a list of such sections.
"""


def page() -> str:
    """The whole file."""
    parts = [HEAD.format(version=API_VERSION)]
    for kind, parse in (GUARD, POLICY):
        found = keys_of(lambda text, parse=parse: parse(text, "reference"), _head(kind))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        parts.append(_chapter(kind, found))
    over = keys_of(lambda text: overrides.read_override(text, "reference"), {"action": "limit"})
    parts.append(_chapter("Override", {"": over[""]}))
    return "\n".join(parts)


def _head(kind: str) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind}


TITLES = {
    "Override": "Override: the body of `POST /v1/overrides`\n\nLaid over the policy for a while, by"
    " `apiguard ban`, `limit`, `scale` and `exempt`. `match` and `limits` are those of a rule.",
}


def _chapter(kind: str, found: Sections) -> str:
    lines = [f"## {TITLES.get(kind, kind)}", ""]
    for path in _in_reading_order(found):
        keys = found[path]
        if path:
            lines += [f"### `{path}`", ""]
        lines += ["| Key | Value | Default | Meaning |", "|---|---|---|---|"]
        for key in keys.values():
            if key.name not in SKIPPED:
                sentence, default = described(kind, path, key)
                value = key.value.replace("|", "\\|")
                lines.append(f"| `{key.name}` | {value} | {default} | {sentence} |")
        lines.append("")
    return "\n".join(lines)


def _in_reading_order(found: Sections, path: str = "") -> Iterator[str]:
    """Each section followed by those within it."""
    yield path
    for key in found[path].values():
        within = f"{path}.{key.name}".removeprefix(".")
        if key.nested and within in found:
            yield from _in_reading_order(found, within)


def undescribed() -> list[str]:
    """Keys nobody says a sentence about."""
    return re.findall(r"^\| `(\S+)` \|.*\|  \|$", page(), re.MULTILINE)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    sys.exit(0)
