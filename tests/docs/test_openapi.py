"""What ``/openapi.json`` says of the admin port holds, for requests nobody thought of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import Phase as HypothesisPhase
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from apiguard.admin.openapi import OPERATIONS, PARAMETERS, document
from apiguard.admin.routes import ROUTES
from tests.conftest import SEED_VARIABLE
from tests.e2e.guard import TOKEN, Guard, Upstream, ask, until
from tests.net.admin.described import as_described

pytestmark = pytest.mark.e2e

SEED = int(os.environ.get(SEED_VARIABLE, 20_261_123))
EXAMPLES = int(os.environ.get("APIGUARD_OPENAPI_EXAMPLES", 6))
"""Requests for each route and mode; a longer run is a matter of this variable."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """With an override and a second policy in its history, so that there is something to name."""
    upstream = Upstream()
    made = Guard(tmp_path_factory.mktemp("guard"), upstream.url)
    try:
        made.start()
        until("ready", lambda: made.admin("GET", "/readyz").code == 200)
        made.get()
        yield made
    finally:
        made.close()
        upstream.close()


def test_every_route_is_described_and_nothing_else() -> None:
    described = {
        (method.upper(), path)
        for path, operations in document()["paths"].items()
        for method in operations
    }
    assert described == {(route.method, route.path) for route in ROUTES}
    assert {route.handler for route in ROUTES} <= OPERATIONS.keys()


def test_every_parameter_is_explained() -> None:
    named = {name for route in ROUTES for name in route.query}
    assert named <= PARAMETERS.keys()


def test_the_port_serves_the_document(guard: Guard) -> None:
    served = guard.admin("GET", "/openapi.json")
    assert served.json == json.loads(json.dumps(document()))
    assert ask(guard.admin_address, "GET", "/openapi.json").code == 401


def exercise(guard: Guard, served: dict[str, Any], handler: str, mode: GenerationMode) -> int:
    """Asks for one operation as the document allows, or as it forbids; how often it was answered.

    Names in the path are now living ones, now anything. Raises Failure or FailureGroup when the
    answer is not what the document says.
    """
    operations = schemathesis.openapi.from_dict(served)
    operation = operations.find_operation_by_id(handler)
    living = living_names(guard, operation.path)
    checks = [*CHECKS, negative_data_rejection] if mode is GenerationMode.NEGATIVE else CHECKS
    url = "http://{}:{}".format(*guard.admin_address)
    answered = 0

    def ask_once(case: Case[Any]) -> None:
        nonlocal answered
        case.call_and_validate(base_url=url, headers=HEADERS, checks=checks)
        answered += 1

    for names in [living, {}] if living else [{}]:
        strategy = operation.as_strategy(generation_mode=mode, path_parameters=names or None)
        seed(SEED)(
            settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=[HypothesisPhase.generate],
                suppress_health_check=list(HealthCheck),
            )(given(case=strategy)(ask_once))
        )()
    return answered


def living_names(guard: Guard, path: str) -> dict[str, Any]:
    """Of what the guard has, for the names in a path."""
    known: dict[str, Any] = {"server": "0", "generation": 1}
    if "{id}" in path:
        ban = '{"action": "ban", "match": {"userAgents": ["x/*"]}, "reason": "INC-7"}'
        made = guard.admin("POST", "/v1/overrides", ban, {"Content-Type": "application/json"})
        known["id"] = made.json["id"]
    return {name: value for name, value in known.items() if f"{{{name}}}" in path}


@pytest.mark.parametrize("handler", [route.handler for route in ROUTES])
def test_answers_are_as_described(guard: Guard, handler: str) -> None:
    """For requests of the described form: the codes, types and fields that are written."""
    assert exercise(guard, document(), handler, GenerationMode.POSITIVE)


WITH_INPUT = [
    route.handler for route in ROUTES if route.query or route.method in ("POST", "PUT", "PATCH")
]


@pytest.mark.parametrize("handler", WITH_INPUT)
def test_what_is_not_described_is_refused(guard: Guard, handler: str) -> None:
    """For requests of another form: a Status, no defect, and never success."""
    exercise(guard, document(), handler, GenerationMode.NEGATIVE)


QUESTIONS: list[dict[str, Any]] = [
    {"method": "GET", "target": "/api/v1/pods?limit=5", "user": "u", "groups": ["g"]},
    {"method": "PUT", "target": "/apis/apps/v1/namespaces/a/deployments/b/scale", "user": "u"},
    {"method": "GET", "target": "/version", "unverified": True},
    {"method": "GET", "target": "/api/v1/pods", "userAgent": "x/1"},
    {"method": "GET", "target": "no path"},
]
"""The fourth is banned, the last no request."""


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: str(question["target"]))
def test_explanations_are_as_described(guard: Guard, question: dict[str, Any]) -> None:
    """Requests that mean something, which generated ones hardly do."""
    living_names(guard, "{id}")
    typed = {"Content-Type": "application/json"}
    answer = guard.admin("POST", "/v1/explain", json.dumps(question), typed)
    assert answer.code == 200
    as_described("POST", "/v1/explain", answer.code, answer.headers, answer.text.encode())


@pytest.mark.parametrize(
    ("handler", "schema", "name"),
    [
        ("get_whoami", "Whoami", "role"),
        ("get_status", "GuardStatus", "boundHits"),
        ("get_status", "Worker", "pid"),
        ("get_relay", "Reviews", "queued"),
        ("post_explain", "Rejection", "message"),
    ],
)
def test_a_document_that_drifts_is_noticed(
    guard: Guard, handler: str, schema: str, name: str
) -> None:
    """A field too few, as after a change of the answer alone."""
    served = deepcopy(document())
    described = served["components"]["schemas"][schema]
    del described["properties"][name]
    described["required"].remove(name)
    with pytest.raises((Failure, FailureGroup)):
        exercise(guard, served, handler, GenerationMode.POSITIVE)
