"""TLS contexts: whom to trust for a destination.

To read the system's authorities takes 40 ms and more, so that a context is made in a thread, and kept: many connections, of many
subscriptions, trust the same ones.
"""

import asyncio
import re
import ssl
from typing import Final

__all__ = ["TlsContexts"]

_CERTIFICATE: Final = re.compile(
    r"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----.+?-----END (?:TRUSTED |X509 )?CERTIFICATE-----", re.DOTALL
)
KEPT: Final = 128  # contexts, some 1 MB each


class TlsContexts:
    """One context per bundle of authorities, at most `kept` of them; the one made first goes first."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._made: dict[str, asyncio.Future[ssl.SSLContext]] = {}

    async def get(self, ca_certs: str) -> ssl.SSLContext:
        """Trusts the system's authorities and those of `ca_certs` (PEM). Raises ssl.SSLError where that is none."""
        made = self._made.get(ca_certs)
        if made is None or (made.done() and (made.cancelled() or made.exception() is not None)):
            while len(self._made) >= self._kept:
                del self._made[next(iter(self._made))]
            made = self._made[ca_certs] = asyncio.get_running_loop().run_in_executor(None, _context, ca_certs)
        return await asyncio.shield(made)


def _context(ca_certs: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_certs:
        # Bundles have comments, in any language, between their certificates.
        blocks = "\n".join(_CERTIFICATE.findall(ca_certs))
        try:
            context.load_verify_locations(cadata=blocks)
        except (ssl.SSLError, ValueError, TypeError) as error:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "the CACerts of the destination are no certificates in PEM") from error
    context.set_alpn_protocols(["http/1.1"])
    return context
