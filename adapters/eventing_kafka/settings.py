"""How to reach Kafka, read from the ConfigMap kafka-channel-config and the Secret that it names. Knative's keys.

    data of the ConfigMap     bootstrap.servers, auth.secret.ref.name, default.topic.config.KEY
    data of the Secret        protocol, sasl.mechanism, user, password, ca.crt, user.crt, user.key, user.skip

No value of a Secret gets into a message, a repr or a log.
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
from eventing_kafka.names import CONFIG_MAP, NAMESPACE

__all__ = ["KafkaSettings", "SettingsError", "bootstrap_servers"]

_TOPIC_CONFIG: Final = "default.topic.config."
_SECRET_NAME: Final = "auth.secret.ref.name"  # noqa: S105 - the key that names the Secret
_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_TRUE: Final = frozenset({"1", "t", "T", "true", "True", "TRUE"})  # as Go reads them
_MAKE_CONFIG_MAP: Final = (
    f"make it: kubectl create configmap {CONFIG_MAP} --namespace {NAMESPACE} --from-literal=bootstrap.servers=HOST:9092"
)


class SettingsError(EventingError):
    """The ConfigMap or the Secret is not there, or says what cannot be. `reason` is that of a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach Kafka. Those that are equal reach the same in the same way: clients are shared by them.

    `topic_config` are settings of the topics that are made; it is no part of the way there.
    """

    servers: tuple[str, ...]
    protocol: str = "PLAINTEXT"
    mechanism: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)  # PEM; "": the usual authorities
    certificate: str = field(default="", repr=False)  # PEM, of this client
    key: str = field(default="", repr=False)  # PEM
    topic_config: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @classmethod
    def read(cls, source: BackEndSettings) -> Self:
        """What ConfigMap and Secret say now. Raises SettingsError, which names the object and the key."""
        config = source.config
        if config is None:
            raise SettingsError("ConfigMapNotFound", f"there is no ConfigMap {NAMESPACE}/{CONFIG_MAP}; {_MAKE_CONFIG_MAP}")
        try:
            servers = bootstrap_servers(config.get("bootstrap.servers", ""))
        except ValueError as error:
            raise SettingsError(
                "InvalidConfigMap", f"ConfigMap {NAMESPACE}/{CONFIG_MAP}, key bootstrap.servers: {error}"
            ) from error
        topic_config = sorted(
            (name.removeprefix(_TOPIC_CONFIG), value) for name, value in config.items() if name.startswith(_TOPIC_CONFIG)
        )
        made: dict[str, Any] = {"servers": servers, "topic_config": tuple(topic_config)}
        if source.secret_name:
            if source.secret is None:
                raise SettingsError(
                    "SecretNotFound",
                    f"there is no Secret {source.secret_name}, which ConfigMap {NAMESPACE}/{CONFIG_MAP} names in {_SECRET_NAME}; "
                    f"make it, with the keys protocol ({', '.join(_PROTOCOLS)}), "
                    "sasl.mechanism, user, password, ca.crt, user.crt, user.key as the protocol needs them",
                )
            made |= _Credentials(source.secret_name, source.secret).read()
        settings = cls(**made)
        if settings.encrypted:
            try:
                settings.context()
            except _PemError as error:
                raise SettingsError("InvalidSecret", f"Secret {source.secret_name}, {error}") from None
        return settings

    @property
    def encrypted(self) -> bool:
        return self.protocol in {"SSL", "SASL_SSL"}

    @property
    def where(self) -> str:
        """The bootstrap servers, for people."""
        return ",".join(self.servers)

    def context(self) -> ssl.SSLContext:
        """The TLS context that all clients of these settings share."""
        return _context(self.ca, self.certificate, self.key)

    def client_options(self) -> dict[str, Any]:
        """What each of aiokafka's clients is made with."""
        options: dict[str, Any] = {"bootstrap_servers": list(self.servers), "security_protocol": self.protocol}
        if self.encrypted:
            options["ssl_context"] = self.context()
        if self.mechanism:
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return options


def bootstrap_servers(text: str) -> tuple[str, ...]:
    """The servers of `HOST:PORT[,HOST:PORT…]`. ValueError says what is wrong."""
    servers = tuple(dict.fromkeys(part for part in (part.strip() for part in text.split(",")) if part))
    if not servers:
        raise ValueError("no server is given: HOST:PORT is expected, or several with commas between")
    for server in servers:
        host, colon, port = server.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host.replace(":", "[")  # no colon without brackets
        if not (colon and bare and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise ValueError(f"{server[:200]!r} is not HOST:PORT (as in kafka.example.com:9092)")
        if any(character in bare for character in " /@[]"):
            raise ValueError(f"{server[:200]!r} is not HOST:PORT (as in kafka.example.com:9092)")
    return servers


class _Credentials:
    """Reads a Secret; what it says of faults names keys, never values."""

    def __init__(self, name: str, data: Mapping[str, bytes]) -> None:
        self._name = name
        self._data = data

    def read(self) -> dict[str, Any]:
        protocol = self._word("protocol")
        if protocol not in _PROTOCOLS:
            raise self._fault("protocol", f"one of {', '.join(_PROTOCOLS)} is expected{'' if protocol else ', it is not there'}")
        found: dict[str, Any] = {"protocol": protocol}
        if protocol.startswith("SASL_"):
            found |= self._sasl()
        if protocol.endswith("SSL"):
            found |= self._tls()
        return found

    def _sasl(self) -> dict[str, str]:
        mechanism = self._word("sasl.mechanism") or "PLAIN"
        if mechanism == "OAUTHBEARER":
            raise self._fault("sasl.mechanism", f"OAUTHBEARER is not supported; use {', '.join(_MECHANISMS)}")
        if mechanism not in _MECHANISMS:
            raise self._fault("sasl.mechanism", f"one of {', '.join(_MECHANISMS)} is expected")
        found = {"mechanism": mechanism}
        for key in ("user", "password"):
            found[key] = self._text(key)
            if not found[key]:
                raise self._fault(key, f"it is needed for {self._word('protocol')} and is not there")
        return found

    def _tls(self) -> dict[str, str]:
        found = {"ca": self._text("ca.crt")}
        certificate, key = self._text("user.crt"), self._text("user.key")
        if self._word("user.skip") in _TRUE:  # Knative's word for: the broker asks for no certificate of ours
            return found
        for given, missing, name, other in (
            (key, certificate, "user.crt", "user.key"),
            (certificate, key, "user.key", "user.crt"),
        ):
            if given and not missing:
                raise self._fault(name, f"it is not there, and {other} is of no use without it")
        return {**found, "certificate": certificate, "key": key}

    def _text(self, key: str) -> str:
        try:
            return bytes(self._data.get(key, b"")).decode()
        except UnicodeDecodeError:
            raise self._fault(key, "it is not UTF-8 text") from None  # the error would quote the value

    def _word(self, key: str) -> str:
        """A value without the line break that `--from-file` brings along."""
        return self._text(key).strip()

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
        fd, path = tempfile.mkstemp(prefix="eventing-kafka-")  # 0600
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
