"""Tables: the columns kubectl prints, computed by the server from each object.

Source: pkg/printers/internalversion/printers.go; kinds without a layout show Name and Age.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from apiguard.ages import rough, two_units
from apiguard.demo.encoding import Object
from apiguard.demo.resources import Resource, at

Cell = Callable[[Object, float], Any]
NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """``wide`` columns have priority 1: shown with ``-o wide`` only."""

    name: str
    cell: Cell
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of one kind; ``now`` is wall-clock seconds, for ages."""

    columns: tuple[Column, ...]
    definitions: list[Object]

    def cells(self, value: Object, now: float) -> list[Any]:
        return [column.cell(value, now) for column in self.columns]

    def blank(self) -> list[Any]:
        """Cells of a bookmark's row."""
        zeros: dict[str, Any] = {"integer": 0, "string": ""}
        return [zeros.get(column.type, "") for column in self.columns]


def parse_time(text: str) -> float:
    """RFC 3339 in UTC, with or without a fraction -> seconds since the epoch."""
    return float(calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")))


def human_duration(seconds: float) -> str:
    """As apimachinery's duration.HumanDuration: two units while they matter."""
    if seconds < 0:
        return "<invalid>" if seconds < -1 else "0s"
    days = int(seconds) // 86_400
    if days < 365 * 2:
        return rough(seconds)
    years = days // 365
    return two_units(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _name(value: Object, _now: float) -> Any:
    return value["metadata"]["name"]


def _age(value: Object, now: float) -> Any:
    created = value["metadata"].get("creationTimestamp")
    return human_duration(now - parse_time(created)) if created else "<unknown>"


def _path(path: str, default: Any = NONE) -> Cell:
    get = at(path)

    def cell(value: Object, _now: float) -> Any:
        found = get(value)
        return default if found is None or found == "" else found

    return cell


def _count(path: str) -> Cell:
    get = at(path)
    return lambda value, _now: len(get(value) or ())


def _pod_ready(value: Object, _now: float) -> Any:
    statuses = at("status.containerStatuses")(value) or []
    ready = sum(1 for status in statuses if status.get("ready"))
    return f"{ready}/{len(at('spec.containers')(value) or [])}"


def _pod_status(value: Object, _now: float) -> Any:
    if value["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for status in at("status.containerStatuses")(value) or []:
        state = status.get("state") or {}
        for phase in ("waiting", "terminated"):
            if (state.get(phase) or {}).get("reason"):
                return state[phase]["reason"]
    return at("status.reason")(value) or at("status.phase")(value) or ""


def _pod_restarts(value: Object, now: float) -> Any:
    statuses = at("status.containerStatuses")(value) or []
    restarts = sum(int(status.get("restartCount", 0)) for status in statuses)
    finished = [at("lastState.terminated.finishedAt")(status) for status in statuses]
    last = max((parse_time(when) for when in finished if when), default=None)
    if not restarts or last is None:
        return str(restarts)
    return f"{restarts} ({human_duration(now - last)} ago)"


def _node_status(value: Object, _now: float) -> Any:
    conditions = at("status.conditions")(value) or []
    ready = [c.get("status") for c in conditions if c.get("type") == "Ready"]
    words = ["Unknown" if not ready else "Ready" if ready[0] == "True" else "NotReady"]
    if at("spec.unschedulable")(value):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(value: Object, _now: float) -> Any:
    prefix = "node-role.kubernetes.io/"
    labels = value["metadata"].get("labels") or {}
    roles = sorted(label[len(prefix) :] for label in labels if label.startswith(prefix))
    return ",".join(role for role in roles if role) or NONE


def _address(kind: str) -> Cell:
    def cell(value: Object, _now: float) -> Any:
        for address in at("status.addresses")(value) or []:
            if address.get("type") == kind:
                return address.get("address")
        return NONE

    return cell


def _service_ports(value: Object, _now: float) -> Any:
    ports = at("spec.ports")(value) or []
    shown = [
        f"{p.get('port')}:{p['nodePort']}/{p.get('protocol', 'TCP')}"
        if p.get("nodePort")
        else f"{p.get('port')}/{p.get('protocol', 'TCP')}"
        for p in ports
    ]
    return ",".join(shown) or NONE


def _pairs(path: str) -> Cell:
    get = at(path)

    def cell(value: Object, _now: float) -> Any:
        pairs = get(value) or {}
        return ",".join(f"{k}={v}" for k, v in sorted(pairs.items())) or NONE

    return cell


def _containers(field: str) -> Cell:
    get = at("spec.template.spec.containers")
    return lambda value, _now: ",".join(str(c.get(field, "")) for c in get(value) or ())


def _ready_of(path: str) -> Cell:
    ready, wanted = at("status.readyReplicas", 0), at(path, 0)
    return lambda value, _now: f"{ready(value)}/{wanted(value)}"


def _since(path: str) -> Cell:
    get = at(path)

    def cell(value: Object, now: float) -> Any:
        when = get(value)
        return human_duration(now - parse_time(when)) if when else "<unknown>"

    return cell


def _last_seen(value: Object, now: float) -> Any:
    when = value.get("lastTimestamp") or value.get("eventTime") or value.get("firstTimestamp")
    return human_duration(now - parse_time(when)) if when else "<unknown>"


def _event_object(value: Object, _now: float) -> Any:
    involved = value.get("involvedObject") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"


def _slice_ports(value: Object, _now: float) -> Any:
    ports = [str(p["port"]) for p in value.get("ports") or () if p.get("port") is not None]
    return ",".join(ports) or "<unset>"


def _slice_endpoints(value: Object, _now: float) -> Any:
    found = [a for e in value.get("endpoints") or () for a in e.get("addresses") or ()]
    shown = ",".join(found[:3])
    more = len(found) - 3
    return f"{shown} + {more} more..." if more > 0 else shown or "<unset>"


def _endpoints(value: Object, _now: float) -> Any:
    found = [
        f"{a.get('ip')}:{p.get('port')}"
        for subset in value.get("subsets") or ()
        for p in subset.get("ports") or ()
        for a in subset.get("addresses") or ()
    ]
    return ",".join(found[:3]) or NONE


_NAME = Column("Name", _name)
_AGE = Column("Age", _age)


def _replicas(path: str) -> Cell:
    return _path(path, 0)


_LAYOUTS: dict[str, tuple[Column, ...]] = {
    "Pod": (
        _NAME,
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _pod_restarts),
        _AGE,
        Column("IP", _path("status.podIP"), wide=True),
        Column("Node", _path("spec.nodeName"), wide=True),
        Column("Nominated Node", _path("status.nominatedNodeName"), wide=True),
        Column("Readiness Gates", lambda _value, _now: NONE, wide=True),
    ),
    "Node": (
        _NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        _AGE,
        Column("Version", _path("status.nodeInfo.kubeletVersion", "")),
        Column("Internal-IP", _address("InternalIP"), wide=True),
        Column("External-IP", _address("ExternalIP"), wide=True),
        Column("OS-Image", _path("status.nodeInfo.osImage", "<unknown>"), wide=True),
        Column("Kernel-Version", _path("status.nodeInfo.kernelVersion", "<unknown>"), wide=True),
        Column(
            "Container-Runtime",
            _path("status.nodeInfo.containerRuntimeVersion", "<unknown>"),
            wide=True,
        ),
    ),
    "Namespace": (_NAME, Column("Status", _path("status.phase", "")), _AGE),
    "Service": (
        _NAME,
        Column("Type", _path("spec.type", "ClusterIP")),
        Column("Cluster-IP", _path("spec.clusterIP")),
        Column("External-IP", lambda _value, _now: NONE),
        Column("Port(s)", _service_ports),
        _AGE,
        Column("Selector", _pairs("spec.selector"), wide=True),
    ),
    "Endpoints": (_NAME, Column("Endpoints", _endpoints), _AGE),
    "ConfigMap": (_NAME, Column("Data", _count("data")), _AGE),
    "Secret": (
        _NAME,
        Column("Type", _path("type", "Opaque")),
        Column("Data", _count("data")),
        _AGE,
    ),
    "ServiceAccount": (_NAME, Column("Secrets", _count("secrets"), "integer"), _AGE),
    "Event": (
        Column("Last Seen", _last_seen),
        Column("Type", _path("type", "")),
        Column("Reason", _path("reason", "")),
        Column("Object", _event_object),
        Column("Subobject", _path("involvedObject.fieldPath", ""), wide=True),
        Column("Source", _path("source.component", ""), wide=True),
        Column("Message", _path("message", "")),
        Column("First Seen", _since("firstTimestamp"), wide=True),
        Column("Count", _path("count", 1), wide=True),
        Column("Name", _name, wide=True),
    ),
    "Deployment": (
        _NAME,
        Column("Ready", _ready_of("spec.replicas")),
        Column("Up-to-date", _replicas("status.updatedReplicas"), "integer"),
        Column("Available", _replicas("status.availableReplicas"), "integer"),
        _AGE,
        Column("Containers", _containers("name"), wide=True),
        Column("Images", _containers("image"), wide=True),
        Column("Selector", _pairs("spec.selector.matchLabels"), wide=True),
    ),
    "ReplicaSet": (
        _NAME,
        Column("Desired", _replicas("spec.replicas"), "integer"),
        Column("Current", _replicas("status.replicas"), "integer"),
        Column("Ready", _replicas("status.readyReplicas"), "integer"),
        _AGE,
        Column("Containers", _containers("name"), wide=True),
        Column("Images", _containers("image"), wide=True),
        Column("Selector", _pairs("spec.selector.matchLabels"), wide=True),
    ),
    "StatefulSet": (
        _NAME,
        Column("Ready", _ready_of("spec.replicas")),
        _AGE,
        Column("Containers", _containers("name"), wide=True),
        Column("Images", _containers("image"), wide=True),
    ),
    "DaemonSet": (
        _NAME,
        Column("Desired", _replicas("status.desiredNumberScheduled"), "integer"),
        Column("Current", _replicas("status.currentNumberScheduled"), "integer"),
        Column("Ready", _replicas("status.numberReady"), "integer"),
        Column("Up-to-date", _replicas("status.updatedNumberScheduled"), "integer"),
        Column("Available", _replicas("status.numberAvailable"), "integer"),
        Column("Node Selector", _pairs("spec.template.spec.nodeSelector")),
        _AGE,
        Column("Containers", _containers("name"), wide=True),
        Column("Images", _containers("image"), wide=True),
        Column("Selector", _pairs("spec.selector.matchLabels"), wide=True),
    ),
    "Lease": (_NAME, Column("Holder", _path("spec.holderIdentity", "")), _AGE),
    "EndpointSlice": (
        _NAME,
        Column("AddressType", _path("addressType", "")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        _AGE,
    ),
    "CustomResourceDefinition": (
        _NAME,
        Column("Created At", _path("metadata.creationTimestamp", "")),
    ),
}


def _definition(column: Column) -> Object:
    return {
        "name": column.name,
        "type": column.type,
        "format": "name" if column is _NAME else "",
        "description": f"{column.name} of the object.",
        "priority": 1 if column.wide else 0,
    }


def _layout(columns: tuple[Column, ...]) -> Layout:
    return Layout(columns, [_definition(column) for column in columns])


_COMPILED = {kind: _layout(columns) for kind, columns in _LAYOUTS.items()}
_DEFAULT = _layout((_NAME, _AGE))


def layout(resource: Resource) -> Layout:
    """The columns of a resource; custom ones show Name and Age."""
    return _DEFAULT if resource.custom else _COMPILED.get(resource.kind, _DEFAULT)
