"""How to reach RabbitMQ, read from the ConfigMap rabbitmq-channel-config and the Secret that it names.

    data of the ConfigMap     url (without user and password), auth.secret.ref.name, consumer.timeout
    data of the Secret        url (amqp or amqps, with user and password), ca.crt, user.crt, user.key

The Secret's url stands before that of the ConfigMap. No value of a Secret gets into a message, a repr or a log.
"""

import ssl
from dataclasses import dataclass, field
from typing import Any, Final, Self

from eventing.back_end_settings import SECRET_NAME, SETTINGS_NAMESPACE, TLS_KEYS, SettingsReader, TlsMaterial
from eventing.channels import BackEndSettings
from eventing.resources.duration import parse_duration
from eventing_rabbitmq.names import CONFIG_MAP
from eventing_rabbitmq.url import SHAPE, read_url

__all__ = ["RabbitmqSettings"]

_CONSUMER_TIMEOUT: Final = "consumer.timeout"
_DEFAULT_CONSUMER_TIMEOUT_S: Final = 1800.0  # RabbitMQ's own
_LEAST_CONSUMER_TIMEOUT_S: Final = 5.0
_DEFAULT_HEARTBEAT_S: Final = 10
_MAKE_CONFIG_MAP: Final = (
    f"make a Secret with the URL, kubectl create secret generic rabbitmq --namespace {SETTINGS_NAMESPACE} "
    f"--from-literal=url=amqp://USER:PASSWORD@HOST:5672/, and the ConfigMap that names it, "
    f"kubectl create configmap {CONFIG_MAP} --namespace {SETTINGS_NAMESPACE} --from-literal={SECRET_NAME}=rabbitmq"
)


@dataclass(frozen=True, slots=True)
class RabbitmqSettings:
    """How to reach RabbitMQ. Those that are equal reach the same in the same way: connections are shared by them.

    `others` are further nodes of the cluster that `host` with `port` is one of.
    `consumer_timeout_s` is after which RabbitMQ takes an event back that was handed out and is not acknowledged; it is no part of
    the way there.
    """

    host: str
    port: int
    vhost: str = "/"
    encrypted: bool = False
    user: str = field(default="guest", repr=False)
    password: str = field(default="guest", repr=False)
    heartbeat_s: int = _DEFAULT_HEARTBEAT_S
    tls: TlsMaterial = field(default_factory=TlsMaterial)
    others: tuple[tuple[str, int], ...] = ()
    consumer_timeout_s: float = field(default=_DEFAULT_CONSUMER_TIMEOUT_S, compare=False)

    @classmethod
    def read(cls, source: BackEndSettings) -> Self:
        """What ConfigMap and Secret say now. Raises SettingsError, which names the object and the key."""
        given = SettingsReader(source, CONFIG_MAP, remedy=_MAKE_CONFIG_MAP)
        made: dict[str, Any] = {"consumer_timeout_s": _consumer_timeout(given)}
        named = given.names_secret("the key url, and ca.crt, user.crt and user.key where TLS needs them")
        if url := given.word("url"):
            try:
                made |= read_url(url)
            except ValueError as error:
                raise given.secret_fault("url", str(error)) from None
        elif url := given.config.get("url", "").strip():
            made |= _public_url(given, url)
        elif named:
            raise given.secret_fault("url", f"it is not there; {SHAPE}")
        else:
            raise given.config_fault(f"has neither the key {SECRET_NAME} nor the key url; {_MAKE_CONFIG_MAP}")
        if made["encrypted"]:
            made["tls"] = given.tls()
        elif any(given.text(key) for key in TLS_KEYS):
            raise given.secret_fault(
                "url", "it says amqp://, and there are certificates for TLS beside it; write amqps://, or remove them"
            )
        return cls(**made)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Of all nodes, host and port."""
        return ((self.host, self.port), *self.others)

    @property
    def where(self) -> str:
        """The broker, or the nodes of the cluster, and the virtual host, for people."""
        nodes = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses)
        return f"{', '.join(nodes)}, virtual host {self.vhost!r}"

    def context(self) -> ssl.SSLContext | None:
        """The TLS context that all connections of these settings share; None without TLS."""
        return self.tls.context() if self.encrypted else None


def _public_url(given: SettingsReader, text: str) -> dict[str, Any]:
    try:
        found = read_url(text)
    except ValueError as error:
        raise given.config_fault(str(error), key="url") from None
    if "user" in found:
        raise given.config_fault(f"it holds a user, which belongs in a Secret; {_MAKE_CONFIG_MAP}", key="url")
    return found


def _consumer_timeout(given: SettingsReader) -> float:
    text = given.config.get(_CONSUMER_TIMEOUT, "").strip()
    if not text:
        return _DEFAULT_CONSUMER_TIMEOUT_S
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = -1
    if seconds < _LEAST_CONSUMER_TIMEOUT_S:
        raise given.config_fault(
            f"{text[:100]!r} is no ISO 8601 duration of at least PT5S; it is to be what consumer_timeout is at the broker, where "
            "the default is PT30M",
            key=_CONSUMER_TIMEOUT,
        )
    return seconds
