"""Which addresses a URL of a stranger may lead to: public ones, decided after the name was resolved."""

import ipaddress
import socket
from collections.abc import Callable, Sequence

from studiolo.errors import UnacceptableError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]
"""The addresses of a host; raises `OSError`."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[str]:
    """The addresses that the machine's resolver knows for a host."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def public_address(host: str, port: int, networks: Sequence[str] = (), resolver: Resolve = resolve) -> str:
    """The address to connect to for `host`: the name is not to be resolved a second time.

    Raises `UnacceptableError` when any of its addresses is neither public nor in one of `networks`, `OSError` when it
    has none.
    """
    found = resolver(host, port)
    allowed = [ipaddress.ip_network(network) for network in networks]
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not is_public(address) and not any(address in network for network in allowed):
            raise UnacceptableError("address", f"{host} leads to an address that is not public.")
    if not found:
        raise OSError(f"{host} has no address")
    return found[0]


def is_public(address: Address) -> bool:
    """Whether anybody on the internet could reach it: not private, loopback, link-local, multicast or reserved.

    IPv6 addresses that carry an IPv4 one are as public as that.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        carried = [address.sixtofour, *(address.teredo or ())]
        if any(inner is not None and not is_public(inner) for inner in carried):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified
