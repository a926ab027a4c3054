"""What ConfigMap and Secret come to, and what people are told who have written them wrongly."""

from pathlib import Path
from typing import Any

import pytest

from eventing.channels import BackEndSettings
from eventing_rabbitmq.settings import RabbitmqSettings
from eventing_rabbitmq.url import read_url
from tests.support.authority import Authority
from tests.support.faults import settings_fault

PASSWORD = "hunter2-not-to-be-seen"


def with_secret(config: dict[str, str] | None = None, **data: str | bytes) -> BackEndSettings:
    keys = {"ca": "ca.crt", "certificate": "user.crt", "key": "user.key"}
    encoded = {keys.get(name, name): value.encode() if isinstance(value, str) else value for name, value in data.items()}
    return BackEndSettings({"auth.secret.ref.name": "login", **(config or {})}, encoded, "knative-eventing/login")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("amqp://broker", {"host": "broker", "port": 5672, "vhost": "/", "user": "guest", "password": "guest"}),
        ("amqp://broker/", {"vhost": "/"}),
        ("amqp://broker/%2F", {"vhost": "/"}),
        ("amqp://u:p@broker:5673/shop\n", {"port": 5673, "vhost": "shop", "user": "u", "password": "p"}),
        ("amqp://us%40er:p%2Fa%3Ass@[::1]/a%2Fb%20c", {"host": "::1", "vhost": "a/b c", "user": "us@er", "password": "p/a:ss"}),
        ("amqps://u:p@broker/?heartbeat=3", {"port": 5671, "encrypted": True, "heartbeat_s": 3}),
        ("amqp://u:p@a,b:5673,[::1]:5674/shop", {"addresses": (("a", 5672), ("b", 5673), ("::1", 5674)), "vhost": "shop"}),
        ("amqps://u:p,w@[::1],b", {"addresses": (("::1", 5671), ("b", 5671)), "password": "p,w"}),
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


def test_tls(tmp_path: Path) -> None:
    pki = Authority.create(tmp_path)
    ca, certificate, key = (path.read_bytes() for path in (pki.ca_cert, pki.client_cert, pki.client_key))
    given = with_secret(url=f"amqps://someone:{PASSWORD}@broker", ca=ca, certificate=certificate, key=key)
    settings = RabbitmqSettings.read(given)
    assert settings.context() is settings.tls.context()
    assert RabbitmqSettings.read(with_secret(url="amqp://broker")).context() is None
    for secret in ("someone", PASSWORD, "BEGIN"):
        assert secret not in f"{settings} {settings!r} {settings.where}"


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
        (with_secret(url=f"amqp://u:{PASSWORD}@a,b:x"), "InvalidSecret", "key url: it is no URL"),
        (with_secret(url=f"amqp://u:{PASSWORD}@a,,b"), "InvalidSecret", "key url: it names no host"),
        (with_secret(url=f"amqp://u:{PASSWORD}@a,amqp://u:{PASSWORD}@b"), "InvalidSecret", "key url: it is more than one URL"),
        (with_secret(url=f"amqp://u:{PASSWORD}@broker/a/b"), "InvalidSecret", "is written %2F"),
        (with_secret(url=f"amqp://u:{PASSWORD}@broker?verify=no"), "InvalidSecret", "the parameter 'verify' is not known"),
        (with_secret(url=f"amqp://u:{PASSWORD}@broker?heartbeat=0"), "InvalidSecret", "heartbeat is 1 to 3600"),
        (with_secret(url=PASSWORD.encode() + b"\xff"), "InvalidSecret", "key url: it is not UTF-8"),
        (with_secret(url="amqp://broker", ca="x"), "InvalidSecret", "key url: it says amqp://, and there are certificates"),
        (with_secret(url="amqps://broker", ca=PASSWORD), "InvalidSecret", "key ca.crt: no certificates in PEM"),
    ],
)
def test_what_is_wrong_is_said_with_the_object_and_the_key(given: BackEndSettings, reason: str, words: str) -> None:
    told, text = settings_fault(lambda: RabbitmqSettings.read(given), PASSWORD)
    assert told == reason
    assert words in text


def test_a_secret_stands_before_the_config_map() -> None:
    settings = RabbitmqSettings.read(with_secret({"url": "amqp://public"}, url="amqp://u:p@private"))
    assert settings.host == "private"
    assert read_url("amqp://private")["host"] == "private"
