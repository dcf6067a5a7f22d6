"""Which hosts may be sent to: this machine and its network, but nothing that only clouds answer at.

A channel's address comes from whoever may set one up. It must not make the service ask, in its own
name, the metadata services from which machines in clouds get their credentials.
"""

from __future__ import annotations

import ipaddress
import socket

from soundpost.errors import ChannelRefusedError, ChannelUnreachableError

_METADATA = (
    ipaddress.ip_network("100.100.100.200/32"),
    ipaddress.ip_network("fd00:ec2::254/128"),
    ipaddress.ip_network("fd20:ce::254/128"),
    ipaddress.ip_network("168.63.129.16/32"),
)


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host that may be sent to, in the system's order.

    Connect to these and do not ask again: a second answer could be another one. Raises
    ChannelUnreachableError if the name is not known, ChannelRefusedError if all are off limits.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ChannelUnreachableError(host, f"no address is known: {error}") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = [address for address in addresses if is_allowed(address)]
    if not allowed:
        raise ChannelRefusedError(host, "link-local and metadata addresses are not sent to")
    return allowed


def is_allowed(address: str) -> bool:
    """Say whether an IP address may be sent to."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address in IPv6's clothes leads to the same place.
        ip = ip.ipv4_mapped or ip.sixtofour or _nat64(ip) or ip
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return False
    return not any(ip in network for network in _METADATA)


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip not in ipaddress.ip_network("64:ff9b::/96"):
        return None
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
