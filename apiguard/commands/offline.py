"""``apiguard explain`` from files: the code that decides live requests, on full buckets."""

from __future__ import annotations

import time
from typing import Any

from apiguard.commands.reading import or_exit, read_settings
from apiguard.ctl.errors import UsageError
from apiguard.policy.compile import compile_policy
from apiguard.policy.config import AdminConfig, GuardConfig, ListenConfig, UpstreamConfig
from apiguard.policy.policy import Policy
from apiguard.runtime.control import Question
from apiguard.runtime.explaining import explain as explain_question
from apiguard.runtime.explaining import offline_gateway
from apiguard.runtime.reload import read_text


def explain_offline(asked: dict[str, Any], policy_path: str, config_path: str) -> dict[str, Any]:
    """The answer to a question with the fields of ``Question``, by name as in JSON.

    One of the paths is "".

    Exits 1 when a file is wrong; raises UsageError when the question is.
    """
    policy, config = or_exit(lambda: _read_policy(policy_path, config_path))
    question = Question(
        asked["method"],
        asked["target"],
        asked["userAgent"],
        asked["user"],
        tuple(asked["groups"]),
        asked["source"],
        asked["unverified"],
    )
    try:
        return explain_question(offline_gateway(policy, config), question, time.monotonic())
    except ValueError as error:
        raise UsageError(str(error)) from error


def _read_policy(policy_path: str, config_path: str) -> tuple[Policy, GuardConfig]:
    if not policy_path:
        _, config = read_settings(config_path)
        policy_path = config.policy_file
    else:
        config = GuardConfig(ListenConfig(""), UpstreamConfig(()), AdminConfig("", ""), "", "")
    return compile_policy(read_text(policy_path, "policy"), policy_path), config
