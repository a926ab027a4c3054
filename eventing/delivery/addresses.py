"""Where deliveries may connect: every resolved address is checked, and the connection goes to the address that was checked."""

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from eventing.delivery.tls import TlsContexts
from eventing.wire.client import Connection, Origin

__all__ = ["AddressGuard", "Network", "Resolve", "address_guard", "connect"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a host, in the order in which to try them. Raises socket.gaierror."""

# Link-local, where clouds keep their metadata services, and those metadata addresses that are elsewhere (AWS over IPv6,
# Alibaba, Oracle); the unspecified address, which Linux takes for loopback; multicast and broadcast.
DENIED_BY_DEFAULT: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::254/128",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "0.0.0.0/8",
        "::/128",
        "224.0.0.0/4",
        "ff00::/8",
        "255.255.255.255/32",
    )
)
NEXT_ADDRESS_S: Final = 2.0  # for an address that is not the last of its name
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """`allow` beats `deny`. An IPv4 address inside an IPv6 one (mapped, compatible, 6to4, Teredo, NAT64) is judged
    as the IPv4 address too."""

    allow: Sequence[Network] = ()
    deny: Sequence[Network] = field(default=DENIED_BY_DEFAULT)

    def check(self, text: str) -> None:
        """Return if a connection to the address is allowed, else raise PermissionError that says which address and why."""
        address = ipaddress.ip_address(text.partition("%")[0])
        for form in (address, *_inner(address)):
            if any(form in network for network in self.allow if network.version == form.version):
                return
        for form in (address, *_inner(address)):
            for network in self.deny:
                if network.version == form.version and form in network:
                    raise PermissionError(f"the address {text} is denied: it is in {network}")


def address_guard(allow: Iterable[str] = (), deny: Iterable[str] = ()) -> AddressGuard:
    """A guard of ranges in CIDR notation (one address is a range too); `deny` comes to what is denied by default.

    Raises ValueError that says which one is none."""
    return AddressGuard(tuple(_ranges(allow)), (*DENIED_BY_DEFAULT, *_ranges(deny)))


def _ranges(texts: Iterable[str]) -> Iterable[Network]:
    return [ipaddress.ip_network(text.strip()) for text in texts]


def _inner(address: Address) -> list[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address] = [inner for inner in (address.ipv4_mapped, address.sixtofour) if inner is not None]
    if address.teredo is not None:
        found += address.teredo
    if address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 0xFFFF):  # ::1 is no IPv4 address
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found


async def connect(
    origin: Origin, factory: Callable[[], Connection], *, guard: AddressGuard, resolve: Resolve, contexts: TlsContexts
) -> None:
    """Connect to the first address that answers. One denied address among a name's answers refuses the name.

    Raises PermissionError, OSError (socket.gaierror for names), ssl.SSLError.
    """
    if origin.scheme not in {"http", "https"}:
        raise PermissionError(origin.host)  # see `eventing.delivery.connections.unreachable`
    addresses = await resolve(origin.host)
    for address in addresses:
        guard.check(address)
    loop = asyncio.get_running_loop()
    context = await contexts.get(origin.ca_certs) if origin.scheme == "https" else None
    error: OSError = OSError(f"{origin.host} has no address")
    for number, address in enumerate(addresses, start=1):
        try:
            # One address that drops what it is sent must not use up the time of those behind it.
            async with asyncio.timeout(NEXT_ADDRESS_S if number < len(addresses) else None):
                await loop.create_connection(
                    factory, address, origin.port, ssl=context, server_hostname=origin.host if context else None
                )
        except ssl.SSLError:
            raise
        except OSError as failure:
            if context and isinstance(failure, ConnectionResetError) and failure.errno is None:  # not by the kernel
                why = "the connection was closed during the handshake, as for want of a common protocol version"
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, why) from failure
            error = failure
        else:
            return
    raise error
