"""A real RabbitMQ broker of one node."""

import shutil
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from eventing.testing.proxy import TcpProxy
from tests.support.back_ends import BackEnd
from tests.support.brokers import Broker
from tests.support.ports import reserve_ports
from tests.support.reaper import Reaper

__all__ = ["PASSWORD", "USER", "Node", "RabbitmqBroker"]

USER: Final = "mesh"
PASSWORD: Final = "open sesame"
_PROGRAMS_IN_DEBIAN: Final = "/usr/lib/rabbitmq/bin"
_ALARM_S: Final = 30.0
_LIST_WRITTEN_S: Final = 1.0


@dataclass(frozen=True)
class Node:
    """Of a cluster: its name, and the port at which all its nodes find each other (a register that the node does not start)."""

    name: str
    register: int


class RabbitmqBroker(Broker):
    """USER with PASSWORD may do everything in the virtual host `/`. `properties` are lines of rabbitmq.conf, `tick_ms` is how often
    the broker looks whether a consumer has kept an event for longer than `consumer_timeout` (usually 60,000). `node` where it is one of
    a cluster (cluster.py).
    """

    product = "RabbitMQ"

    def __init__(
        self,
        back_end: BackEnd,
        reaper: Reaper,
        *,
        properties: Mapping[str, str] | None = None,
        tick_ms: int = 60_000,
        node: Node | None = None,
    ) -> None:
        super().__init__(back_end, reaper)
        self.port, self.tls_port, self._distribution, epmd = reserve_ports(4)
        self._node = node or Node("eventing-mesh-test", epmd)
        self._write(properties or {}, tick_ms, "" if node else "epmd &\n")
        self._launched_by("launch.sh", [self.port, self.tls_port])

    @property
    def url(self) -> str:
        """For USER, without encryption."""
        return self.url_of()

    @property
    def tls(self) -> str:
        """For USER, with a certificate of `authority.ca_cert`."""
        return self.url_of(scheme="amqps", port=self.tls_port)

    def url_of(
        self, *, user: str = USER, password: str = PASSWORD, vhost: str = "/", scheme: str = "amqp", port: int | None = None
    ) -> str:
        """As told."""
        where = f"127.0.0.1:{port or self.port}/{quote(vhost, safe='')}"
        return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{where}"

    @asynccontextmanager
    async def proxy(self) -> AsyncIterator[TcpProxy]:
        """A proxy before it: `url_of(port=proxy.port)`."""
        proxy = TcpProxy("127.0.0.1", self.port)
        async with proxy:
            yield proxy

    def kill(self) -> None:
        """SIGKILL, after a moment. `start` brings it back with what it had.

        The moment is for RabbitMQ, which writes the list of its quorum queues twice a second: one that was made just before a
        kill is there afterwards and has no leader, for ever."""
        time.sleep(_LIST_WRITTEN_S)
        super().kill()

    def memory_alarm(self) -> None:
        """It has no memory for more: whoever publishes is blocked, until `end_of_memory_alarm`. Returns when it is so."""
        self._service.run(self._ctl("set_vm_memory_high_watermark", "0"))
        self._wait_for_alarm("memory")

    def end_of_memory_alarm(self) -> None:
        """Returns when it is so."""
        self._service.run(self._ctl("set_vm_memory_high_watermark", "0.8"))
        self._wait_for_alarm("")

    def disk_alarm(self) -> None:
        """As `memory_alarm`, for want of room on the disk."""
        self._service.run(self._ctl("set_disk_free_limit", "1000GB"))
        self._wait_for_alarm("disk")

    def end_of_disk_alarm(self) -> None:
        """Returns when it is so."""
        self._service.run(self._ctl("set_disk_free_limit", "1MB"))
        self._wait_for_alarm("")

    def ctl(self, *words: str) -> str:
        """What rabbitmqctl says. Takes a few seconds."""
        return self._service.run(self._ctl(*words))

    @property
    def version(self) -> str:
        return self.log().partition("Starting RabbitMQ ")[2].partition(" ")[0].strip()

    def _ctl(self, *words: str) -> list[str]:
        return ["/bin/sh", f"{self._at}/ctl.sh", *words]

    def _wait_for_alarm(self, wanted: str) -> None:
        deadline = time.monotonic() + _ALARM_S
        while True:
            told = self.ctl("eval", "rabbit_alarm:get_alarms().")
            if wanted in told if wanted else told.strip() == "[]":
                return
            assert time.monotonic() < deadline, f"alarms after {_ALARM_S} s: {told}"

    def _serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"  # the method Connection.Start
        except OSError:
            return False

    def _write(self, properties: Mapping[str, str], tick_ms: int, register: str) -> None:
        files = self._files
        for name in ("ca.crt", "server.crt", "server.key"):
            shutil.copy(self._directory / name, files / name)
            (files / name).chmod(0o644)
        settings = {
            "listeners.tcp.default": f"{self._bind}:{self.port}",
            "listeners.ssl.default": f"{self._bind}:{self.tls_port}",
            "ssl_options.cacertfile": f"{self._at}/ca.crt",
            "ssl_options.certfile": f"{self._at}/server.crt",
            "ssl_options.keyfile": f"{self._at}/server.key",
            "ssl_options.verify": "verify_none",
            "default_user": USER,
            "default_pass": PASSWORD,
            "log.console": "true",
            "disk_free_limit.absolute": "1MB",
            "vm_memory_high_watermark.relative": "0.8",  # of a machine that others share
            "raft.wal_max_size_bytes": str(16 << 20),
        }
        (files / "rabbitmq.conf").write_text("".join(f"{key} = {value}\n" for key, value in {**settings, **properties}.items()))
        (files / "advanced.config").write_text(f"[{{rabbit, [{{channel_tick_interval, {tick_ms}}}]}}].\n")
        (files / "enabled_plugins").write_text("[].\n")
        environment = {
            "HOME": self._data,  # for the cookie that programs and nodes know each other by
            "LANG": "C.UTF-8",
            # A register of nodes of its own: the usual one is a daemon that nobody ends.
            "ERL_EPMD_PORT": self._node.register,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"{self._node.name}@localhost",
            "RABBITMQ_DIST_PORT": self._distribution,
            "RABBITMQ_MNESIA_BASE": f"{self._data}/mnesia",
            "RABBITMQ_LOG_BASE": f"{self._data}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{self._at}/rabbitmq",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{self._at}/advanced",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self._at}/enabled_plugins",
            # No spinning: the cores are shared.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }
        home = self.back_end.home or _PROGRAMS_IN_DEBIAN  # elsewhere in an image it is on PATH
        told = "".join(f"export {name}='{value}'\n" for name, value in environment.items()) + f"PATH={home}:$PATH\n"
        (files / "environment.sh").write_text(told)
        (files / "ctl.sh").write_text(f'. {self._at}/environment.sh\nexec rabbitmqctl --quiet "$@"\n')
        cookie = f"[ -e .erlang.cookie ] || (umask 377; echo eventing-mesh-test-{self._node.register} >.erlang.cookie)\n"
        launch = f"mkdir -p {self._data}\ncd {self._data}\n{cookie}{register}exec rabbitmq-server\n"
        (files / "launch.sh").write_text(f". {self._at}/environment.sh\n{launch}")
