"""What a policy's rule says of the relay: whether its requests may be answered there, and how.

A rule is a class of clients and, by its ``resources``, of what they ask for. It decides together
with ``relay.resources`` of the GuardConfig: only what that names is relayed at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .fields import Section


class RelayUse(Enum):
    """Whether lists and watches of a rule may be answered by the relay."""

    USE = "use"
    BYPASS = "bypass"


@dataclass(frozen=True, slots=True)
class RelayRule:
    """``relaxed_reads``: whether lists without a resourceVersion may be answered as the cache holds
    them, instead of after proof that it is fresh; None leaves that to the resource's setting."""

    use: RelayUse = RelayUse.USE
    relaxed_reads: bool | None = None


USUAL = RelayRule()


def read_relay_rule(section: Section) -> RelayRule:
    """The fields ``relay`` and ``relaxedReads`` of a rule or the default."""
    use = section.choice("relay", RelayUse, RelayUse.USE)
    relaxed = section.boolean("relaxedReads")
    if use is RelayUse.BYPASS and relaxed is not None:
        section.complain("relaxedReads", "says nothing where relay is bypass; drop one of the two")
    return RelayRule(use, relaxed)
