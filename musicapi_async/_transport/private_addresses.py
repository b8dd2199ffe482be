"""Refuses private and loopback addresses for downloads, where a client is set to do so.

A service that fetches links from its users must not be led into its own network.
Each connection is checked at the address that it really goes to, not by the name of the host, which may be
resolved again each time; so redirects, numeric forms, and names whose address changes are covered.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any, Final


class PrivateAddressError(OSError):
    """A connection that is not made."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "a private or loopback address")


EMBEDDED: Final = tuple(map(ipaddress.IPv6Network, ("::/96", "64:ff9b::/96")))
"""IPv6 networks whose last 32 bits are an IPv4 address (RFC 4291, 2.5.5.1; RFC 6052, 2.1)."""


def is_public(address: str) -> bool:
    """Return True if an IP address is one of the public internet, whichever form it has."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and any(ip in network for network in EMBEDDED):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address that a name was resolved to; `PrivateAddressError` for a private one."""
    family, kind, protocol, _, place = address
    if not is_public(str(place[0])):
        raise PrivateAddressError
    return socket.socket(family, kind, protocol)
