"""What the deployment controller and the kubelets would do: pods for deployments, and their status.

``Rollouts`` notes deployments that changed and, when the cluster churns, brings pods and status in
line at once: a rollout takes no time here, and a new template replaces no running pods.
"""

from __future__ import annotations

from typing import Protocol

from apiguard.demo.encoding import Object
from apiguard.demo.resources import DEPLOYMENTS
from apiguard.demo.store import Change, Item, Store


class Workloads(Protocol):
    """The part of a cluster that runs pods; keys are those of deployments."""

    def adopt(self, deployment: Item, now: float) -> None:
        """Starts running a deployment, if it does not yet."""

    def scale(self, key: str, replicas: int, now: float) -> None:
        """Adds or removes pods until there are ``replicas``."""

    def abandon(self, key: str) -> None:
        """Removes the pods of a deployment that is gone."""


class Rollouts:
    """Deployments whose status lags behind their generation, of one store."""

    def __init__(self, store: Store, workloads: Workloads) -> None:
        self._store = store
        self._workloads = workloads
        self._changed: dict[str, None] = {}
        store.collections[DEPLOYMENTS].listeners.append(self._note)

    def settle(self, now: float) -> None:
        """Does what is due; ``now`` is wall-clock seconds."""
        changed, self._changed = self._changed, {}
        for key in changed:
            item = self._store.collections[DEPLOYMENTS].get(key)
            if item is None:
                self._workloads.abandon(key)
                continue
            replicas = int((item.value.get("spec") or {}).get("replicas", 1))
            self._workloads.adopt(item, now)
            self._workloads.scale(key, replicas, now)
            status = settled_status(int(item.value["metadata"].get("generation", 1)), replicas)
            value = {**item.value, "metadata": dict(item.value["metadata"]), "status": status}
            self._store.update(DEPLOYMENTS, value)

    def _note(self, change: Change) -> None:
        item = change.item
        if item is not None:
            observed = (item.value.get("status") or {}).get("observedGeneration")
            if observed == item.value["metadata"].get("generation"):
                return
        self._changed[change.subject.key] = None


def settled_status(generation: int, replicas: int) -> Object:
    """The status of a deployment that is where it wants to be."""
    counted = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    conditions = (
        ("Available", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        ("Progressing", "NewReplicaSetAvailable", "The deployment has successfully progressed."),
    )
    return {
        "observedGeneration": generation,
        **(dict.fromkeys(counted, replicas) if replicas else {}),
        "conditions": [
            {"type": kind, "status": "True", "reason": reason, "message": message}
            for kind, reason, message in conditions
        ],
    }
