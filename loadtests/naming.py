"""Names that clients and the synthetic cluster share."""

from __future__ import annotations


def node_name(number: int) -> str:
    """As ``apiguard.demo.cluster`` names its nodes."""
    return f"node-{number:04d}"
