"""The command line by the doors that are left: the host's socket, and TLS with a certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.e2e.guard import Guard, until
from tests.e2e.shell import Shell

pytestmark = pytest.mark.e2e

AGENT = "storm/1.0"
BAN = ("ban", "--user-agent", "storm/*", "--for", "5m", "--reason", "INC-7")


class Door:
    """Commands through one door of ``guard``, without a token."""

    def __init__(self, guard: Guard, *flags: str) -> None:
        self._flags = flags
        self._shell = Shell(guard)
        for name in ("SERVER", "TOKEN_FILE"):
            del self._shell.environment[f"APIGUARD_{name}"]

    def run(self, *arguments: str) -> str:
        return self._shell.run(*arguments, *self._flags)

    def fails(self, *arguments: str) -> str:
        """The one line it failed with."""
        done = self._shell.attempt(*arguments, *self._flags)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
        return done.stderr


@pytest.fixture
def guarded(guard: Guard, certificates: Certificates) -> Guard:
    """Serves on all its doors: a socket, and TLS for certificates of ``devs``."""
    server, key = (str(path) for path in certificates.server)
    guard.settings["admin"] = {
        "address": "127.0.0.1:0",
        "tls": {"certFile": server, "keyFile": key, "clientCAFile": str(certificates.authority)},
        "certificates": [{"organization": "devs", "role": "operator"}],
        "socket": {"path": "admin.sock", "mode": "0600", "role": "admin"},
    }
    guard.start()
    until("the guard reaches its upstream", lambda: guard.get().code == 200)
    return guard


def by_socket(guard: Guard) -> Door:
    return Door(guard, "--server", f"unix:{guard.directory}/admin.sock")


def by_tls(guard: Guard, authority: Path, *pair: Path) -> Door:
    host, port = guard.admin_address
    shown = ("--cert", str(pair[0]), "--key", str(pair[1])) if pair else ()
    return Door(guard, "--server", f"https://{host}:{port}", "--ca-file", str(authority), *shown)


@pytest.mark.parametrize("door", ["socket", "tls"])
def test_a_client_is_banned_and_let_in_without_any_token(
    guarded: Guard, certificates: Certificates, door: str
) -> None:
    doors: dict[str, Callable[[], Door]] = {
        "socket": lambda: by_socket(guarded),
        "tls": lambda: by_tls(guarded, certificates.authority, *certificates.client),
    }
    used = doors[door]()
    laid = used.run(*BAN).split()[0].removeprefix("override/")
    until("the ban is in force", lambda: guarded.get("/api/v1/pods", AGENT).code == 429, 1.0)
    who = used.run("whoami").splitlines()[1].rsplit(maxsplit=1)
    assert who[0].strip() in used.run("overrides")
    assert used.run("overrides", "delete", laid) == f"override/{laid} deleted\n"
    until("it is let in again", lambda: guarded.get("/api/v1/pods", AGENT).code == 200, 1.0)


def test_each_door_has_the_role_it_was_given(guarded: Guard, certificates: Certificates) -> None:
    assert by_socket(guarded).run("whoami").split()[-1] == "admin"
    tls = by_tls(guarded, certificates.authority, *certificates.client)
    assert tls.run("whoami").split()[-2:] == ["alice", "operator"]
    said = tls.fails("policy", "rollback", "--reason", "INC-7")
    assert "needs the role admin; alice has the role operator" in said


def test_without_a_certificate_the_port_lets_nobody_in(
    guarded: Guard, certificates: Certificates
) -> None:
    assert "wants a token" in by_tls(guarded, certificates.authority).fails("top")
    no_client = by_tls(guarded, certificates.authority, *certificates.server)
    assert "cannot reach" in no_client.fails("top")
