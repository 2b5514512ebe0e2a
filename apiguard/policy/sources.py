"""Which networks a rule means.

A table groups networks by length, so looking an address up is one dictionary access per distinct
length in the policy, however many networks there are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """``10.0.0.0/8``, ``2001:db8::/32`` or one address. Raises ValueError with the reason."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("is no network in CIDR notation, as in 10.0.0.0/8") from None
    raise ValueError(f"has bits set beyond its prefix; did you mean {meant}?")


class SourceTable:
    """Networks, each with the rules that name it."""

    __slots__ = ("_by_shift",)

    def __init__(self, networks: Iterable[tuple[Network, int]]) -> None:
        self._by_shift: dict[tuple[int, int], dict[int, int]] = {}
        for network, mask in networks:
            shift = network.max_prefixlen - network.prefixlen
            prefixes = self._by_shift.setdefault((network.version, shift), {})
            prefix = int(network.network_address) >> shift
            prefixes[prefix] = prefixes.get(prefix, 0) | mask

    def mask(self, source: str) -> int:
        """Which rules hold ``source``, a textual address; none if it is no address.

        An IPv4 client seen on a dual-stack socket (``::ffff:10.0.0.1``) is the IPv4 address.
        """
        try:
            address = ipaddress.ip_address(source)
        except ValueError:
            return 0
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        number = int(address)
        mask = 0
        for (version, shift), prefixes in self._by_shift.items():
            if version == address.version:
                mask |= prefixes.get(number >> shift, 0)
        return mask
