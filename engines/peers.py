"""Which addresses lie inside: a socket is judged by its peer, whatever name led there."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

LOCAL = "local"
_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)  # RFC 1918, RFC 3927, RFC 4193, RFC 4291; not 100.64.0.0/10: a carrier's network is not one's own


def peer_allowed(address: str, boundary: str, allowed_peers: tuple[str, ...] = ()) -> bool:
    """May a socket whose peer has this address carry text that must stay inside `boundary`?

    `allowed_peers` are networks in CIDR that the operator declared to lie inside.
    """
    if boundary != LOCAL:
        return True
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    networks = (*_LOCAL_NETWORKS, *_networks(allowed_peers))
    return any(ip in network for network in networks if network.version == ip.version)


@lru_cache(maxsize=256)
def _networks(listed: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(network, strict=False) for network in listed)
