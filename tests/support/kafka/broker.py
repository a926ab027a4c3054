"""A real Kafka broker of one node (KRaft), with a listener for each way in that clients may be told to use."""

import shutil
import socket
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eventing.testing.proxy import TcpProxy
from tests.support.authority import Authority
from tests.support.back_ends import BackEnd
from tests.support.ports import reserve_ports
from tests.support.reaper import Reaper
from tests.support.services import ContainerService, ProcessService, Service

__all__ = ["PASSWORD", "USER", "KafkaBroker"]

USER: Final = "mesh"
PASSWORD: Final = "open sesame"
_FILES_AT: Final = "/etc/eventing-mesh-test"
_HEAP: Final = "-Xms256m -Xmx384m"
# For brokers that live for minutes on a shared core, starting quickly is worth more than the second compiler.
_JVM: Final = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
_UP_S: Final = 60.0


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
    controller: int


class KafkaBroker:
    """`bootstrap` and its like are `HOST:PORT`. Every method that waits blocks: from a coroutine, use `asyncio.to_thread`.

    Its ports stay the same through `kill`, `stop` and `start`, and so do its topics. Topics do not come into being by being
    written to. SASL takes USER with PASSWORD in PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
    """

    def __init__(
        self, back_end: BackEnd, reaper: Reaper, *, properties: Mapping[str, str] | None = None, jvm: str = _JVM
    ) -> None:
        self.back_end = back_end
        self._ports = _Listeners(*reserve_ports(len(_Listeners.__dataclass_fields__)))
        self._directory = Path(tempfile.mkdtemp(prefix="eventing-mesh-kafka-"))
        self._reaper = reaper
        reaper.directory(str(self._directory))
        self.authority = Authority.create(self._directory)
        files = self._directory / "files"
        files.mkdir()
        self._directory.chmod(0o755)  # the image may have a user of its own
        engine = back_end.engine
        inside = engine is not None
        data = "/tmp/eventing-mesh-data" if inside else str(self._directory / "data")
        bind = "127.0.0.1" if engine is None or engine.shares_loopback else "0.0.0.0"
        at = _FILES_AT if inside else str(files)
        home = "/opt/kafka" if inside else back_end.home
        (files / "server.properties").write_text(self._properties(bind, data, properties or {}))
        (files / "launch.sh").write_text(_LAUNCH.format(home=home, data=data, at=at, user=USER, password=PASSWORD))
        command = ["/bin/sh", f"{at}/launch.sh"]
        environment = {"KAFKA_HEAP_OPTS": _HEAP, "KAFKA_JVM_PERFORMANCE_OPTS": jvm}
        self._service: Service
        if engine is None:
            self._service = ProcessService(command, reaper=reaper, directory=self._directory, environment=environment)
        else:
            self._service = ContainerService(
                back_end.image,
                command,
                engine=engine,
                reaper=reaper,
                name="kafka",
                ports=[self._ports.plaintext, *self._others()],
                files=files,
                files_at=_FILES_AT,
                environment=environment,
            )

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

    def start(self) -> None:
        """Start it and wait until it serves. Raises AssertionError with the end of its log where it does not."""
        self._service.start()
        deadline = time.monotonic() + _UP_S
        while not _serves(self._ports.plaintext):
            assert self._service.running(), f"Kafka has ended while it was starting:\n{self._end_of_log()}"
            assert time.monotonic() < deadline, f"Kafka does not serve after {_UP_S} s:\n{self._end_of_log()}"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL. `start` brings it back with what it had."""
        self._service.kill()

    def stop(self) -> None:
        """An orderly end. `start` brings it back."""
        self._service.stop()

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it, as SIGSTOP does: connections stay, nobody answers, until `resume`."""
        self._service.pause()

    def resume(self) -> None:
        """The end of `pause`. It serves again some moments later."""
        self._service.resume()

    @property
    def running(self) -> bool:
        return self._service.running()

    def log(self) -> str:
        """What the broker has written since it was made."""
        return self._service.log()

    @property
    def version(self) -> str:
        """As it says itself; "" before it was started."""
        return self.log().partition("Kafka version: ")[2].partition(" ")[0].strip()

    def remove(self) -> None:
        """Kill it and delete all that it kept."""
        self._service.remove()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._reaper.forget("directory", str(self._directory))

    def _end_of_log(self) -> str:
        return "\n".join(self.log().splitlines()[-30:])

    def _others(self) -> list[int]:
        ports = self._ports
        return [ports.sasl, ports.tls, ports.sasl_tls, ports.mutual_tls, ports.proxied]

    def _properties(self, bind: str, data: str, properties: Mapping[str, str]) -> str:
        ports = self._ports
        served = {
            "PLAINTEXT": ("PLAINTEXT", ports.plaintext, ports.plaintext),
            "SASL": ("SASL_PLAINTEXT", ports.sasl, ports.sasl),
            "TLS": ("SSL", ports.tls, ports.tls),
            "SASLTLS": ("SASL_SSL", ports.sasl_tls, ports.sasl_tls),
            "MUTUALTLS": ("SSL", ports.mutual_tls, ports.mutual_tls),
            "PROXIED": ("PLAINTEXT", ports.proxied, ports.proxy),
        }
        controller = f"CONTROLLER://127.0.0.1:{ports.controller}"
        protocols = ",".join(f"{name}:{protocol}" for name, (protocol, _, _) in served.items())
        authority = self.authority
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{ports.controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join([*(f"{name}://{bind}:{port}" for name, (_, port, _) in served.items()), controller]),
            "advertised.listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, (_, _, port) in served.items()),
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": _one_line(authority.server_cert),
            "ssl.keystore.key": _one_line(authority.server_key),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.certificates": _one_line(authority.ca_cert),
            "listener.name.mutualtls.ssl.client.auth": "required",
            "log.dirs": data,
            "auto.create.topics.enable": "false",
            # One node, and small
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


def _serves(port: int) -> bool:
    """Whether a broker answers the request that every client begins with: connections are accepted long before that."""
    body = struct.pack(">hhih", 18, 0, 1, -1)  # ApiVersions, version 0, correlation 1, no client id
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            return len(connection.recv(4)) == 4
    except OSError:
        return False
