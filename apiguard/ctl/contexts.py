"""The file of contexts: which guards there are, and how to speak to them.

``$APIGUARD_CONFIG`` or ``~/.config/apiguard/config.yaml``::

    currentContext: prod
    contexts:
      - name: prod
        guards:
          - name: cp-1                        # optional: what lines are prefixed with
            server: https://10.0.0.1:7444     # or http://HOST:PORT, or unix:/PATH
            tokenFile: prod.token             # relative to this file
            caFile: admin-ca.crt
            certFile: me.crt
            keyFile: me.key
            serverName: apiguard-admin        # what the certificate must say, if not the host

The file is YAML. This module writes it as JSON, which is YAML too and is read without the YAML
library, whose import alone costs 25 ms of CPU: half of a whole command.
"""

from __future__ import annotations

import json
import os

from apiguard.ctl import TYPE_CHECKING
from apiguard.ctl.address import parse_address
from apiguard.ctl.errors import CtlError
from apiguard.ctl.hints import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VARIABLE = "APIGUARD_CONFIG"
FILE_FIELDS = ("tokenFile", "caFile", "certFile", "keyFile")
GUARD_FIELDS = ("name", "server", *FILE_FIELDS, "serverName")


class GuardEntry:
    """One guard as written: files not yet resolved. "" is absent."""

    __slots__ = ("ca_file", "cert_file", "key_file", "name", "server", "server_name", "token_file")

    def __init__(
        self,
        server: str,
        name: str = "",
        token_file: str = "",
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
        server_name: str = "",
    ) -> None:
        self.server = server
        self.name = name
        self.token_file = token_file
        self.ca_file = ca_file
        self.cert_file = cert_file
        self.key_file = key_file
        self.server_name = server_name

    def document(self) -> dict[str, str]:
        """The fields that are given, as the file names them."""
        values = {
            "name": self.name,
            "server": self.server,
            "tokenFile": self.token_file,
            "caFile": self.ca_file,
            "certFile": self.cert_file,
            "keyFile": self.key_file,
            "serverName": self.server_name,
        }
        return {key: value for key, value in values.items() if value}

    def beside(self, folder: str) -> GuardEntry:
        """The same with its files resolved against the folder the entry was written in."""

        def found(file: str) -> str:
            return os.path.join(folder, os.path.expanduser(file)) if file else ""

        return GuardEntry(
            self.server,
            self.name,
            found(self.token_file),
            found(self.ca_file),
            found(self.cert_file),
            found(self.key_file),
            self.server_name,
        )

    def at(self, server: str, name: str) -> GuardEntry:
        """Another guard with the same credentials."""
        return GuardEntry(
            server,
            name,
            self.token_file,
            self.ca_file,
            self.cert_file,
            self.key_file,
            self.server_name,
        )


class Context:
    """A name for one guard or several that are to be treated alike."""

    __slots__ = ("guards", "name")

    def __init__(self, name: str, guards: tuple[GuardEntry, ...]) -> None:
        self.name = name
        self.guards = guards

    def document(self) -> dict[str, object]:
        """As the file has it."""
        return {"name": self.name, "guards": [guard.document() for guard in self.guards]}


class Contexts:
    """The whole file. ``current`` is "" when none is chosen."""

    __slots__ = ("contexts", "current")

    def __init__(self, current: str = "", contexts: tuple[Context, ...] = ()) -> None:
        self.current = current
        self.contexts = contexts

    def document(self) -> dict[str, object]:
        """As the file has it."""
        contexts = [context.document() for context in self.contexts]
        return {"currentContext": self.current, "contexts": contexts}

    def find(self, name: str) -> Context:
        """Raises CtlError with the nearest name there is."""
        for context in self.contexts:
            if context.name == name:
                return context
        raise CtlError(
            f"there is no context {name!r}{did_you_mean(name, [c.name for c in self.contexts])}"
            "; see apiguard config get-contexts"
        )

    def having(self, context: Context) -> Contexts:
        """With this context, in place of one of its name; chosen if it is the first."""
        others = tuple(c for c in self.contexts if c.name != context.name)
        return Contexts(self.current or context.name, (*others, context))

    def without(self, name: str) -> Contexts:
        """Without this context. Raises CtlError when there is none."""
        self.find(name)
        current = "" if self.current == name else self.current
        return Contexts(current, tuple(c for c in self.contexts if c.name != name))


def config_path(environment: Mapping[str, str]) -> str:
    """Where the file is, whether it exists or not."""
    named = environment.get(VARIABLE, "")
    if named:
        return named
    base = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(base, "apiguard", "config.yaml")


def load_contexts(path: str) -> Contexts:
    """The file's contexts; none when it does not exist. Raises CtlError naming file and field."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return Contexts()
    except (OSError, UnicodeDecodeError) as error:
        raise CtlError(f"{path}: {getattr(error, 'strerror', '') or 'is not UTF-8'}") from None
    return parse_contexts(text, path)


def save_contexts(path: str, contexts: Contexts) -> None:
    """Replaces the file as a whole, readable by its owner alone. Raises CtlError."""
    fresh = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(contexts.document(), indent=2) + "\n")
        os.replace(fresh, path)
    except OSError as error:
        raise CtlError(f"cannot write {path}: {error.strerror}") from None


def parse_contexts(text: str, path: str) -> Contexts:
    """Raises CtlError naming file and field."""
    document = _document(text, path)
    if document is None:
        return Contexts()
    root = _mapping(document, path, "the file", ("currentContext", "contexts"))
    contexts = [
        _context(entry, path, f"contexts[{index}]")
        for index, entry in enumerate(_list(root.get("contexts"), path, "contexts"))
    ]
    return Contexts(_text(root, "currentContext", path, ""), tuple(contexts))


def _document(text: str, path: str) -> Any:
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            pass  # YAML's own flow style begins alike
    import yaml  # 25 ms, see above

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise CtlError(f"{path}{line}: {getattr(error, 'problem', '') or 'is no YAML'}") from None


def _context(value: Any, path: str, field: str) -> Context:
    entry = _mapping(value, path, field, ("name", "guards"))
    name = _text(entry, "name", path, field)
    if not name:
        raise CtlError(f"{path}: {field}.name: is required")
    guards = tuple(
        _guard(guard, path, f"{field}.guards[{index}]")
        for index, guard in enumerate(_list(entry.get("guards"), path, f"{field}.guards"))
    )
    if not guards:
        raise CtlError(f"{path}: {field}.guards: must list at least one guard")
    return Context(name, guards)


def _guard(value: Any, path: str, field: str) -> GuardEntry:
    entry = _mapping(value, path, field, GUARD_FIELDS)
    texts = {key: _text(entry, key, path, field) for key in GUARD_FIELDS}
    try:
        parse_address(texts["server"])
    except ValueError as error:
        raise CtlError(f"{path}: {field}.server: {error}") from None
    return GuardEntry(
        server=texts["server"],
        name=texts["name"],
        token_file=texts["tokenFile"],
        ca_file=texts["caFile"],
        cert_file=texts["certFile"],
        key_file=texts["keyFile"],
        server_name=texts["serverName"],
    )


def _mapping(value: Any, path: str, field: str, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CtlError(f"{path}: {field}: must be a mapping")
    for key in value:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise CtlError(f"{path}: {field}: has no field {str(key)[:64]!r}{hint}")
    return value


def _list(value: Any, path: str, field: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise CtlError(f"{path}: {field}: must be a list")
    return value


def _text(entry: dict[str, Any], key: str, path: str, field: str) -> str:
    value = entry.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CtlError(f"{path}: {field}.{key}: must be text")
    return value
