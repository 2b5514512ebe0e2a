"""Which rule a request is under: the semantics field by field, and against a naive matcher."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apiguard.errors import ConfigError
from apiguard.kube.identity import ANONYMOUS, Caller, Identity, Standing, user_agent_family
from apiguard.kube.requestinfo import RequestInfo, parse_request
from apiguard.limiter.flow import Flow
from apiguard.policy.compile import compile_policy
from apiguard.policy.matcher import MEMO
from apiguard.policy.policy import Policy

from .reference import first_match
from .texts import policy, policy_text

PODS = "/api/v1/namespaces/team-a/pods"
WATCH_LIST = "?watch=1&sendInitialEvents=true"


def caller(
    user: str | None = "alice",
    *groups: str,
    agent: str = "kubectl/v1.36",
    source: str = "10.0.0.1",
    standing: Standing = Standing.VERIFIED,
) -> Caller:
    identity = None if user is None else Identity(user, groups)
    return Caller(standing, identity, agent, user_agent_family(agent), source, source)


ALICE = caller()
UNVERIFIED = caller(None, standing=Standing.UNVERIFIED)
NOBODY = Caller(Standing.ANONYMOUS, ANONYMOUS, "curl/8", "curl", "10.0.0.1", "10.0.0.1")


def matches(match: str, target: str, who: Caller = ALICE, method: str = "GET") -> bool:
    return policy(match).match(parse_request(method, target), who).name == "r0"


@pytest.mark.parametrize(
    ("resources", "target", "expected"),
    [
        ("[pods]", PODS, True),
        ("[pods]", f"{PODS}/x", True),
        ("[pods]", f"{PODS}/x/log", False),
        ("[pods/log]", f"{PODS}/x/log", True),
        ("[pods/log]", f"{PODS}/x", False),
        ("[pods/*]", f"{PODS}/x/log", True),
        ("[pods/*]", f"{PODS}/x", False),
        ("['*/status']", f"{PODS}/x/status", True),
        ("['*/status']", "/apis/apps/v1/namespaces/a/deployments/x/status", True),
        ("['*/status']", f"{PODS}/x", False),
        ("['*']", f"{PODS}/x/log", True),
        ("['*']", "/apis/apps/v1/deployments", True),
        ("['*']", "/healthz", False),
        ("[deployments.apps]", "/apis/apps/v1/deployments", True),
        ("[deployments]", "/apis/apps/v1/deployments", False),
        ("[deployments.apps]", "/api/v1/deployments", False),
        ("[deployments.apps]", "/api/v1/deployments.apps", False),
        ("[deployments.apps/scale]", "/apis/apps/v1/namespaces/a/deployments/x/scale", True),
        ("['*.apps']", "/apis/apps/v1/deployments", True),
        ("['*.apps']", PODS, False),
        ("['widgets.*.example.com']", "/apis/a.example.com/v1/widgets", True),
        ("[pods.metrics.k8s.io]", "/apis/metrics.k8s.io/v1beta1/pods", True),
        ("[pods]", "/apis/metrics.k8s.io/v1beta1/pods", False),
    ],
)
def test_resources_are_named_as_in_rbac(resources: str, target: str, expected: bool) -> None:
    assert matches(f"{{resources: {resources}}}", target) is expected


def test_api_groups_give_plain_resources_their_group() -> None:
    rule = "{apiGroups: [apps, extensions], resources: [deployments]}"
    assert matches(rule, "/apis/apps/v1/deployments")
    assert matches(rule, "/apis/extensions/v1beta1/deployments")
    assert not matches(rule, "/api/v1/deployments")
    assert not matches(rule, "/apis/apps/v1/daemonsets")
    assert matches("{apiGroups: ['']}", PODS)
    assert not matches("{apiGroups: ['']}", "/healthz")


@pytest.mark.parametrize(
    ("namespaces", "target", "expected"),
    [
        ("['*']", PODS, True),
        ("['*']", "/api/v1/pods", True),
        ("['*']", "/healthz", False),
        ("['']", "/api/v1/pods", True),
        ("['']", "/api/v1/nodes/n", True),
        ("['']", PODS, False),
        ("['team-*']", PODS, True),
        ("['team-*']", "/api/v1/pods", False),
        ("['Team-*']", PODS, False),
        ("['re:team-[a-c]']", PODS, True),
        ("['re:team']", PODS, False),
    ],
)
def test_namespaces(namespaces: str, target: str, expected: bool) -> None:
    assert matches(f"{{namespaces: {namespaces}}}", target) is expected


@pytest.mark.parametrize(
    ("shape", "query", "expected"),
    [
        ("{unpaged: true}", "", True),
        ("{unpaged: true}", "?limit=500", False),
        ("{unpaged: false}", "?limit=500", True),
        ("{unpaged: true, withoutResourceVersion: true}", "", True),
        ("{unpaged: true, withoutResourceVersion: true}", "?resourceVersion=0", False),
        ("{withoutSelector: true}", "?labelSelector=a%3Db", False),
        ("{}", "?limit=1", True),
        ("{}", "?watch=1", False),
        ("{}", WATCH_LIST, True),
        ("{unpaged: true}", WATCH_LIST, True),
        ("{unpaged: false}", WATCH_LIST, False),
        ("{withoutResourceVersion: true}", WATCH_LIST, True),
        ("{withoutResourceVersion: true}", WATCH_LIST + "&resourceVersion=0", False),
    ],
)
def test_list_shape_is_about_lists_and_watch_lists_alone(
    shape: str, query: str, expected: bool
) -> None:
    assert matches(f"{{listShape: {shape}}}", PODS + query) is expected


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_verb_beside_list_shape_means_one_of_both(verb: str) -> None:
    match = f"{{verbs: [{verb}], listShape: {{unpaged: true}}}}"
    assert matches(match, PODS) is (verb == "list")
    assert matches(match, PODS + WATCH_LIST) is (verb == "watch")


def test_verbs_are_kubernetes_verbs() -> None:
    assert matches("{verbs: [watch]}", f"{PODS}?watch=1")
    assert not matches("{verbs: [get]}", PODS)
    assert matches("{verbs: [deletecollection]}", PODS, method="DELETE")
    assert matches("{verbs: [post]}", "/healthz", method="POST")
    assert not matches("{verbs: [post]}", PODS, method="POST")


def test_paths_match_non_resource_requests_alone() -> None:
    assert matches("{nonResourcePaths: ['/livez*']}", "/livez/ping?verbose")
    assert matches("{nonResourcePaths: ['*']}", "/openapi/v2")
    assert not matches("{nonResourcePaths: ['*']}", PODS)


@pytest.mark.parametrize(
    ("accounts", "user", "expected"),
    [
        ("monitoring/*", "system:serviceaccount:monitoring:agent", True),
        ("*/agent", "system:serviceaccount:monitoring:agent", True),
        ("*", "system:serviceaccount:monitoring:agent", True),
        ("monitoring/*", "system:serviceaccount:default:agent", False),
        ("*", "monitoring/agent", False),
        ("*", "system:serviceaccount:a:b:c", False),
    ],
)
def test_service_accounts(accounts: str, user: str, expected: bool) -> None:
    assert matches(f"{{serviceAccounts: ['{accounts}']}}", PODS, caller(user)) is expected


def test_identity_fields_never_match_an_unverified_caller() -> None:
    for field in ("users", "groups", "serviceAccounts"):
        assert not matches(f"{{{field}: ['*']}}", PODS, UNVERIFIED)
    assert matches("{users: ['system:anonymous']}", PODS, NOBODY)
    assert matches("{groups: ['system:unauthenticated']}", PODS, NOBODY)


def test_any_group_will_do() -> None:
    assert matches("{groups: ['system:nodes']}", PODS, caller("n", "a", "system:nodes"))
    assert not matches("{groups: ['system:nodes']}", PODS, caller("n", "a", "b"))


@pytest.mark.parametrize(
    ("network", "source", "expected"),
    [
        ("10.0.0.0/8", "10.9.8.7", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("2001:db8::/32", "2001:db8::1", True),
        ("::/0", "10.0.0.1", False),
        ("0.0.0.0/0", "", False),
    ],
)
def test_sources(network: str, source: str, expected: bool) -> None:
    assert matches(f"{{sourceCIDRs: ['{network}']}}", PODS, caller(source=source)) is expected


def test_an_exempt_rule_passes_over_unverified_callers_and_matching_goes_on() -> None:
    compiled = policy("{userAgents: ['*']}", "{}", exempt=(0,))
    info = parse_request("GET", PODS)
    assert compiled.match(info, ALICE).name == "r0"
    assert compiled.match(info, UNVERIFIED).name == "r1"
    assert compiled.match(info, NOBODY).name == "r1"


def test_the_first_of_several_matches_wins() -> None:
    compiled = policy("{verbs: [get]}", "{users: [alice]}", "{}")
    assert compiled.match(parse_request("GET", PODS), ALICE).name == "r1"
    assert compiled.match(parse_request("GET", PODS), UNVERIFIED).name == "r2"


def test_globs_span_slashes_and_line_ends_and_bytes_that_are_no_text() -> None:
    for agent in ("bad-agent/1 (x/y)", "bad-agent/", "bad-agent/\n", "bad-agent/\xff\udc80"):
        assert matches("{userAgents: ['bad-agent/*']}", PODS, caller(agent=agent))
    assert not matches("{userAgents: ['bad-agent/*']}", PODS, caller(agent="xbad-agent/1"))
    assert matches("{userAgents: ['']}", PODS, caller(agent=""))
    assert not matches("{userAgents: ['a.c']}", PODS, caller(agent="abc"))


def test_answers_stay_the_same_when_memos_overflow() -> None:
    """Hostile user-agents and paths are forgotten again; a long one is never remembered."""
    compiled = policy("{userAgents: ['agent-7*']}", "{names: ['x7*']}")
    for i in range(3 * MEMO):
        info = parse_request("GET", f"{PODS}/x{i}")
        who = caller(agent=f"agent-{i}/" + "y" * (2000 if i % 100 == 0 else 1))
        assert compiled.match(info, who).name == ("r0" if str(i)[0] == "7" else "default")
    for memo in (compiled._caller_masks, compiled._request_masks):
        assert len(memo.young) <= MEMO
        assert len(memo._old) <= MEMO


# -- against the reference

# Whole policies are drawn, which a busy machine may take long for: no time limits per example.
GENEROUS = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TEXTS = st.sampled_from(["*", "a*", "*b", "a*b", "ab", "a", "", "*a*", "re:a+b?", "re:[ab]*"])
VERBS = ["get", "list", "watch", "create", "delete", "deletecollection", "post", "head"]
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "userAgents": st.lists(TEXTS, min_size=1, max_size=3),
    "users": st.lists(TEXTS, min_size=1, max_size=3),
    "groups": st.lists(TEXTS, min_size=1, max_size=3),
    "serviceAccounts": st.lists(st.sampled_from(["a/*", "*/b", "a/b", "*"]), min_size=1),
    "sourceCIDRs": st.lists(
        st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::/0"]), min_size=1, max_size=2
    ),
    "verbs": st.lists(st.sampled_from([*VERBS, "*"]), min_size=1, max_size=3),
    "resources": st.lists(
        st.sampled_from(
            ["a", "a/*", "a/b", "*/b", "*", "a.g", "a.g/b", "*.g", "*.g/*", "a*", "*.*", "b.*/a*"]
        ),
        min_size=1,
        max_size=3,
    ),
    "apiGroups": st.lists(st.sampled_from(["", "g", "g*", "*"]), min_size=1, max_size=2),
    "namespaces": st.lists(TEXTS, min_size=1, max_size=3),
    "names": st.lists(TEXTS, min_size=1, max_size=3),
    "listShape": st.dictionaries(
        st.sampled_from(["unpaged", "withoutResourceVersion", "withoutSelector"]), st.booleans()
    ),
    "nonResourcePaths": st.lists(st.sampled_from(["/a*", "/ab", "*", "re:/a+"]), min_size=1),
}


@st.composite
def _match(draw: st.DrawFn) -> Mapping[str, object]:
    chosen = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True))
    return {field: draw(FIELDS[field]) for field in chosen}


@st.composite
def _policies(draw: st.DrawFn) -> Policy:
    rules = []
    for i, match in enumerate(draw(st.lists(_match(), min_size=1, max_size=8))):
        end = "exempt: true" if draw(st.booleans()) else "limits: [{requestsPerSecond: 1}]"
        rules.append(f"- {{name: r{i}, match: {json.dumps(match)}, {end}}}")
    return compile_policy(policy_text("\n".join(rules)), "policy.yaml")


WORDS = st.sampled_from(["a", "b", "ab", "aab", "ba"])


@st.composite
def _requests(draw: st.DrawFn) -> RequestInfo:
    method = draw(st.sampled_from(["GET", "HEAD", "POST", "DELETE"]))
    if draw(st.integers(0, 3)) == 0:
        return parse_request(method, draw(st.sampled_from(["/a", "/ab", "/aa", "/b", "/api"])))
    prefix = draw(st.sampled_from(["/api/v1", "/apis/g/v1", "/apis/gg/v1"]))
    space = draw(st.sampled_from(["", "/namespaces/a", "/namespaces/ab"]))
    path = "/".join(["", *draw(st.lists(WORDS, min_size=1, max_size=3))])
    query = draw(st.sampled_from(["", "?limit=5", "?watch=1", "?resourceVersion=0"]))
    return parse_request(method, prefix + space + path + query)


@st.composite
def _callers(draw: st.DrawFn) -> Caller:
    standing = draw(st.sampled_from(Standing))
    users = st.sampled_from(["a", "ab", "b", "system:serviceaccount:a:b"])
    identity = Identity(draw(users), tuple(draw(st.lists(WORDS, max_size=2))))
    source = draw(st.sampled_from(["10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.1", "2001:db8::1"]))
    known = {Standing.VERIFIED: identity, Standing.ANONYMOUS: ANONYMOUS}.get(standing)
    return Caller(standing, known, draw(WORDS), "f", source, source)


@GENEROUS
@given(_policies(), st.lists(st.tuples(_requests(), _callers()), min_size=1, max_size=20))
def test_masks_agree_with_the_rules_tried_in_turn(
    compiled: Policy, asked: list[tuple[RequestInfo, Caller]]
) -> None:
    for info, who in asked:
        expected = first_match(compiled, info, who)
        assert compiled.match(info, who) is expected
        assert compiled.match(info, who) is expected  # from the memos


# -- impersonation


def acting_as(user: str | None, real: Caller = ALICE) -> Caller:
    return dataclasses.replace(real, impersonated=user)


IMPERSONATION = """\
- {name: as-admin, match: {impersonatedUsers: ['system:admin', 'team-*']},
   limits: [{requestsPerSecond: 5}]}
