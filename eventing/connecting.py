"""Why no connection to a back end came about, in words for people; beside the port, for adapters."""

import os
import socket
import ssl

__all__ = ["why_no_tls", "why_unreached"]


def why_no_tls(error: ssl.SSLError) -> str:
    """What OpenSSL says. It holds nothing of any key."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return (error.reason or "the handshake failed").replace("_", " ").lower()


def why_unreached(error: OSError) -> str:
    """What the operating system says, without the address, which asyncio puts into `strerror`."""
    if error.errno is not None and error.errno > 0 and not isinstance(error, socket.gaierror):  # a look-up has numbers of its own
        return os.strerror(error.errno)
    return error.strerror or "the connection was closed"
