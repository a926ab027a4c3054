"""The API server's own certificate authority, and the certificate that it signs.

`python -m eventing.apiserver.certificates PKI HOST…` makes what is missing.
"""

import ipaddress
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from eventing.apiserver.pki import CertificatePaths

__all__ = ["CertificatePaths", "ensure_certificates"]

_AUTHORITY_LIFE: Final = timedelta(days=3650)
_SERVER_LIFE: Final = timedelta(days=365)
_RENEW_BEFORE: Final = timedelta(days=30)
_CLOCK_SKEW: Final = timedelta(hours=1)


def ensure_certificates(pki: Path, hosts: Iterable[str], *, now: datetime | None = None) -> CertificatePaths:
    """Make what is missing in `pki`: a CA, kept for ten years, and a server certificate for `hosts` (names and addresses).

    The server certificate is made anew if it is for other hosts, not by this CA, or within 30 days of its end; kubeconfigs
    stay good because the CA stays.
    """
    now = now or datetime.now(UTC)
    pki.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = CertificatePaths.of(pki)
    authority = _read(paths.ca_cert, paths.ca_key)
    if authority is None or authority[0].not_valid_after_utc - _RENEW_BEFORE < now:
        authority = _authority(now)
        _write(paths.ca_cert, paths.ca_key, *authority)
    names = _names(hosts)
    server = _read(paths.server_cert, paths.server_key)
    if server is None or not _serves(server[0], authority[0], names, now):
        _write(paths.server_cert, paths.server_key, *_server(authority, names, now))
    return paths


_Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _read(cert: Path, key: Path) -> _Pair | None:
    """The pair, or None where it is missing, cannot be read or does not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(cert.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or certificate.public_key() != private.public_key():
        return None
    return certificate, private


def _names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host.strip("[]"))))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _serves(certificate: x509.Certificate, authority: x509.Certificate, names: list[x509.GeneralName], now: datetime) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
        covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return set(names) <= set(covered) and certificate.not_valid_after_utc - _RENEW_BEFORE > now


def _authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "eventing-mesh CA")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, key, now, _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()), key


def _server(authority: _Pair, names: list[x509.GeneralName], now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "eventing-mesh API server")])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority[1].public_key())
    builder = (
        _builder(name, authority[0].subject, key, now, _SERVER_LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
    )
    return builder.sign(authority[1], hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _write(cert: Path, key: Path, certificate: x509.Certificate, private: ec.EllipticCurvePrivateKey) -> None:
    form = serialization.PrivateFormat.PKCS8
    pem = private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    _write_private(key, pem)
    _write_private(cert, certificate.public_bytes(serialization.Encoding.PEM))


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


if __name__ == "__main__":
    ensure_certificates(Path(sys.argv[1]), sys.argv[2:])
