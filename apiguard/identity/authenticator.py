"""Credential -> Authentication.

Order as in kube-apiserver: client certificate, bearer token, anonymous; a credential that fails
never becomes anonymous. A token the guard cannot prove is unverified, not refused: upstream stays
its judge and gets it unchanged.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass

from apiguard.errors import ConfigError, Problem
from apiguard.identity.credentials import bearer_token, websocket_token
from apiguard.kube.identity import ANONYMOUS, AUTHENTICATED_GROUP, Identity, Standing


@dataclass(frozen=True, slots=True)
class Authentication:
    """What became of a credential. ``identity`` is None exactly when the standing is UNVERIFIED."""

    standing: Standing
    identity: Identity | None


_ANONYMOUS = Authentication(Standing.ANONYMOUS, ANONYMOUS)
_UNVERIFIED = Authentication(Standing.UNVERIFIED, None)


class Authenticator:
    """Knows the static tokens. Immutable: a changed file makes a new one."""

    __slots__ = ("_tokens",)

    def __init__(self, tokens: Mapping[str, Identity] | None = None) -> None:
        self._tokens = {
            token: Authentication(Standing.VERIFIED, identity)
            for token, identity in (tokens or {}).items()
        }

    @classmethod
    def from_static_tokens(cls, text: str, name: str = "static tokens") -> Authenticator:
        """``text`` is kube-apiserver's ``--token-auth-file``. Raises ConfigError."""
        return cls(parse_static_tokens(text, name))

    def authenticate(self, authorization: bytes, websocket_protocols: bytes) -> Authentication:
        """Judges the credential a request presents; b"" for headers it lacks."""
        token = bearer_token(authorization) if authorization else None
        if token is None and websocket_protocols:
            token = websocket_token(websocket_protocols)
        if token is None:
            return _ANONYMOUS
        return self._tokens.get(token, _UNVERIFIED)


def parse_static_tokens(text: str, name: str) -> dict[str, Identity]:
    """Rows of ``token,user,uid[,"group1,group2"]`` -> identities by token.

    Source: k8s.io/apiserver/pkg/authentication/token/tokenfile/tokenfile.go, which skips rows
    with an empty token; here they are errors, like every row upstream could read differently.
    Raises ConfigError; messages never quote a token.
    """
    tokens: dict[str, Identity] = {}
    problems: list[Problem] = []
    rows = csv.reader(text.splitlines(), strict=True, skipinitialspace=True)
    try:
        for row in rows:
            if not row or row[0].lstrip().startswith("#"):
                continue
            reason = _row_problem(row, tokens)
            if reason:
                problems.append(Problem(name, rows.line_num, "", reason))
            else:
                tokens[row[0].strip()] = _row_identity(row)
    except csv.Error as error:
        problems.append(Problem(name, rows.line_num, "", str(error)))
    if problems:
        raise ConfigError(problems)
    return tokens


def _row_problem(row: list[str], seen: Mapping[str, Identity]) -> str:
    if len(row) < 3:
        return 'a row needs token,user,uid and may end with "group1,group2"'
    token, user = row[0].strip(), row[1]
    if not token:
        return "the token is empty"
    if token in seen:
        return "the token appears twice"
    names = [user, *_groups(row)]
    if any(not is_plain_name(name) for name in names):
        return "user and groups must not be empty, blank-padded or hold control characters"
    return ""


def _row_identity(row: list[str]) -> Identity:
    groups = tuple(dict.fromkeys([*_groups(row), AUTHENTICATED_GROUP]))
    return Identity(user=row[1], groups=groups, uid=row[2])


def _groups(row: list[str]) -> list[str]:
    if len(row) < 4 or not row[3]:
        return []
    return [group.strip() for group in row[3].split(",")]


def is_plain_name(name: str) -> bool:
    """Whether upstream reads this user or group name unchanged from a header."""
    return bool(name) and name == name.strip() and not any(c < " " or c == "\x7f" for c in name)
