"""The sockets that the mesh listens on, bound before anything else starts."""

import errno
import socket
from typing import Final

from eventing.errors import StartError

__all__ = ["advertised_host", "bind", "port_of"]

_BACKLOG: Final = 1024


def bind(name: str, host: str, port: int, flag: str) -> socket.socket:
    """Listen on (host, port); 0 picks a free port. Raises StartError, which names what to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise StartError(f"host {host!r} is no address of this machine ({error}): choose another with --host") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            reason, advice = "is in use", f"{flag} (0 picks a free one)"
        elif error.errno == errno.EACCES:
            reason, advice = "needs privileges", f"{flag}, above 1023"
        else:
            reason, advice = f"cannot be used ({error.strerror})", f"--host or {flag}"
        raise StartError(f"port {port} on {host}, for the {name}, {reason}: choose another with {advice}") from error
    return listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def advertised_host(host: str) -> str:
    """The host to put in URLs: one that can be connected to (a wildcard becomes loopback), IPv6 in brackets."""
    if host in {"", "0.0.0.0"}:
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
