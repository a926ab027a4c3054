"""What ConfigMap and Secret come to, and what people are told who have written them wrongly."""

import datetime as dt
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from eventing.back_end_settings import SettingsError
from eventing.channels import BackEndSettings
from eventing_rabbitmq.settings import RabbitmqSettings
from eventing_rabbitmq.url import read_url

PASSWORD = "hunter2-not-to-be-seen"


def with_secret(config: dict[str, str] | None = None, **data: str | bytes) -> BackEndSettings:
    keys = {"ca": "ca.crt", "certificate": "user.crt", "key": "user.key"}
    encoded = {keys.get(name, name): value.encode() if isinstance(value, str) else value for name, value in data.items()}
    return BackEndSettings({"auth.secret.ref.name": "login", **(config or {})}, encoded, "knative-eventing/login")


@pytest.fixture(scope="module")
def pair() -> tuple[str, str]:
    """A certificate and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orders")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("amqp://broker", {"host": "broker", "port": 5672, "vhost": "/", "user": "guest", "password": "guest"}),
        ("amqp://broker/", {"vhost": "/"}),
        ("amqp://broker/%2F", {"vhost": "/"}),
        ("amqp://u:p@broker:5673/shop\n", {"port": 5673, "vhost": "shop", "user": "u", "password": "p"}),
        ("amqp://us%40er:p%2Fa%3Ass@[::1]/a%2Fb%20c", {"host": "::1", "vhost": "a/b c", "user": "us@er", "password": "p/a:ss"}),
        ("amqps://u:p@broker/?heartbeat=3", {"port": 5671, "encrypted": True, "heartbeat_s": 3}),
    ],
)
def test_urls(url: str, wanted: dict[str, Any]) -> None:
    settings = RabbitmqSettings.read(with_secret(url=url))
    assert wanted == {name: getattr(settings, name) for name in wanted}


def test_a_config_map_without_a_secret() -> None:
    settings = RabbitmqSettings.read(BackEndSettings({"url": "amqp://broker:5673/shop"}))
    assert (settings.host, settings.port, settings.vhost, settings.user) == ("broker", 5673, "shop", "guest")
    assert settings.where == "broker:5673, virtual host 'shop'"


def test_what_the_broker_gives_a_consumer_does_not_divide_connections() -> None:
    short = RabbitmqSettings.read(BackEndSettings({"url": "amqp://broker", "consumer.timeout": "PT20S"}))
    assert short.consumer_timeout_s == 20
    usual = RabbitmqSettings.read(BackEndSettings({"url": "amqp://broker"}))
    assert usual.consumer_timeout_s == 1800
    assert len({short, usual}) == 1


def test_tls(pair: tuple[str, str]) -> None:
    certificate, key = pair
    settings = RabbitmqSettings.read(with_secret(url="amqps://broker", ca=certificate, certificate=certificate, key=key))
    context = settings.context()
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1
    assert settings.context() is context, "one context for all connections"
    assert RabbitmqSettings.read(with_secret(url="amqp://broker")).context() is None


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [
        (
            BackEndSettings(None),
            "ConfigMapNotFound",
            "kubectl create configmap rabbitmq-channel-config --namespace knative-eventing",
        ),
        (BackEndSettings({}), "InvalidConfigMap", "neither the key auth.secret.ref.name nor the key url"),
        (
            BackEndSettings({"url": f"amqp://u:{PASSWORD}@broker"}),
            "InvalidConfigMap",
            "key url: it holds a user, which belongs in a Secret",
        ),
        (BackEndSettings({"url": "http://broker"}), "InvalidConfigMap", "key url: it begins with neither amqp:// nor amqps://"),
        (
            BackEndSettings({"url": "amqp://broker", "consumer.timeout": "30 min"}),
            "InvalidConfigMap",
            "key consumer.timeout: '30 min' is no ISO 8601 duration",
        ),
        (BackEndSettings({"url": "amqp://broker", "consumer.timeout": "PT1S"}), "InvalidConfigMap", "key consumer.timeout"),
        (
            BackEndSettings({"auth.secret.ref.name": "gone"}, None, "knative-eventing/gone"),
            "SecretNotFound",
            "there is no Secret knative-eventing/gone,",
        ),
        (with_secret(), "InvalidSecret", "Secret knative-eventing/login, key url: it is not there"),
        (with_secret(url=f"u:{PASSWORD}@broker:5672"), "InvalidSecret", "key url: it begins with neither"),
        (with_secret(url=f"amqp://u:{PASSWORD}@"), "InvalidSecret", "key url: it names no host"),
        (with_secret(url=f"amqp://u:{PASSWORD}@broker:x"), "InvalidSecret", "key url: it is no URL"),
        (with_secret(url=f"amqp://u:{PASSWORD}@broker/a/b"), "InvalidSecret", "is written %2F"),
        (with_secret(url=f"amqp://u:{PASSWORD}@broker?verify=no"), "InvalidSecret", "the parameter 'verify' is not known"),
        (with_secret(url=f"amqp://u:{PASSWORD}@broker?heartbeat=0"), "InvalidSecret", "heartbeat is 1 to 3600"),
        (with_secret(url=PASSWORD.encode() + b"\xff"), "InvalidSecret", "key url: it is not UTF-8"),
        (with_secret(url="amqp://broker", ca="x"), "InvalidSecret", "key url: it says amqp://, and there are certificates"),
        (with_secret(url="amqps://broker", ca=PASSWORD), "InvalidSecret", "key ca.crt: no certificates in PEM"),
        (with_secret(url="amqps://broker", key=PASSWORD), "InvalidSecret", "key user.crt: it is not there"),
        (with_secret(url="amqps://broker", certificate=PASSWORD), "InvalidSecret", "key user.key: it is not there"),
        (with_secret(url="amqps://broker", certificate=PASSWORD, key=PASSWORD), "InvalidSecret", "keys user.crt and user.key"),
    ],
)
def test_what_is_wrong_is_said_with_the_object_and_the_key(given: BackEndSettings, reason: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RabbitmqSettings.read(given)
    assert caught.value.reason == reason
    assert words in str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert PASSWORD not in f"{chain} {chain!r}"
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)


def test_secrets_are_not_shown(pair: tuple[str, str]) -> None:
    certificate, key = pair
    settings = RabbitmqSettings.read(with_secret(url=f"amqps://someone:{PASSWORD}@broker", certificate=certificate, key=key))
    for secret in ("someone", PASSWORD, "BEGIN"):
        assert secret not in f"{settings} {settings!r} {settings.where}"


def test_a_secret_stands_before_the_config_map() -> None:
    settings = RabbitmqSettings.read(with_secret({"url": "amqp://public"}, url="amqp://u:p@private"))
    assert settings.host == "private"
    assert read_url("amqp://private")["host"] == "private"
