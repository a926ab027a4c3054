"""How to reach RabbitMQ, read from the ConfigMap rabbitmq-channel-config and the Secret that it names.

    data of the ConfigMap     url (without user and password), auth.secret.ref.name, consumer.timeout
    data of the Secret        url (amqp or amqps, with user and password), ca.crt, user.crt, user.key

The Secret's url stands before that of the ConfigMap. No value of a Secret gets into a message, a repr or a log.
"""

import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

from eventing.channels import BackEndSettings
from eventing.errors import EventingError
from eventing.resources.duration import parse_duration
from eventing_rabbitmq.names import CONFIG_MAP, NAMESPACE
from eventing_rabbitmq.url import SECRET_NAME, SHAPE, read_url

__all__ = ["RabbitmqSettings", "SettingsError"]

_CONSUMER_TIMEOUT: Final = "consumer.timeout"
_DEFAULT_CONSUMER_TIMEOUT_S: Final = 1800.0  # RabbitMQ's own
_LEAST_CONSUMER_TIMEOUT_S: Final = 5.0
_DEFAULT_HEARTBEAT_S: Final = 10
_MAKE_CONFIG_MAP: Final = (
    f"make a Secret with the URL, kubectl create secret generic rabbitmq --namespace {NAMESPACE} "
    f"--from-literal=url=amqp://USER:PASSWORD@HOST:5672/, and the ConfigMap that names it, "
    f"kubectl create configmap {CONFIG_MAP} --namespace {NAMESPACE} --from-literal={SECRET_NAME}=rabbitmq"
)


