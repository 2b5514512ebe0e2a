"""The admin port described as OpenAPI 3.1, made from what the port itself is made of.

Paths, methods, parameters and roles are those of ``routes``; bodies are the types that decode them;
answers are the types of ``openapi_shapes`` and its neighbours. Only sentences are written here, one
entry for each handler. A route without one is still described, by what the table says of it.
"""

from __future__ import annotations

import functools
import inspect
import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiohttp import web

import apiguard
from apiguard.admin import openapi_relay, openapi_state
from apiguard.admin import openapi_shapes as shapes
from apiguard.admin.handlers import (
    AUDIT_KINDS,
    MOST_BUCKETS,
    MOST_EVENTS,
    MOST_TALKERS,
    DrainBody,
    EnforcementBody,
    ExplainBody,
)
from apiguard.admin.overriding import ExtensionBody
from apiguard.admin.parameters import MAX_REASON
from apiguard.admin.policies import RollbackBody
from apiguard.admin.replies import reply
from apiguard.admin.routes import ROUTES, Route
from apiguard.policy.config import camel_case
from apiguard.telemetry.toptalkers import OVER, SORTS

Json = dict[str, Any]

JSON: Final = "application/json"
YAML: Final = "application/yaml"
TEXT: Final = "text/plain"
ANY_OBJECT: Final = dict[str, Any]
"""What is described elsewhere: a policy, and this document itself."""

DURATION: Final = {"type": "string", "pattern": "^([0-9]{1,9}(ms|s|m|h|d))+$"}


@dataclass(frozen=True, slots=True)
class Operation:
    """What the table of routes cannot know of one.

    ``answers`` by code: a type, several of which one holds, or the media type of text; ``also`` is
    the media type of the same as text, for those who ask for it. ``body`` is a type; a policy's is
    whatever YAML says.
    """

    summary: str
    answers: dict[int, Any] = field(default_factory=lambda: {200: ANY_OBJECT})
    body: Any = None
    body_types: tuple[str, ...] = (JSON,)
    also: str = ""


OPERATIONS: Final = {
    "livez": Operation("Whether the supervisor answers.", {200: TEXT}),
    "readyz": Operation(
        "Whether a worker serves, an API server is fit, and the guard is not shutting down.",
        {200: TEXT, 503: TEXT},
    ),
    "metrics": Operation("Metrics in Prometheus' text format.", {200: TEXT}),
    "get_openapi": Operation("This document."),
    "get_whoami": Operation("Whom the guard takes the caller for.", {200: shapes.Whoami}),
    "get_status": Operation(
        "Policy, workers, API servers, checks, certificates, broken files, bounds that were hit.",
        {200: openapi_state.GuardStatus},
    ),
    "get_flows": Operation("Rules and their buckets, most refused first.", {200: shapes.Flows}),
    "get_upstreams": Operation("Every API server and its state.", {200: shapes.Upstreams}),
    "post_drain": Operation(
        "Send an API server no new request; what it carries ends by itself.",
        {200: shapes.UpstreamChanged},
        DrainBody,
    ),
    "post_undrain": Operation(
        "Let an API server have requests again.", {200: shapes.UpstreamChanged}, DrainBody
    ),
    "get_relay": Operation(
        "What the relay holds, whom it answers, and how fresh it is.", {200: openapi_relay.Relay}
    ),
    "get_relayed": Operation("One resource of the relay.", {200: openapi_relay.Relayed}),
    "post_explain": Operation(
        "What would become of a request, on living buckets; nothing is taken from them.",
        {200: (openapi_state.Explanation, openapi_state.Rejection)},
        ExplainBody,
    ),
    "get_top": Operation("Who asks for what.", {200: shapes.Top}),
    "get_audit": Operation("What operators did, or samples of requests.", {200: shapes.Audit}),
    "get_overrides": Operation("Overrides in force, newest first.", {200: shapes.Overrides}),
    "post_override": Operation(
        "Lay an override over the policy, or try one.",
        {200: shapes.OverrideTried, 201: shapes.Override},
        shapes.OverrideBody,
        (JSON, YAML),
    ),
    "get_override": Operation("One override.", {200: shapes.Override}),
    "patch_override": Operation(
        "Let an override end at another time, from now.", {200: shapes.Override}, ExtensionBody
    ),
    "delete_override": Operation("End an override; answers what it was.", {200: shapes.Override}),
    "put_enforcement": Operation(
        "Switch what becomes of refusals; null returns to the configured mode.",
        {200: shapes.EnforcementChanged},
        EnforcementBody,
    ),
    "get_policy": Operation("The active policy.", {200: shapes.PolicyText}, also=YAML),
    "put_policy": Operation(
        "Replace the policy, or try one.",
        {200: (shapes.PolicyChanged, shapes.PolicyTried)},
        ANY_OBJECT,
        (YAML, JSON),
    ),
    "get_history": Operation("Accepted policies, newest first.", {200: shapes.History}),
    "get_generation": Operation("The text of one accepted policy.", {200: YAML}),
    "post_rollback": Operation(
        "Take up an earlier policy as a new generation.", {200: shapes.PolicyChanged}, RollbackBody
    ),
}
"""By the name of the handler."""

