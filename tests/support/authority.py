"""A certificate authority for a test, with a server's and a client's certificate, as PEM files."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority"]

_LIFE = timedelta(days=2)


@dataclass(frozen=True)
class Authority:
    """`ca_cert` is what clients trust; the server's certificate is for 127.0.0.1 and localhost."""

    ca_cert: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path

    @classmethod
    def create(cls, directory: Path) -> Self:
        names = ("ca.crt", "server.crt", "server.key", "client.crt", "client.key")
        made = cls(*(directory / name for name in names))
        ca_key, ca_name = ec.generate_private_key(ec.SECP256R1()), _name("test authority")
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
        subject_key = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
        ca = (
            _builder(ca_name, ca_name, ca_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(subject_key, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        made.ca_cert.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        for name, purpose, cert, private in (
            ("test server", ExtendedKeyUsageOID.SERVER_AUTH, made.server_cert, made.server_key),
            ("test client", ExtendedKeyUsageOID.CLIENT_AUTH, made.client_cert, made.client_key),
        ):
            key = ec.generate_private_key(ec.SECP256R1())
            hosts = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            signed = (
                _builder(_name(name), ca_name, key)
                .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
                .add_extension(issuer, critical=False)
                .sign(ca_key, hashes.SHA256())
            )
            cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
            form = serialization.PrivateFormat.PKCS8
            private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return made


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
    )
