"""The routes of the admin port as a table: what each needs and accepts.

Rights live here and nowhere else, so that one look answers who may do what; a route missing from
the table cannot be asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from apiguard.policy.adminconfig import Role


@dataclass(frozen=True, slots=True)
class Route:
    """``handler`` is the name of a method; see ``bound``.

    ``role`` is the least that may ask, None for everybody; ``dry_run`` the least that may with
    ``dryRun=All``, where that is another. ``query`` are the parameters it accepts.
    """

    method: str
    path: str
    handler: str
    role: Role | None
    query: tuple[str, ...] = ()
    dry_run: Role | None = None

    def least(self, *, dry_run: bool) -> Role | None:
        return self.dry_run if dry_run and self.dry_run is not None else self.role


_METRICS, _VIEWER, _OPERATOR, _ADMIN = Role

ROUTES: Final = (
    Route("GET", "/livez", "livez", None),
    Route("GET", "/readyz", "readyz", None),
    Route("GET", "/metrics", "metrics", _METRICS),
    Route("GET", "/openapi.json", "get_openapi", _METRICS),
    Route("GET", "/v1/whoami", "get_whoami", _METRICS),
    Route("GET", "/v1/status", "get_status", _VIEWER),
    Route("GET", "/v1/flows", "get_flows", _VIEWER, ("rule", "buckets")),
    Route("GET", "/v1/upstreams", "get_upstreams", _VIEWER),
    Route("POST", "/v1/upstreams/{server}/drain", "post_drain", _OPERATOR, ("reason",)),
    Route("POST", "/v1/upstreams/{server}/undrain", "post_undrain", _OPERATOR, ("reason",)),
    Route("GET", "/v1/relay", "get_relay", _VIEWER),
    Route("GET", "/v1/relay/{resource}", "get_relayed", _VIEWER),
    Route("POST", "/v1/explain", "post_explain", _VIEWER),
    Route("GET", "/v1/top", "get_top", _VIEWER, ("by", "over", "sort", "limit", "since")),
    Route("GET", "/v1/audit", "get_audit", _VIEWER, ("kind", "since", "limit", "after")),
    Route("GET", "/v1/overrides", "get_overrides", _VIEWER),
    Route("POST", "/v1/overrides", "post_override", _OPERATOR, ("dryRun",), _VIEWER),
    Route("GET", "/v1/overrides/{id}", "get_override", _VIEWER),
    Route("PATCH", "/v1/overrides/{id}", "patch_override", _OPERATOR),
    Route("DELETE", "/v1/overrides/{id}", "delete_override", _OPERATOR),
    Route("PUT", "/v1/enforcement", "put_enforcement", _OPERATOR),
    Route("GET", "/v1/policy", "get_policy", _VIEWER),
    Route("PUT", "/v1/policy", "put_policy", _ADMIN, ("dryRun", "generation", "reason"), _VIEWER),
    Route("GET", "/v1/policy/history", "get_history", _VIEWER),
    Route("GET", "/v1/policy/history/{generation}", "get_generation", _VIEWER),
    Route("POST", "/v1/policy/rollback", "post_rollback", _ADMIN),
)
"""Ordered by what they are about."""

OPEN_PATHS: Final = frozenset(route.path for route in ROUTES if route.role is None)
BY_RESOURCE: Final = {(route.method, route.path): route for route in ROUTES}
DRY_RUN: Final = "dryRun"


def route_of(method: str, path: str) -> Route | None:
    """The route behind a method and the canonical path of what matched; HEAD is like GET."""
    return BY_RESOURCE.get(("GET" if method == "HEAD" else method, path))


def bound(*groups: object) -> list[web.RouteDef]:
    """The table with the methods of ``groups`` that its handlers name."""
    methods = {
        route.handler: getattr(group, route.handler)
        for route in ROUTES
        for group in groups
        if hasattr(group, route.handler)
    }
    return [web.route(route.method, route.path, methods[route.handler]) for route in ROUTES]


def query_problem(route: Route, names: list[str]) -> str:
    """Why a request with these query parameters, one for each value, is not understood, or ""."""
    unknown = [name for name in names if name not in route.query]
    if unknown:
        accepted = f"accepted: {', '.join(route.query)}" if route.query else "none is accepted here"
        return f"unknown query parameter {unknown[0][:64]!r}; {accepted}"
    twice = [name for name in route.query if names.count(name) > 1]
    return f"query parameter {twice[0]!r} is given twice" if twice else ""