PARAMETERS: Final[dict[str, Json]] = {
    "rule": {"description": "One rule alone.", "schema": {"type": "string"}},
    "buckets": {
        "description": "Most buckets of each limit.",
        "schema": {"type": "integer", "minimum": 0, "maximum": MOST_BUCKETS},
    },
    "reason": {
        "description": "Why, for the audit.",
        "schema": {"type": "string", "maxLength": MAX_REASON},
    },
    "by": {
        "description": "userAgent, user, source, request, or two joined by a comma.",
        "schema": {"type": "string"},
    },
    "over": {"description": "Of which time.", "schema": {"enum": list(OVER)}},
    "sort": {"description": "Largest first.", "schema": {"enum": list(SORTS)}},
    "limit": {
        "description": "Most rows.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_TALKERS},
    },
    "since": {"description": "How far back, as in 90s or 1h30m.", "schema": DURATION},
    "kind": {"description": "Which record.", "schema": {"enum": list(AUDIT_KINDS)}},
    "after": {"description": "The id of an action already seen.", "schema": {"type": "string"}},
    "dryRun": {"description": "Try it and change nothing.", "schema": {"enum": ["All"]}},
    "generation": {
        "description": "The generation's number.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    },
    "server": {
        "description": "Its index, or its host and port as configured.",
        "schema": {"type": "string", "minLength": 1},
    },
    "resource": {
        "description": "A resource of the relay, as its list names it.",
        "schema": {"type": "string", "minLength": 1},
    },
    "id": {"description": "The override's id.", "schema": {"type": "string", "minLength": 1}},
}
"""By name, in the query and in paths."""

OF_AUDIT: Final = {"type": "integer", "minimum": 1, "maximum": MOST_EVENTS}


class OpenApiHandlers:
    """The route that describes all routes."""

    async def get_openapi(self, request: web.Request) -> web.Response:
        return reply(document())


@functools.cache
def document() -> Json:
    """The whole of it; to be read only."""
    paths: dict[str, Json] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "apiguard admin",
            "version": apiguard.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "The port that still answers when traffic drowns. Every refusal is a "
            "Kubernetes Status. A query parameter left empty counts as absent.",
        },
        "paths": paths,
        "components": {
            "schemas": _components(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
        "security": [{"token": []}, {"certificate": []}],
    }


def _operation(route: Route) -> Json:
    known = OPERATIONS.get(route.handler, Operation(f"{route.method} {route.path}"))
    described: Json = {
        "operationId": route.handler,
        "summary": known.summary,
        "description": _role(route),
        "parameters": _parameters(route),
        "responses": {str(code): _answer(known, what) for code, what in known.answers.items()},
    }
    described["responses"]["default"] = {
        "description": "Refused. Only bytes that are no HTTP at all are answered in plain text.",
        "content": {JSON: {"schema": _schema(shapes.Status)}, TEXT: _TEXT},
    }
    if known.body is not None:
        content = {media: {"schema": _schema(known.body)} for media in known.body_types}
        described["requestBody"] = {"required": True, "content": content}
    if route.role is None:
        described["security"] = []
    return described


def _role(route: Route) -> str:
    if route.role is None:
        return "Open to everybody."
    tried = f"; to try it, {route.dry_run.value}" if route.dry_run is not None else ""
    return f"Needs the role {route.role.value}{tried}."


def _parameters(route: Route) -> list[Json]:
    in_path = re.findall(r"\{(\w+)\}", route.path)
    found = [{"name": name, "in": "path", "required": True, **_named(name)} for name in in_path]
    for name in route.query:
        found.append({"name": name, "in": "query", **_named(name)})
        if (route.handler, name) == ("get_audit", "limit"):
            found[-1]["schema"] = OF_AUDIT
    if "generation" in route.query:
        found.append(
            {
                "name": "If-Match",
                "in": "header",
                "description": "The generation to replace, in quotes; another active one is 409.",
                "schema": {"type": "string", "pattern": '^"[0-9]{1,9}"$'},
            }
        )
    return found


def _named(name: str) -> Json:
    return PARAMETERS.get(name, {"schema": {"type": "string"}})


_TEXT: Final = {"schema": {"type": "string"}}
_POLICY: Final = {"schema": {"type": "object"}}
"""As YAML says it."""


def _answer(operation: Operation, what: Any) -> Json:
    if isinstance(what, str):
        return {
            "description": operation.summary,
            "content": {what: _TEXT if what == TEXT else _POLICY},
        }
    content: Json = {JSON: {"schema": _schema(what)}}
    if operation.also:
        content[operation.also] = _POLICY
    return {"description": operation.summary, "content": content}


def _schema(what: Any) -> Json:
    """A reference to a type's schema, or what of several references one holds."""
    if isinstance(what, tuple):
        return {"oneOf": [_schema(one) for one in what]}
    if what is ANY_OBJECT:
        return {"type": "object"}
    return {"$ref": f"#/components/schemas/{what.__name__}"}


def _components() -> dict[str, Any]:
    types: list[Any] = [shapes.Status]
    for operation in OPERATIONS.values():
        for what in (operation.body, *operation.answers.values()):
            types += what if isinstance(what, tuple) else [what]
    named = [one for one in types if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    _, components = msgspec.json.schema_components(
        list(dict.fromkeys(named)), ref_template="#/components/schemas/{name}"
    )
    return {name: _told(dict(schema)) for name, schema in components.items()}


def _told(schema: Json) -> Json:
    """A component as readers and generators want it, objects with these fields alone. Dataclasses
    come with the names they have in the code and are answered in camelCase, see
    ``replies.as_json``; the others have it already."""
    if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    if schema.get("type") == "object":
        properties = schema["properties"]
        schema["properties"] = {camel_case(name): one for name, one in properties.items()}
        schema["required"] = [camel_case(name) for name in schema.get("required", ())]
        schema["additionalProperties"] = False
    return schema
