"""A real Kafka broker (KRaft), alone or of a cluster, with a listener for each way in that clients may be told to use."""

import socket
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eventing.testing.proxy import TcpProxy
from tests.support.back_ends import BackEnd
from tests.support.brokers import Broker
from tests.support.ports import reserve_ports
from tests.support.reaper import Reaper

__all__ = ["PASSWORD", "USER", "KafkaBroker"]

USER: Final = "mesh"
PASSWORD: Final = "open sesame"
_HEAP: Final = "-Xms256m -Xmx384m"
# For brokers that live for minutes on a shared core, starting quickly is worth more than the second compiler.
_JVM: Final = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"


@dataclass(frozen=True)
class _Listeners:
    """Ports, by what is spoken there."""

    plaintext: int
    sasl: int
    tls: int
    sasl_tls: int
    mutual_tls: int
    proxied: int
    proxy: int


class KafkaBroker(Broker):
    """`bootstrap` and its like are `HOST:PORT`. Topics do not come into being by being written to. SASL takes USER with PASSWORD in
    PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.

    `node` of a cluster, from 1, has the ports of all its controllers: each node is one.
    """

    product = "Kafka"

    def __init__(
        self,
        back_end: BackEnd,
        reaper: Reaper,
        *,
        properties: Mapping[str, str] | None = None,
        jvm: str = _JVM,
        node: int = 1,
        controllers: Sequence[int] = (),
    ) -> None:
        super().__init__(back_end, reaper)
        self.node = node
        self._controllers = controllers or reserve_ports(1)
        self._ports = _Listeners(*reserve_ports(len(_Listeners.__dataclass_fields__)))
        home = "/opt/kafka" if back_end.engine is not None else back_end.home
        (self._files / "server.properties").write_text(self._properties(properties or {}))
        launch = _LAUNCH.format(home=home, data=self._data, at=self._at, user=USER, password=PASSWORD)
        (self._files / "launch.sh").write_text(launch)
        ports = [self._ports.plaintext, *self._others()]
        self._launched_by("launch.sh", ports, {"KAFKA_HEAP_OPTS": _HEAP, "KAFKA_JVM_PERFORMANCE_OPTS": jvm})

    @property
    def bootstrap(self) -> str:
        """Without encryption and without credentials."""
        return f"127.0.0.1:{self._ports.plaintext}"

    @property
    def sasl(self) -> str:
        """SASL_PLAINTEXT."""
        return f"127.0.0.1:{self._ports.sasl}"

    @property
    def tls(self) -> str:
        """SSL, with a certificate of `authority.ca_cert`; asks for no certificate of the client."""
        return f"127.0.0.1:{self._ports.tls}"

    @property
    def sasl_tls(self) -> str:
        """SASL_SSL."""
        return f"127.0.0.1:{self._ports.sasl_tls}"

    @property
    def mutual_tls(self) -> str:
        """SSL, and lets nobody in without a certificate of `authority`, as `authority.client_cert` is."""
        return f"127.0.0.1:{self._ports.mutual_tls}"

    @asynccontextmanager
    async def proxy(self) -> AsyncIterator[TcpProxy]:
        """A proxy before a listener that advertises the proxy's port: bootstrap with 127.0.0.1:`proxy.port`, and every
        connection goes through it. One at a time."""
        proxy = TcpProxy("127.0.0.1", self._ports.proxied, port=self._ports.proxy)
        async with proxy:
            yield proxy

    @property
    def version(self) -> str:
        return self.log().partition("Kafka version: ")[2].partition(" ")[0].strip()

    def _serves(self) -> bool:
        body = struct.pack(">hhih", 18, 0, 1, -1)  # ApiVersions, version 0, correlation 1, no client id
        try:
            with socket.create_connection(("127.0.0.1", self._ports.plaintext), timeout=2) as connection:
                connection.sendall(struct.pack(">i", len(body)) + body)
                return len(connection.recv(4)) == 4
        except OSError:
            return False

    def _others(self) -> list[int]:
        ports = self._ports
        return [ports.sasl, ports.tls, ports.sasl_tls, ports.mutual_tls, ports.proxied]

    def _properties(self, properties: Mapping[str, str]) -> str:
        ports = self._ports
        served = {
            "PLAINTEXT": ("PLAINTEXT", ports.plaintext, ports.plaintext),
            "SASL": ("SASL_PLAINTEXT", ports.sasl, ports.sasl),
            "TLS": ("SSL", ports.tls, ports.tls),
            "SASLTLS": ("SASL_SSL", ports.sasl_tls, ports.sasl_tls),
            "MUTUALTLS": ("SSL", ports.mutual_tls, ports.mutual_tls),
            "PROXIED": ("PLAINTEXT", ports.proxied, ports.proxy),
        }
        controller = f"CONTROLLER://127.0.0.1:{self._controllers[self.node - 1]}"
        protocols = ",".join(f"{name}:{protocol}" for name, (protocol, _, _) in served.items())
        authority = self.authority
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(self.node),
            "controller.quorum.voters": ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(self._controllers, 1)),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join([*(f"{name}://{self._bind}:{port}" for name, (_, port, _) in served.items()), controller]),
            "advertised.listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, (_, _, port) in served.items()),
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": _one_line(authority.server_cert),
            "ssl.keystore.key": _one_line(authority.server_key),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.certificates": _one_line(authority.ca_cert),
            "listener.name.mutualtls.ssl.client.auth": "required",
            "log.dirs": self._data,
            "auto.create.topics.enable": "false",
            # One node where nothing else is said, and small
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "2",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "log.cleaner.dedupe.buffer.size": str(2 << 20),
            "num.network.threads": "2",
            "num.io.threads": "2",
            "num.replica.fetchers": "1",
            "background.threads": "2",
            # Quick to start and to stop, for people who wait for tests
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "log.segment.delete.delay.ms": "1000",
        }
        for name in ("sasl", "sasltls"):
            prefix = f"listener.name.{name}"
            settings[f"{prefix}.sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
            settings[f"{prefix}.plain.sasl.jaas.config"] = f'{plain} required user_{USER}="{PASSWORD}";'
            for mechanism in ("scram-sha-256", "scram-sha-512"):
                settings[f"{prefix}.{mechanism}.sasl.jaas.config"] = f"{scram} required;"
        return "".join(f"{name}={value}\n" for name, value in {**settings, **properties}.items())


_LAUNCH: Final = """\
[ -e {data}/meta.properties ] || {home}/bin/kafka-storage.sh format --cluster-id MkU3OEVBNTcwNTJENDM2Qg --config {at}/server.properties \\
  --add-scram 'SCRAM-SHA-256=[name={user},password={password}]' --add-scram 'SCRAM-SHA-512=[name={user},password={password}]' || exit
exec {home}/bin/kafka-server-start.sh {at}/server.properties
"""


def _one_line(pem: Path) -> str:
    return pem.read_text().strip().replace("\n", "\\n")
