"""The prober tells a server that answers from one that does not, and notices changes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from apiguard.errors import StartupError
from apiguard.runtime.probe import Prober
from apiguard.runtime.sockets import open_listeners, split_address


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.asynccontextmanager
async def _listening(port: int) -> AsyncIterator[None]:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def test_a_server_that_comes_and_goes_is_noticed() -> None:
    port = _free_port()
    prober = Prober([f"http://127.0.0.1:{port}"], None, "")
    usable = [prober.any_usable]
    async with _listening(port):
        await prober.round()
        usable.append(prober.any_usable)
    await prober.round()
    usable.append(prober.any_usable)
    assert usable == [False, True, False]
    assert prober.findings[0].detail


async def test_one_usable_server_is_enough() -> None:
    dead, alive = _free_port(), _free_port()
    prober = Prober([f"http://127.0.0.1:{dead}", f"http://127.0.0.1:{alive}"], None, "")
    async with _listening(alive):
        await prober.round()
    assert [finding.usable for finding in prober.findings] == [False, True]
    assert prober.any_usable


def test_several_listeners_share_one_port_and_nobody_else_gets_it() -> None:
    listeners = open_listeners("127.0.0.1:0", 3, "listen.address")
    try:
        ports = {sock.getsockname()[1] for sock in listeners}
        assert len(ports) == 1
        with pytest.raises(StartupError, match="already in use"):
            open_listeners(f"127.0.0.1:{ports.pop()}", 3, "listen.address")
    finally:
        for sock in listeners:
            sock.close()


@pytest.mark.parametrize(
    ("address", "split"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0))],
)
def test_addresses_are_split_at_the_port(address: str, split: tuple[str, int]) -> None:
    assert split_address(address, "field") == split


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:", "127.0.0.1:65536", "a:b", ":6443"])
def test_what_is_no_address_names_the_field(address: str) -> None:
    with pytest.raises(StartupError, match=r"listen\.address"):
        split_address(address, "listen.address")
