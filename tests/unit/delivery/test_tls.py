"""TLS contexts are made off the loop, once for each bundle of authorities, and not for ever."""

import asyncio
import ssl
from pathlib import Path

import pytest

from eventing.apiserver.certificates import ensure_certificates
from eventing.delivery.tls import TlsContexts


async def test_one_for_all_who_trust_the_same(tmp_path: Path) -> None:
    authority = ensure_certificates(tmp_path / "pki", ["localhost"]).ca_cert.read_text()
    authority = f"# Autorité de certification\n{authority}# Ende\n"
    contexts = TlsContexts()
    made = await asyncio.gather(*(contexts.get(authority) for _ in range(5)), contexts.get(""))
    assert len(set(map(id, made))) == 2
    assert len(made[0].get_ca_certs()) == len(made[5].get_ca_certs()) + 1
    assert made[0].verify_mode is ssl.CERT_REQUIRED
    assert made[0].check_hostname
    assert await contexts.get(authority) is made[0]


async def test_what_is_no_bundle_is_said_each_time_and_the_oldest_makes_room() -> None:
    contexts = TlsContexts(kept=2)
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match="no certificates in PEM"):
            await contexts.get("nonsense")
    first = await contexts.get("")
    block = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----"
    for broken in ("ünsinn", block.format("ünsinn"), block.format("AAAA")):
        with pytest.raises(ssl.SSLError, match="no certificates in PEM"):
            await contexts.get(broken)
    assert await contexts.get("") is not first
