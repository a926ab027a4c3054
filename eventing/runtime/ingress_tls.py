"""The certificate with which the ingress speaks https: read at the start, read again when its files change."""

import ssl
from pathlib import Path

from eventing.errors import StartError
from eventing.runtime.settings import IngressSettings

__all__ = ["IngressTls", "check", "trust_anchors"]


class IngressTls:
    """`context` is for the listener; TLS 1.2 or newer, HTTP/1.1. Raises StartError, which names the file at fault."""

    def __init__(self, settings: IngressSettings) -> None:
        self._certificate = settings.certificate
        self._key = settings.key or settings.certificate
        self._seen = self._stamps()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._load()

    def refresh(self) -> bool:
        """Load the files again where they have changed; whether they had. New connections get the new certificate.

        Raises StartError where they are not good; the old certificate stays in use then, and the next call tries again.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._load()
        self._seen = stamps
        return True

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        """What changes when somebody replaces a file, also through a symbolic link (as Kubernetes does with Secrets)."""
        found = []
        for path in (self._certificate, self._key):
            try:
                stat = Path(path).stat()
            except OSError as error:
                raise StartError(f"{path}, for https of the ingress, cannot be read: {error.strerror}") from error
            found.append((stat.st_mtime_ns, stat.st_ino))
        return tuple(found)

    def _load(self) -> None:
        # Into another context first: a pair that does not match must not leave half of it in the one that serves.
        for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.context):
            try:
                context.load_cert_chain(self._certificate, self._key, password=self._encrypted)
            except ssl.SSLError as error:
                raise StartError(
                    f"{self._certificate} and {self._key} are no certificate and its key, PEM both: {error.reason or error}"
                ) from error
            except OSError as error:
                raise StartError(
                    f"{self._certificate} or {self._key}, for https of the ingress, cannot be read: {error.strerror}"
                ) from error

    def _encrypted(self) -> str:
        """OpenSSL would ask the terminal otherwise."""
        raise StartError(f"the key {self._key} is encrypted: give it without a passphrase, readable by this user alone")


def check(settings: IngressSettings) -> None:
    """Raise StartError where the ingress could not speak https with these files; before anything has been started."""
    if settings.certificate:
        IngressTls(settings)
        trust_anchors(settings)


def trust_anchors(settings: IngressSettings) -> str:
    """What a client must trust to speak to the ingress, PEM: the file given as CA, else what in the certificate's file has signed
    itself; "" where the usual authorities are enough, or the ingress speaks http. Raises StartError."""
    from cryptography import x509  # some 10 ms, and only for https
    from cryptography.hazmat.primitives.serialization import Encoding

    path = settings.ca or settings.certificate
    if not path:
        return ""
    try:
        found = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except OSError as error:
        raise StartError(f"{path}, for https of the ingress, cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StartError(f"{path} holds no certificates, PEM: {error}") from error
    anchors = found if settings.ca else [certificate for certificate in found if certificate.issuer == certificate.subject]
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in anchors)
