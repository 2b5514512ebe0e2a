"""Names in scenarios -> client models."""

from __future__ import annotations

from collections.abc import Mapping

from .agents import CarefulTelemetry, CarelessTelemetry, CniAgent, CoreDns, Informers, Readers
from .client import Client
from .control import BrokenClient, Controller, KubectlUser
from .nodes import Kubelet, KubeProxy

MODELS: Mapping[str, type[Client]] = {
    "kubelet": Kubelet,
    "kube-proxy": KubeProxy,
    "coredns": CoreDns,
    "cni-agent": CniAgent,
    "careful-telemetry": CarefulTelemetry,
    "careless-telemetry": CarelessTelemetry,
    "informer": Informers,
    "reader": Readers,
    "controller": Controller,
    "kubectl": KubectlUser,
    "broken": BrokenClient,
}
