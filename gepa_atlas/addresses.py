"""Where an HTTP request may go: the host that was configured, and with `refuse` no address that is not public.

A name is resolved once and the request is sent to the address that was checked, so that a name that changes between the check and
the connection (DNS rebinding) leads nowhere else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gepa_atlas.errors import BadRequest, Unreachable

if TYPE_CHECKING:
    import httpx


_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # a gateway sends it on to the IPv4 address in its last four bytes
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")  # IETF protocol assignments, which older Pythons call global


def host_of(url: str) -> str:
    """`scheme:host:port`, the port always there: what calls that share limits have in common."""
    parts = urlsplit(url)
    return f"{parts.scheme}:{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


async def public_only(request: httpx.Request, where: str) -> httpx.Request:
    """The same request, bound to an address that was found to be public. BadRequest when any address of the host is not."""
    import httpx

    host = request.url.host
    found = await _addresses(host, request.url.port or (443 if request.url.scheme == "https" else 80), where)
    for address in found:
        if not _public(address):
            raise BadRequest(f"{where} is at the address {address}, which is not public; set private_addresses: allow if it is meant")
    return httpx.Request(
        request.method,
        request.url.copy_with(host=found[0]),
        headers=request.headers,  # Host among them: it still names the configured host
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )


async def _addresses(host: str, port: int, where: str) -> list[str]:
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"no address for {where}: {error.strerror or error}") from None
    return [str(row[4][0]).partition("%")[0] for row in rows]


def _public(text: str) -> bool:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        address = address.ipv4_mapped or address.sixtofour or translated or address
    return address.is_global and not address.is_multicast and address not in _PROTOCOLS
