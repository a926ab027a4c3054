"""What a ConfigMap and a Secret say of TLS, and what people are told who have written them wrongly."""

import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from eventing.back_end_settings import SettingsReader
from eventing.channels import BackEndSettings
from tests.support.authority import Authority
from tests.support.faults import settings_fault

PASSWORD = "hunter2-not-to-be-seen"
REMEDY = "make it: kubectl create configmap"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("pki"))


def reader(secret: dict[str, str | bytes] | None = None, *, name: str = "knative-eventing/login") -> SettingsReader:
    encoded = {key: value.encode() if isinstance(value, str) else value for key, value in (secret or {}).items()}
    return SettingsReader(BackEndSettings({}, encoded if secret is not None else None, name), "durable-config", remedy=REMEDY)


def told_by(attempt: Callable[[], object]) -> tuple[str, str]:
    return settings_fault(attempt, PASSWORD)


def test_without_a_config_map() -> None:
    found = told_by(lambda: SettingsReader(BackEndSettings(None), "durable-config", remedy=REMEDY))
    assert found == ("ConfigMapNotFound", f"there is no ConfigMap knative-eventing/durable-config; {REMEDY}")


def test_a_secret_that_is_not_there_is_missed_only_where_one_is_named() -> None:
    assert not reader(name="").names_secret("the key url")
    assert reader({}).names_secret("the key url")
    assert told_by(lambda: reader().names_secret("the key url")) == (
        "SecretNotFound",
        "there is no Secret knative-eventing/login, which ConfigMap knative-eventing/durable-config names in auth.secret.ref.name; make it, with the key url",
    )


def test_values() -> None:
    given = reader({"user": " u\n", "password": b"\xff"})
    assert (given.text("user"), given.word("user"), given.word("other")) == (" u\n", "u", "")
    assert told_by(lambda: given.text("password"))[1] == "Secret knative-eventing/login, key password: it is not UTF-8 text"


def test_tls_with_a_certificate_of_ours_leaves_no_file(pki: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    given = reader(
        {"ca.crt": pki.ca_cert.read_bytes(), "user.crt": pki.client_cert.read_bytes(), "user.key": pki.client_key.read_bytes()}
    )
    material = given.tls()
    context = material.context()
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    assert list(tmp_path.iterdir()) == []
    assert given.tls().context() is context, "one context for all connections"
    assert "BEGIN" not in f"{material} {material!r}"
    alone = given.tls(own_certificate=False)
    assert (alone.ca, alone.certificate, alone.key) == (material.ca, "", "")


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ({"ca.crt": PASSWORD}, "key ca.crt: no certificates in PEM"),
        ({"user.key": PASSWORD}, "key user.crt: it is not there, and user.key is of no use without it"),
        ({"user.crt": PASSWORD}, "key user.key: it is not there, and user.crt is of no use without it"),
        ({"user.crt": PASSWORD, "user.key": PASSWORD}, "keys user.crt and user.key: no certificate in PEM"),
    ],
)
def test_tls_that_is_none(secret: dict[str, str | bytes], words: str) -> None:
    reason, text = told_by(reader(secret).tls)
    assert reason == "InvalidSecret"
    assert text.startswith(f"Secret knative-eventing/login, {words}")


def test_an_encrypted_key_is_not_asked_for_at_the_terminal(pki: Authority) -> None:
    key = serialization.load_pem_private_key(pki.client_key.read_bytes(), None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    given = reader({"user.crt": pki.client_cert.read_bytes(), "user.key": key})
    assert "the private key is encrypted" in told_by(given.tls)[1]
