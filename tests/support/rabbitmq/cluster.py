"""A real RabbitMQ cluster, all of whose nodes run on this machine."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.support.back_ends import BackEnd
from tests.support.brokers import Broker
from tests.support.ports import reserve_ports
from tests.support.rabbitmq.broker import Node, RabbitmqBroker
from tests.support.reaper import Reaper

__all__ = ["RabbitmqCluster"]

_NODES: Final = 3
_TOGETHER_S: Final = 60.0


class RabbitmqCluster:
    """Every method that waits blocks. Its nodes can be killed and started again one by one."""

    def __init__(self, back_end: BackEnd, reaper: Reaper) -> None:
        (register,) = reserve_ports(1)
        names = [f"n{number}" for number in range(1, _NODES + 1)]
        properties = {"cluster_formation.peer_discovery_backend": "classic_config"}
        properties |= {f"cluster_formation.classic_config.nodes.{name[1:]}": f"{name}@localhost" for name in names}
        self._register = _Register(back_end, reaper, register)
        self.nodes = {name: RabbitmqBroker(back_end, reaper, properties=properties, node=Node(name, register)) for name in names}

    @property
    def url(self) -> str:
        """Of all nodes."""
        first, *others = self.nodes.values()
        return first.url.replace(f":{first.port}/", f":{first.port}{''.join(f',127.0.0.1:{each.port}' for each in others)}/")

    def start(self) -> None:
        """Start all nodes and wait until they are one cluster."""
        self._register.start()
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(RabbitmqBroker.start, self.nodes.values()))
        self.until_complete()

    def until_complete(self) -> None:
        """Wait until each node knows of all others that they run."""
        deadline = time.monotonic() + _TOGETHER_S
        for node in self.nodes.values():
            while (told := node.ctl("eval", "length(rabbit_mnesia:cluster_nodes(running)).").strip()) != str(len(self.nodes)):
                assert time.monotonic() < deadline, f"{told} nodes run together after {_TOGETHER_S} s"

    def leader_of(self, queue: str) -> RabbitmqBroker:
        """The node that leads a quorum queue."""
        some = next(each for each in self.nodes.values() if each.running)
        for line in some.ctl("list_queues", "--no-table-headers", "name", "leader").splitlines():
            name, _, leader = line.partition("\t")
            if name == queue:
                return self.nodes[leader.strip().partition("@")[0]]
        raise AssertionError(f"there is no queue {queue}")

    def remove(self) -> None:
        """Kill it and delete all that it kept."""
        for each in (*self.nodes.values(), self._register):
            each.remove()


class _Register(Broker):
    """Where the nodes find each other. One that a node had started would go with that node."""

    product = "epmd"

    def __init__(self, back_end: BackEnd, reaper: Reaper, port: int) -> None:
        super().__init__(back_end, reaper)
        (self._files / "launch.sh").write_text(f"exec epmd -port {port} -address 127.0.0.1\n")
        self._launched_by("launch.sh", [port])

    def _serves(self) -> bool:
        return True  # nodes try again

    @property
    def version(self) -> str:
        return ""
