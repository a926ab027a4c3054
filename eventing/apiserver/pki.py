"""Where the certificates are, and the process that makes them.

What can sign certificates is ten megabytes of code, wanted for some milliseconds once a year: it has a process of its own.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eventing.errors import StartError

__all__ = ["CertificatePaths", "certificates_for"]


@dataclass(frozen=True, slots=True)
class CertificatePaths:
    """Where the files are, PEM each, mode 0600."""

    ca_cert: Path
    ca_key: Path
    server_cert: Path
    server_key: Path

    @classmethod
    def of(cls, pki: Path) -> "CertificatePaths":
        return cls(pki / "ca.crt", pki / "ca.key", pki / "server.crt", pki / "server.key")


async def certificates_for(pki: Path, hosts: Sequence[str]) -> CertificatePaths:
    """As `certificates.ensure_certificates`, without its code in this process. Raises StartError."""
    if "cryptography" in sys.modules:
        from eventing.apiserver.certificates import ensure_certificates  # it is here already

        return ensure_certificates(pki, hosts)
    command = [sys.executable, "-P", "-m", "eventing.apiserver.certificates", str(pki), *hosts]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:
        reason = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise StartError(f"the certificates in {pki} cannot be made: {reason or f'exit code {process.returncode}'}")
    return CertificatePaths.of(pki)
