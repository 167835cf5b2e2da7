"""Which addresses a URL of a stranger may lead to: public ones, decided after the name was resolved, and the one that
was decided on is called.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence

import httpx

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


def careful_client(ca_file: str | None) -> httpx.AsyncClient:
    """A client that heeds no proxies of the environment, keeps no connection, and trusts `ca_file` in place of the
    usual authorities. It knows no time limits: httpx's are for one read each, and a server may also drip.
    """
    trust: ssl.SSLContext | bool = ssl.create_default_context(cafile=ca_file) if ca_file else True
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(verify=trust, trust_env=False, timeout=None, limits=limits)


async def pinned_request(
    client: httpx.AsyncClient,
    method: str,
    url: httpx.URL,
    headers: Mapping[str, str],
    networks: Sequence[str] = (),
    resolver: Resolve = resolve,
    content: bytes | None = None,
) -> httpx.Request:
    """A request for `url` that goes to the address that was looked at; its certificate is checked by the name.

    Send it without following redirects. Raises as `public_address` does.
    """
    host, port = url.raw_host.decode(), url.port or {"http": 80, "https": 443}[url.scheme]
    address = await asyncio.to_thread(public_address, host, port, networks, resolver)
    named = {"host": url.netloc.decode(), "user-agent": "studiolo", **headers}
    extensions = {"sni_hostname": host}
    return client.build_request(
        method, url.copy_with(host=address), content=content, headers=named, extensions=extensions
    )


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
