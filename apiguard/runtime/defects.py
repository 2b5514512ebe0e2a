"""Defects of our own: written down under an id, never shown.

Clients and operators see the id; the log has it beside the traceback.
"""

from __future__ import annotations

import logging
import secrets

_log = logging.getLogger("apiguard")


def report_defect(defect: Exception) -> str:
    """Logs the defect with its traceback; the id under which it stands there."""
    incident = secrets.token_hex(4)
    _log.error("defect in apiguard, incident %s", incident, exc_info=defect)
    return incident