class SettingsError(EventingError):
    """The ConfigMap or the Secret is not there, or says what cannot be. `reason` is that of a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RabbitmqSettings:
    """How to reach RabbitMQ. Those that are equal reach the same in the same way: connections are shared by them.

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
    ca: str = field(default="", repr=False)  # PEM; "": the usual authorities
    certificate: str = field(default="", repr=False)  # PEM, of this client
    key: str = field(default="", repr=False)  # PEM
    consumer_timeout_s: float = field(default=_DEFAULT_CONSUMER_TIMEOUT_S, compare=False)

    @classmethod
    def read(cls, source: BackEndSettings) -> Self:
        """What ConfigMap and Secret say now. Raises SettingsError, which names the object and the key."""
        config = source.config
        if config is None:
            raise SettingsError("ConfigMapNotFound", f"there is no ConfigMap {NAMESPACE}/{CONFIG_MAP}; {_MAKE_CONFIG_MAP}")
        made: dict[str, Any] = {"consumer_timeout_s": _consumer_timeout(config)}
        secret: Mapping[str, bytes] = {}
        if source.secret_name:
            if source.secret is None:
                raise SettingsError(
                    "SecretNotFound",
                    f"there is no Secret {source.secret_name}, which ConfigMap {NAMESPACE}/{CONFIG_MAP} names in {SECRET_NAME}; "
                    "make it, with the key url, and ca.crt, user.crt and user.key where TLS needs them",
                )
            secret = source.secret
        credentials = _Credentials(source.secret_name, secret)
        if url := credentials.word("url"):
            try:
                made |= read_url(url)
            except ValueError as error:
                raise SettingsError("InvalidSecret", f"Secret {source.secret_name}, key url: {error}") from None
        elif url := config.get("url", "").strip():
            made |= _public_url(url)
        elif source.secret_name:
            raise SettingsError("InvalidSecret", f"Secret {source.secret_name}, key url: it is not there; {SHAPE}")
        else:
            raise SettingsError(
                "InvalidConfigMap",
                f"ConfigMap {NAMESPACE}/{CONFIG_MAP} has neither the key {SECRET_NAME} nor the key url; {_MAKE_CONFIG_MAP}",
            )
        made |= credentials.tls(encrypted=made["encrypted"])
        settings = cls(**made)
        if settings.encrypted:
            try:
                settings.context()
            except _PemError as error:
                raise SettingsError("InvalidSecret", f"Secret {source.secret_name}, {error}") from None
        return settings

    @property
    def where(self) -> str:
        """The broker and the virtual host, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}, virtual host {self.vhost!r}"

    def context(self) -> ssl.SSLContext | None:
        """The TLS context that all connections of these settings share; None without TLS."""
        return _context(self.ca, self.certificate, self.key) if self.encrypted else None


def _public_url(text: str) -> dict[str, Any]:
    where = f"ConfigMap {NAMESPACE}/{CONFIG_MAP}, key url"
    try:
        found = read_url(text)
    except ValueError as error:
        raise SettingsError("InvalidConfigMap", f"{where}: {error}") from None
    if "user" in found:
        raise SettingsError(
            "InvalidConfigMap",
            f"{where}: it holds a user, which belongs in a Secret; {_MAKE_CONFIG_MAP}",
        )
    return found


def _consumer_timeout(config: Mapping[str, str]) -> float:
    text = config.get(_CONSUMER_TIMEOUT, "").strip()
    if not text:
        return _DEFAULT_CONSUMER_TIMEOUT_S
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = -1
    if seconds < _LEAST_CONSUMER_TIMEOUT_S:
        raise SettingsError(
            "InvalidConfigMap",
            f"ConfigMap {NAMESPACE}/{CONFIG_MAP}, key {_CONSUMER_TIMEOUT}: {text[:100]!r} is no ISO 8601 duration of "
            "at least PT5S; it is to be what consumer_timeout is at the broker, where the default is PT30M",
        )
    return seconds


class _Credentials:
    """Reads a Secret; what it says of faults names keys, never values."""

    def __init__(self, name: str, data: Mapping[str, bytes]) -> None:
        self._name = name
        self._data = data

    def word(self, key: str) -> str:
        """A value without the line break that `--from-file` brings along."""
        return self._text(key).strip()

    def tls(self, *, encrypted: bool) -> dict[str, str]:
        found = {"ca": self._text("ca.crt"), "certificate": self._text("user.crt"), "key": self._text("user.key")}
        if not encrypted and any(found.values()):
            raise self._fault(
                "url", "it says amqp://, and there are certificates for TLS beside it; write amqps://, or remove them"
            )
        for given, missing, name, other in (
            (found["key"], found["certificate"], "user.crt", "user.key"),
            (found["certificate"], found["key"], "user.key", "user.crt"),
        ):
            if given and not missing:
                raise self._fault(name, f"it is not there, and {other} is of no use without it")
        return found

    def _text(self, key: str) -> str:
        try:
            return bytes(self._data.get(key, b"")).decode()
        except UnicodeDecodeError:
            raise self._fault(key, "it is not UTF-8 text") from None  # the error would quote the value

    def _fault(self, key: str, what: str) -> SettingsError:
        return SettingsError("InvalidSecret", f"Secret {self._name}, key {key}: {what}")


class _PemError(Exception):
    """What is wrong with which keys."""


@lru_cache(maxsize=8)
def _context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """A context that knows the authorities, and this client's certificate where there is one."""
    try:
        context = ssl.create_default_context(cadata=ca or None)
    except (ssl.SSLError, ValueError) as error:
        raise _PemError(f"key ca.crt: no certificates in PEM: {_why(error)}") from None
    if certificate:
        # OpenSSL reads these from files only. This one is for our eyes, and gone before anything else happens.
        fd, path = tempfile.mkstemp(prefix="eventing-rabbitmq-")  # 0600
        try:
            with os.fdopen(fd, "w") as file:
                file.write(f"{certificate.rstrip()}\n{key.rstrip()}\n")
            # An encrypted key would otherwise be asked for at the terminal.
            context.load_cert_chain(path, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            text = f"keys user.crt and user.key: no certificate in PEM with the private key to it: {_why(error)}"
            raise _PemError(text) from None
        finally:
            Path(path).unlink()
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted, give it as plain PEM")


def _why(error: ssl.SSLError | ValueError) -> str:
    """OpenSSL's words; they hold nothing of the file."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it cannot be read").replace("_", " ").lower()
    return str(error)