- {name: alices, match: {users: [alice]}, limits: [{requestsPerSecond: 1, per: [user]}]}
- {name: nodes, match: {users: [node]}, exempt: true}
"""


def flow_of(text: str, who: Caller) -> Flow:
    return compile_policy(policy_text(text), "p").match(parse_request("GET", PODS), who)


def limits_of(flow: Flow) -> list[str]:
    return [limit.id for limit in flow.limits]


@pytest.mark.parametrize(("asked", "rule"), [("system:admin", "as-admin"), ("team-a", "as-admin")])
def test_an_impersonated_user_adds_limits_to_those_of_the_real_one(asked: str, rule: str) -> None:
    flow = flow_of(IMPERSONATION, acting_as(asked))
    assert flow.name == rule
    assert limits_of(flow) == ["as-admin/all", "alices/user"]
    assert not flow.exempt


@pytest.mark.parametrize("asked", [None, "", "bob"])
def test_other_requests_are_under_the_real_users_rule_alone(asked: str | None) -> None:
    assert limits_of(flow_of(IMPERSONATION, acting_as(asked))) == ["alices/user"]


def test_a_star_means_only_requests_that_impersonate() -> None:
    rule = "- {name: any, match: {impersonatedUsers: ['*']}, limits: [{requestsPerSecond: 1}]}"
    assert flow_of(rule, acting_as(None)).name == "default"
    assert flow_of(rule, acting_as("")).name == "any"


def test_impersonation_can_end_an_exemption_and_never_begin_one() -> None:
    node = caller("node")
    assert flow_of(IMPERSONATION, node).exempt
    flow = flow_of(IMPERSONATION, acting_as("system:admin", node))
    assert not flow.exempt
    assert limits_of(flow) == ["as-admin/all"]
    rule = "- {name: x, match: {impersonatedUsers: [a], users: [b]}, exempt: true}"
    with pytest.raises(ConfigError, match="impersonatedUsers can only limit"):
        compile_policy(policy_text(rule), "p")


def test_a_rule_that_only_counts_does_not_replace_one_that_refuses() -> None:
    shadow = IMPERSONATION.replace(
        "limits: [{requestsPerSecond: 5}]", "mode: shadow, limits: [{requestsPerSecond: 5}]"
    )
    assert limits_of(flow_of(shadow, acting_as("team-a"))) == ["alices/user"]


def test_a_joint_flow_is_one_object_so_that_the_limiter_plans_it_once() -> None:
    compiled = compile_policy(policy_text(IMPERSONATION), "p")
    info = parse_request("GET", PODS)
    assert compiled.match(info, acting_as("team-a")) is compiled.match(info, acting_as("team-b"))
