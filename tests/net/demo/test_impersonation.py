"""Whom an impersonated request is taken for, and who may ask for it, in upstream's words."""

from __future__ import annotations

import json

import pytest

from apiguard.demo.apiserver import EmbeddedApiServer
from apiguard.demo.resources import CLUSTERROLEBINDINGS, CLUSTERROLES

from .raw import Answer, ask

REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
PODS = "/api/v1/namespaces/default/pods"


async def review(server: EmbeddedApiServer, **headers: str) -> object:
    answer = await ask(server.url, "POST", REVIEW, b"{}", "admin-token", **headers)
    return json.loads(answer.body)["status"]["userInfo"]


async def test_the_request_is_taken_for_the_user_named(server: EmbeddedApiServer) -> None:
    everybody = "system:authenticated"
    assert await review(server, Impersonate_User="bob", Impersonate_Group="g") == {
        "username": "bob",
        "groups": ["g", everybody],
    }
    account = "system:serviceaccount:shop:bot"
    groups = ["system:serviceaccounts", "system:serviceaccounts:shop", everybody]
    assert await review(server, Impersonate_User=account) == {
        "username": account,
        "groups": groups,
    }
    extra = {"Impersonate_User": "bob", "Impersonate_Uid": "u", "Impersonate_Extra_A%2Fb": "c"}
    assert await review(server, **extra) == {
        "username": "bob",
        "uid": "u",
        "groups": [everybody],
        "extra": {"a/b": ["c"]},
    }


def message(answer: Answer) -> tuple[int, str]:
    return answer.code, json.loads(answer.body)["message"]


@pytest.mark.parametrize(
    ("headers", "code", "text"),
    [
        ({"User": "bob"}, 403, 'pods is forbidden: User "bob" cannot list resource "pods"'),
        ({"User": "eve"}, 403, 'users "eve" is forbidden: User "alice" cannot impersonate'),
        ({"User": "bob", "Group": "g"}, 403, 'groups "g" is forbidden: User "alice" cannot'),
        ({"User": "bob", "Uid": "u"}, 403, 'uids.authentication.k8s.io "u" is forbidden'),
        ({"User": "bob", "Extra-k": "v"}, 403, 'impersonate resource "userextras/k" in API group'),
        ({"Group": "g"}, 400, 'requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}'),
    ],
)
async def test_only_who_may_impersonates(
    server: EmbeddedApiServer, headers: dict[str, str], code: int, text: str
) -> None:
    role = {"apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"]}
    server.create(
        CLUSTERROLES, {"metadata": {"name": "r"}, "rules": [{**role, "verbs": ["impersonate"]}]}
    )
    server.create(
        CLUSTERROLEBINDINGS,
        {
            "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "User", "name": "alice"}],
        },
    )
    named = {f"Impersonate-{name}": value for name, value in headers.items()}
    found = message(await ask(server.url, "GET", PODS, b"", "alice-token", **named))
    assert (found[0], text in found[1]) == (code, True), found
