"""Pods as a cluster of workloads has them: about 4 KB each, most of it boilerplate."""

from __future__ import annotations

from apiguard.demo.encoding import Object, encode

PADDING = "demo.apiguard.io/padding"
_TYPES = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


def pod_spec(app: str, node: str, image: str, token_volume: str) -> Object:
    return {
        "volumes": [_token_volume(token_volume)],
        "containers": [_container(app, image, token_volume)],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": app,
        "serviceAccount": app,
        "nodeName": node,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{state}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }
            for state in ("not-ready", "unreachable")
        ],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }


def _token_volume(name: str) -> Object:
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {
            "configMap": {
                "name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }
        },
        {
            "downwardAPI": {
                "items": [
                    {
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }
                ]
            }
        },
    ]
    return {"name": name, "projected": {"sources": sources, "defaultMode": 420}}


def _probe(path: str, delay: int) -> Object:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "initialDelaySeconds": delay,
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


def _container(app: str, image: str, token_volume: str) -> Object:
    field = {"apiVersion": "v1", "fieldPath": "metadata.name"}
    return {
        "name": app,
        "image": image,
        "ports": [
            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
        ],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": field}},
            {"name": "LOG_LEVEL", "value": "info"},
            {"name": "LISTEN_ADDRESS", "value": ":8080"},
        ],
        "resources": {
            "limits": {"cpu": "500m", "memory": "512Mi"},
            "requests": {"cpu": "100m", "memory": "128Mi"},
        },
        "volumeMounts": [
            {
                "name": token_volume,
                "readOnly": True,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
            }
        ],
        "livenessProbe": _probe("/healthz", 10),
        "readinessProbe": _probe("/ready", 5),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def pod_status(
    app: str, image: str, host: str, ip: str, started: str, *, ready: bool, restarts: int
) -> Object:
    """Status of a running pod; ``started`` is a timestamp."""
    conditions = [
        {
            "type": kind,
            "status": "True" if ready or "Ready" not in kind else "False",
            "lastProbeTime": None,
            "lastTransitionTime": started,
        }
        for kind in _TYPES
    ]
    digest = f"{abs(hash_text(image)):064x}"
    container: Object = {
        "name": app,
        "state": {"running": {"startedAt": started}},
        "lastState": {},
        "ready": ready,
        "restartCount": restarts,
        "image": image,
        "imageID": f"{image.partition(':')[0]}@sha256:{digest}",
        "containerID": f"containerd://{digest}",
        "started": True,
    }
    if restarts:
        ended = {"exitCode": 1, "reason": "Error", "startedAt": started, "finishedAt": started}
        container["lastState"] = {"terminated": ended}
    return {
        "phase": "Running",
        "conditions": conditions,
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": started,
        "containerStatuses": [container],
        "qosClass": "Burstable",
    }


def hash_text(text: str) -> int:
    """A stable number for a text; ``hash`` differs from process to process."""
    return int.from_bytes(text.encode().ljust(32, b"#")[:32], "big")


def padded(value: Object, size: int) -> Object:
    """``value`` with an annotation that brings its JSON to ``size`` bytes, if it is smaller."""
    missing = size - len(encode(value)) - len(PADDING) - 20
    if missing > 0:
        value["metadata"].setdefault("annotations", {})[PADDING] = "x" * missing
    return value
