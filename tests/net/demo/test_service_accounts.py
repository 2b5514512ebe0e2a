"""Service-account tokens: published keys verify them, and they end with what they are bound to."""

from __future__ import annotations

import json
from typing import Any

import jwt

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.resources import PODS, SERVICEACCOUNTS

from .raw import ask
from .test_watch import pod

ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/bot"
SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
ADMIN = "admin-token"


async def issued(server: EmbeddedApiServer, **spec: object) -> str:
    body = json.dumps({"spec": spec}).encode()
    answer = await ask(server.url, "POST", f"{ACCOUNT}/token", body, ADMIN)
    assert answer.code == 201, answer.body
    token: str = json.loads(answer.body)["status"]["token"]
    return token


async def whoami(server: EmbeddedApiServer, token: str) -> tuple[int, dict[str, Any]]:
    answer = await ask(server.url, "POST", SELF, b"{}", token)
    value = json.loads(answer.body)
    return answer.code, value["status"]["userInfo"] if answer.code == 201 else {}


async def test_published_keys_verify_what_was_issued(server: EmbeddedApiServer) -> None:
    server.create(SERVICEACCOUNTS, {"metadata": {"name": "bot"}}, "default")
    token = await issued(server)
    answer = await ask(server.url, "GET", "/openid/v1/jwks", b"", ADMIN)
    assert answer.values("Cache-Control") == ["public, max-age=3600"]
    assert answer.value("Content-Type") == "application/jwk-set+json"
    keys = jwt.PyJWKSet.from_dict(json.loads(answer.body))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, ["RS256"], audience="https://kubernetes.default.svc")
    assert claims["sub"] == "system:serviceaccount:default:bot"
    assert (await ask(server.url, "GET", "/openid/v1/jwks")).code == 403
    assert (await ask(server.url, "GET", "/openid/v1/jwks", b"", token)).code == 200


async def test_a_token_names_its_account_and_ends_with_it(server: EmbeddedApiServer) -> None:
    server.create(SERVICEACCOUNTS, {"metadata": {"name": "bot"}}, "default")
    made = server.create(PODS, pod("p"), "default")
    bound = await issued(server, boundObjectRef={"kind": "Pod", "name": "p"})
    code, user = await whoami(server, bound)
    assert (code, user["username"]) == (201, "system:serviceaccount:default:bot")
    family = "system:serviceaccounts"
    assert user["groups"] == [family, f"{family}:default", "system:authenticated"]
    assert user["extra"]["authentication.kubernetes.io/pod-uid"] == [made["metadata"]["uid"]]
    free = await issued(server)
    await ask(server.url, "DELETE", "/api/v1/namespaces/default/pods/p", b"", ADMIN)
    assert (await whoami(server, bound))[0] == 401
    assert (await whoami(server, free))[0] == 201
    await ask(server.url, "DELETE", ACCOUNT, b"", ADMIN)
    server.create(SERVICEACCOUNTS, {"metadata": {"name": "bot"}}, "default")
    assert (await whoami(server, free))[0] == 401


async def test_a_token_for_others_is_none_here_and_reviews_know_for_whom(
    server: EmbeddedApiServer,
) -> None:
    server.create(SERVICEACCOUNTS, {"metadata": {"name": "bot"}}, "default")
    token = await issued(server, audiences=["vault"])
    assert (await whoami(server, token))[0] == 401
    for audiences, good in ((["vault"], True), ([], False)):
        body = {"spec": {"token": token, "audiences": audiences}}
        answer = await ask(
            server.url, "POST", "/apis/authentication.k8s.io/v1/tokenreviews",
            json.dumps(body).encode(), ADMIN,
        )  # fmt: skip
        assert json.loads(answer.body)["status"].get("authenticated", False) is good
    expired = await issued(server, expirationSeconds=-1)
    assert (await whoami(server, expired))[0] == 401
