"""How a caller was proven, and whether that suffices to be answered from a cache.

What goes upstream is proven there once more. A cached answer is not: a token whose signature holds
may belong to a pod that is gone, and an API server may know no anonymous user at all. So a cache
asks for more than forwarding does, and whoever cannot give it goes upstream.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Proof(enum.Enum):
    """What stands behind an identity."""

    CERTIFICATE = "certificate"  # a client certificate, judged for this request
    CONFIRMED = "confirmed"  # upstream's own TokenReview named this identity
    LOCAL = "local"  # a signature or a static file, checked here and nowhere else
    ANONYMOUS = "anonymous"  # no credential presented
    NONE = "none"  # a credential nobody could prove yet


@dataclass(frozen=True, slots=True)
class Trust:
    """Which weaker proofs an operator accepts for cached answers.

    ``local_tokens``  tokens verified here only, and only while upstream cannot be asked: one
                      that was revoked is then good for its remaining lifetime
    ``anonymous``     callers without a credential. A review answers for system:anonymous even
                      where upstream has that user switched off (401), so only the operator can
                      know that upstream has it
    """

    local_tokens: bool = False
    anonymous: bool = False

    def suffices(self, proof: Proof, *, reachable: bool) -> bool:
        """Whether a caller so proven may be judged here; ``reachable``: upstream can be asked."""
        match proof:
            case Proof.CERTIFICATE | Proof.CONFIRMED:
                return True
            case Proof.LOCAL:
                return self.local_tokens and not reachable
            case Proof.ANONYMOUS:
                return self.anonymous
            case Proof.NONE:
                return False
