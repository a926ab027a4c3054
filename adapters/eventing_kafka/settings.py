"""How to reach Kafka, read from the ConfigMap kafka-channel-config and the Secret that it names. Knative's keys.

    data of the ConfigMap     bootstrap.servers, auth.secret.ref.name, default.topic.config.KEY
    data of the Secret        protocol, sasl.mechanism, user, password, ca.crt, user.crt, user.key, user.skip

No value of a Secret gets into a message, a repr or a log.
"""

import ssl
from dataclasses import dataclass, field
from typing import Any, Final, Self

from eventing.back_end_settings import SETTINGS_NAMESPACE, SettingsReader, TlsMaterial
from eventing.channels import BackEndSettings
from eventing_kafka.names import CONFIG_MAP

__all__ = ["KafkaSettings", "bootstrap_servers"]

_SERVERS: Final = "bootstrap.servers"
_TOPIC_CONFIG: Final = "default.topic.config."
_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_TRUE: Final = frozenset({"1", "t", "T", "true", "True", "TRUE"})  # as Go reads them
_MAKE_CONFIG_MAP: Final = (
    f"make it: kubectl create configmap {CONFIG_MAP} --namespace {SETTINGS_NAMESPACE} --from-literal={_SERVERS}=HOST:9092"
)
_SECRET_HOLDS: Final = (
    f"the keys protocol ({', '.join(_PROTOCOLS)}), sasl.mechanism, user, password, ca.crt, user.crt, user.key as the protocol "
    "needs them"
)


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
    tls: TlsMaterial = field(default_factory=TlsMaterial)
    topic_config: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @classmethod
    def read(cls, source: BackEndSettings) -> Self:
        """What ConfigMap and Secret say now. Raises SettingsError, which names the object and the key."""
        given = SettingsReader(source, CONFIG_MAP, remedy=_MAKE_CONFIG_MAP)
        try:
            servers = bootstrap_servers(given.config.get(_SERVERS, ""))
        except ValueError as error:
            raise given.config_fault(str(error), key=_SERVERS) from error
        topic_config = sorted(
            (name.removeprefix(_TOPIC_CONFIG), value) for name, value in given.config.items() if name.startswith(_TOPIC_CONFIG)
        )
        credentials = _credentials(given) if given.names_secret(_SECRET_HOLDS) else {}
        return cls(servers=servers, topic_config=tuple(topic_config), **credentials)

    @property
    def encrypted(self) -> bool:
        return self.protocol in {"SSL", "SASL_SSL"}

    @property
    def where(self) -> str:
        """The bootstrap servers, for people."""
        return ",".join(self.servers)

    def context(self) -> ssl.SSLContext:
        """The TLS context that all clients of these settings share."""
        return self.tls.context()

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


def _credentials(given: SettingsReader) -> dict[str, Any]:
    """What the Secret says, as fields of KafkaSettings."""
    protocol = given.word("protocol")
    if protocol not in _PROTOCOLS:
        raise given.secret_fault(
            "protocol", f"one of {', '.join(_PROTOCOLS)} is expected{'' if protocol else ', it is not there'}"
        )
    found: dict[str, Any] = {"protocol": protocol}
    if protocol.startswith("SASL_"):
        found |= _sasl(given, protocol)
    if protocol.endswith("SSL"):
        # Knative's word for: the broker asks for no certificate of ours
        found["tls"] = given.tls(own_certificate=given.word("user.skip") not in _TRUE)
    return found


def _sasl(given: SettingsReader, protocol: str) -> dict[str, str]:
    mechanism = given.word("sasl.mechanism") or "PLAIN"
    if mechanism == "OAUTHBEARER":
        raise given.secret_fault("sasl.mechanism", f"OAUTHBEARER is not supported; use {', '.join(_MECHANISMS)}")
    if mechanism not in _MECHANISMS:
        raise given.secret_fault("sasl.mechanism", f"one of {', '.join(_MECHANISMS)} is expected")
    found = {"mechanism": mechanism}
    for key in ("user", "password"):
        found[key] = given.text(key)
        if not found[key]:
            raise given.secret_fault(key, f"it is needed for {protocol} and is not there")
    return found
