"""Whom a front proxy speaks for: what kube-apiserver derives, and what the guard's lines mean."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from apiguard.demo.apiserver import ApiServerOptions, EmbeddedApiServer
from apiguard.demo.authentication import RequestHeaders
from apiguard.demo.certs import Authority, client_context, server_context
from apiguard.wire.frontproxy import FrontProxyNames, front_proxy_lines
from tests.net.demo.raw import Answer, parse_response

NAME = "front-proxy"
REVIEW = b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'
RECORDED = Path(__file__).parents[2] / "data" / "identity.jsonl"
KINDS = ("front-proxy-headers", "headers-without-front-proxy-certificate")
ELSEWHERE = {  # lines that hold for another server, and why
    "impersonate": "the double knows no impersonation",
    "uid-header": "recorded without --requestheader-uid-headers, which the double has",
}


def recorded() -> list[Any]:
    """Header sets with the answer of a kube-apiserver to each."""
    lines = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    return [
        pytest.param(line, id=f"{line['kind']}-{line['name']}")
        for line in lines
        if line["kind"] in KINDS and line["name"] not in ELSEWHERE
    ]


@dataclass
class FrontProxy:
    """Speaks to a server, showing its certificate or none."""

    server: EmbeddedApiServer
    named: ssl.SSLContext
    nameless: ssl.SSLContext

    async def review(self, lines: bytes, *, shown: bool = True) -> Answer:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=self.named if shown else self.nameless
        )
        try:
            writer.write(
                b"POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\n"
                b"Host: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n%b\r\n%b" % (len(REVIEW), lines, REVIEW)
            )
            return parse_response(await asyncio.wait_for(reader.read(), 20))
        finally:
            writer.close()
            await writer.wait_closed()


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[FrontProxy]:
    authority, proxies = Authority("server"), Authority("proxies")
    pair = authority.server().write(tmp_path, "server")
    options = ApiServerOptions(
        tls=server_context(*pair, client_authorities=proxies.certificate),
        front_proxy=RequestHeaders((proxies.x509,), frozenset({NAME})),
    )
    server = EmbeddedApiServer(options)
    await server.start()
    named = client_context(authority.certificate)
    named.load_cert_chain(*proxies.client(NAME).write(tmp_path, "proxy"))
    yield FrontProxy(server, named, client_context(authority.certificate))
    await server.stop()


@pytest.mark.parametrize("line", recorded())
async def test_headers_make_the_user_kube_apiserver_made_of_them(
    proxy: FrontProxy, line: dict[str, Any]
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in line["headers"]).encode()
    answer = await proxy.review(lines, shown=line["kind"] == "front-proxy-headers")
    body = json.loads(answer.body)
    assert answer.code == line["status"], body
    if answer.code == 201:
        assert body["status"]["userInfo"] == line["userInfo"]
    else:
        assert body["message"] == line["message"]


@pytest.mark.parametrize(
    ("user", "groups", "uid", "extra"),
    [
        ("ada lovelace  the first", ("dev ops", "a  b"), "u i d", {"key": ("a  b", "")}),
        ("Jürgen Müß", ("вещи", "猫"), "ü", {"ключ": ("значение",)}),
        ("50%25 sure", ("100%", "%2F"), "%", {"100%": ("%",), "%2f": ("%2F",)}),
        ("a,b", ("c, d", "e"), "f,g", {"Example.com/Pod Name": ("x, y", "z")}),
        ("odd", (), "", {"UPPER:lower;(q)=\"'{}[]\\@": ("v",), "a b\tc": ("w",)}),
    ],
    ids=["inner blanks", "unicode", "percent", "commas and capitals", "delimiters"],
)
async def test_what_the_guard_writes_arrives_as_it_was(
    proxy: FrontProxy,
    user: str,
    groups: tuple[str, ...],
    uid: str,
    extra: dict[str, tuple[str, ...]],
) -> None:
    lines = front_proxy_lines(FrontProxyNames(), user, groups, uid, extra)
    answer = await proxy.review(lines)
    assert answer.code == 201, answer.body
    found = json.loads(answer.body)["status"]["userInfo"]
    assert found == {
        "username": user,
        "groups": [*groups, "system:authenticated"],
        **({"uid": uid} if uid else {}),
        "extra": {key: list(values) for key, values in extra.items()},
    }
