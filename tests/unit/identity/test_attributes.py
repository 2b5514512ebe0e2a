"""What is asked about a caller and a request, and that nothing of it is missing in the key."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiguard.identity.accessreview import Unknown
from apiguard.identity.attributes import (
    IMPERSONATION,
    LONGEST_ATTRIBUTES,
    OVERSIZED,
    UNCLEAR,
    UNPROVEN,
    Question,
    Questions,
    attribute_members,
    question_of,
    subject_members,
)
from apiguard.identity.forbidden import forbidden_status
from apiguard.identity.proof import Proof, Trust
from apiguard.kube.identity import ANONYMOUS, Caller, Identity, Standing
from apiguard.kube.requestinfo import RequestInfo, parse_request
from apiguard.kube.status import Representation
from tests.unit.identity.recorded import DATA

ALICE = Identity("alice", ("devs", "system:authenticated"), "u1", {"b": ("2",), "a": ("1", "0")})


def caller(identity: Identity | None = ALICE, impersonated: str | None = None) -> Caller:
    standing = Standing.UNVERIFIED if identity is None else Standing.VERIFIED
    return Caller(standing, identity, "", "", "192.0.2.1", "192.0.2.1", None, impersonated)


def asked(target: str, identity: Identity = ALICE, *, ignore_extra: bool = False) -> dict[str, Any]:
    found = Questions(ignore_extra=ignore_extra).of(
        caller(identity), Proof.CERTIFICATE, parse_request("GET", target), reachable=True
    )
    assert isinstance(found, Question)
    spec = json.loads(found.body)["spec"]
    assert isinstance(spec, dict)
    return spec


def recorded_body(name: str) -> Any:
    raw = (DATA / "exchanges" / f"{name}.request").read_bytes()
    return json.loads(raw.partition(b"\r\n\r\n")[2] or raw.partition(b"\n\n")[2])


def test_a_watch_by_node_is_asked_about_with_its_requirements() -> None:
    node = Identity("system:node:node1", ("system:nodes", "system:authenticated"))
    expected = recorded_body("sar-node-watch-pods-own-node-selector")["spec"]
    expected["resourceAttributes"]["version"] = "v1"
    assert asked("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dnode1", node) == expected


def test_every_part_of_user_and_request_is_asked_about() -> None:
    spec = asked(
        "/apis/apps/v1/namespaces/ns/deployments?fieldSelector=metadata.name%3Dd,x!=y"
        "&labelSelector=a=b,c%20in%20(e,d),f!=g,h,!i"
    )
    assert spec == {
        "user": "alice",
        "groups": ["devs", "system:authenticated"],
        "uid": "u1",
        "extra": {"a": ["1", "0"], "b": ["2"]},
        "resourceAttributes": {
            "namespace": "ns",
            "verb": "list",
            "group": "apps",
            "version": "v1",
            "resource": "deployments",
            "name": "d",
            "fieldSelector": {
                "requirements": [
                    {"key": "metadata.name", "operator": "In", "values": ["d"]},
                    {"key": "x", "operator": "NotIn", "values": ["y"]},
                ]
            },
            "labelSelector": {
                "requirements": [
                    {"key": "a", "operator": "In", "values": ["b"]},
                    {"key": "c", "operator": "In", "values": ["d", "e"]},
                    {"key": "f", "operator": "NotIn", "values": ["g"]},
                    {"key": "h", "operator": "Exists"},
                    {"key": "i", "operator": "DoesNotExist"},
                ]
            },
        },
    }


def test_a_path_that_is_no_resource_is_asked_about_as_path() -> None:
    assert asked("/version")["nonResourceAttributes"] == {"path": "/version", "verb": "get"}


def test_a_label_order_goes_as_text_rather_than_being_left_out() -> None:
    spec = asked("/api/v1/pods?labelSelector=a%3E5,b")
    assert spec["resourceAttributes"]["labelSelector"] == {"rawSelector": "a>5,b"}


def test_selectors_that_mean_the_same_are_one_question() -> None:
    assert asked("/api/v1/pods?labelSelector=a!=b,c=d") == asked(
        "/api/v1/pods?labelSelector=c+in+(d),a+notin+(b)"
    )


def test_the_order_of_extra_means_nothing() -> None:
    assert list(ALICE.extra) == ["b", "a"]
    sorted_ = dataclasses.replace(ALICE, extra=dict(sorted(ALICE.extra.items())))
    assert subject_members(sorted_) == subject_members(ALICE)


def test_extra_is_left_out_only_where_the_operator_says_so() -> None:
    assert "extra" not in asked("/api/v1/pods", ignore_extra=True)
    assert asked("/api/v1/pods", ignore_extra=True)["uid"] == "u1"


def test_pods_of_one_account_share_a_question_only_without_extra() -> None:
    info = parse_request("GET", "/api/v1/pods")
    pods = [dataclasses.replace(ALICE, extra={"pod": (name,)}) for name in ("p", "q")]
    for ignored in (False, True):
        questions = Questions(ignore_extra=ignored)
        keys = {
            key_of(questions.of(caller(pod), Proof.CONFIRMED, info, reachable=True)) for pod in pods
        }
        assert len(keys) == (1 if ignored else 2)


def key_of(found: Question | Unknown) -> bytes:
    assert isinstance(found, Question)
    return found.key


def test_the_remembered_halves_make_the_question_that_fresh_ones_make() -> None:
    questions, who = Questions(), caller()
    info = parse_request("GET", "/api/v1/pods?labelSelector=a")
    found = [questions.of(who, Proof.CONFIRMED, info, reachable=True) for _ in range(2)]
    assert (
        found[0]
        == found[1]
        == question_of("alice", subject_members(ALICE), attribute_members(info))
    )


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/api/v1/pods?fieldSelector=a", UNCLEAR),
        ("/api/v1/pods?labelSelector=a%20b", UNCLEAR),
        ("/api/v1/pods?fieldSelector=metadata.namespace=%FF", UNCLEAR),
        ("/api/v1/pods?fieldSelector=a=" + "b" * LONGEST_ATTRIBUTES, OVERSIZED),
    ],
)
def test_what_cannot_be_asked_exactly_is_not_asked(target: str, why: Unknown) -> None:
    info = parse_request("GET", target)
    assert Questions().of(caller(), Proof.CERTIFICATE, info, reachable=True) is why


def test_a_user_json_cannot_carry_is_not_asked_about() -> None:
    info = parse_request("GET", "/api/v1/pods")
    for user in ("\ud83d\ude00", "a\ufffd"):
        who = caller(Identity(user))
        assert Questions().of(who, Proof.CONFIRMED, info, reachable=True) is UNCLEAR


def test_impersonation_is_never_judged_here() -> None:
    info = parse_request("GET", "/api/v1/pods")
    for user in ("bob", ""):
        found = Questions().of(caller(impersonated=user), Proof.CERTIFICATE, info, reachable=True)
        assert found is IMPERSONATION


@pytest.mark.parametrize("local_tokens", [False, True])
@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize("reachable", [False, True])
def test_only_what_upstream_would_believe_is_judged(
    local_tokens: bool, anonymous: bool, reachable: bool
) -> None:
    questions = Questions(trust=Trust(local_tokens, anonymous))
    info = parse_request("GET", "/api/v1/pods")
    judged = {
        proof
        for proof in Proof
        if isinstance(questions.of(caller(ANONYMOUS), proof, info, reachable=reachable), Question)
    }
    expected = {Proof.CERTIFICATE, Proof.CONFIRMED}
    if local_tokens and not reachable:
        expected.add(Proof.LOCAL)
    if anonymous:
        expected.add(Proof.ANONYMOUS)
    assert judged == expected


def test_nobody_is_judged_without_an_identity() -> None:
    info = parse_request("GET", "/api/v1/pods")
    assert Questions().of(caller(None), Proof.CERTIFICATE, info, reachable=True) is UNPROVEN


def test_a_question_shows_nothing_of_itself() -> None:
    found = question_of("alice", subject_members(ALICE), b"")
    assert "alice" not in repr(found)


# -- the key -----------------------------------------------------------------------------------

_texts = st.text(st.sampled_from('ab",:{}[]\\é='), max_size=3)
_identities = st.builds(
    Identity,
    _texts.map(lambda text: "u" + text),
    st.lists(_texts, max_size=3).map(tuple),
    _texts,
    st.dictionaries(_texts, st.lists(_texts, max_size=2).map(tuple), max_size=2),
)
_BASE = parse_request("GET", "/api/v1/namespaces/ns/pods")
_TEXT_FIELDS = (
    "namespace",
    "verb",
    "api_group",
    "api_version",
    "resource",
    "subresource",
    "name",
    "path",
)
_infos = st.builds(
    lambda parts, fields, labels: dataclasses.replace(
        _BASE, **parts, field_selector=fields, label_selector=labels
    ),
    st.fixed_dictionaries(dict.fromkeys(_TEXT_FIELDS, _texts) | {"is_resource": st.booleans()}),
    st.sampled_from(["", "a=b", "a!=b", "a=b,c=d", "a=c", "b=a", "a="]),
    st.sampled_from(["", "a", "!a", "a=b", "a!=b", "a in (b,c)", "a notin (b,c)", "a>5", "a<5"]),
)


def _said(identity: Identity, info: RequestInfo) -> tuple[object, ...]:
    """Everything an authorizer can look at."""
    who = (
        identity.user,
        identity.groups,
        identity.uid,
        tuple(sorted((key, values) for key, values in identity.extra.items())),
    )
    if not info.is_resource:
        return (*who, info.path, info.verb)
    return (
        *who,
        info.namespace,
        info.verb,
        info.api_group,
        info.api_version,
        info.resource,
        info.subresource,
        info.name,
        info.field_selector,
        info.label_selector,
        True,
    )


def _key(identity: Identity, info: RequestInfo) -> bytes:
    return question_of(identity.user, subject_members(identity), attribute_members(info)).key


@given(_identities, _infos, _identities, _infos)
def test_questions_share_a_key_exactly_when_they_are_the_same(
    first: Identity, one: RequestInfo, second: Identity, other: RequestInfo
) -> None:
    same = _said(first, one) == _said(second, other)
    assert (_key(first, one) == _key(second, other)) is same


_CHANGES: dict[str, Any] = {
    "user": "mallory",
    "groups": ("system:authenticated", "devs"),
    "uid": "u2",
    "extra": {"a": ("1",), "b": ("2", "0")},
    "namespace": "other",
    "verb": "watch",
    "api_group": "apps",
    "api_version": "v2",
    "resource": "secrets",
    "subresource": "log",
    "name": "n",
    "field_selector": "spec.nodeName=n",
    "label_selector": "a",
    "is_resource": False,
}


@pytest.mark.parametrize("field", _CHANGES)
def test_a_change_of_any_one_field_is_another_question(field: str) -> None:
    change = {field: _CHANGES[field]}
    identity, info = ALICE, _BASE
    if hasattr(identity, field):
        identity = dataclasses.replace(identity, **change)
    else:
        info = dataclasses.replace(info, **change)
    assert _key(identity, info) != _key(ALICE, _BASE)


@given(_identities, _infos)
def test_a_body_is_read_back_as_what_was_asked(identity: Identity, info: RequestInfo) -> None:
    found = question_of(identity.user, subject_members(identity), attribute_members(info))
    spec = json.loads(found.body)["spec"]
    assert spec["user"] == identity.user
    assert spec.get("groups", []) == list(identity.groups)
    assert spec.get("uid", "") == identity.uid
    assert spec.get("extra", {}) == {key: list(values) for key, values in identity.extra.items()}


# -- the refusal -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("anonymous-403", "system:anonymous"),
        ("forbidden-403-user", "alice"),
        ("forbidden-403-named", "alice"),
        ("forbidden-403-protobuf", "alice"),
        ("watch-forbidden-403", "alice"),
    ],
)
def test_a_refusal_is_byte_for_byte_that_of_upstream(name: str, user: str) -> None:
    exchanges = DATA / "exchanges"
    method, target, _ = (exchanges / f"{name}.request").read_bytes().split(None, 2)
    answer = (exchanges / f"{name}.response").read_bytes()
    body = answer.partition(b"\r\n\r\n")[2]
    found = forbidden_status(user, parse_request(method.decode(), target.decode()), "")
    wanted = Representation.PROTOBUF if "protobuf" in name else Representation.JSON
    assert found.encoded(wanted).strip() == body.strip()


def test_a_refusal_ends_with_the_reason_and_escapes_only_the_sentence() -> None:
    info = parse_request("GET", "/apis/apps/v1/deployments")
    assert forbidden_status("<a>", info, "<no>").message == (
        'deployments.apps is forbidden: User "&lt;a&gt;" cannot list resource "deployments" in '
        'API group "apps" at the cluster scope: <no>'
    )


def test_a_refused_path_is_named() -> None:
    found = forbidden_status("alice", parse_request("GET", "/metrics"), "")
    assert found.message == 'forbidden: User "alice" cannot get path "/metrics"'
