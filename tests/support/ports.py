"""Ports for services that come and go and must find their port again.

A port that the system picks is of the range that it also gives to outgoing connections: while the service is down, any client on
the machine may get it. These are from below that range, and no other test session on the machine takes the same ones.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

__all__ = ["reserve_ports"]

_RANGE = range(20000, 30000)
_held: list[int] = []  # descriptors of the locks: a port is this process's until it ends


def reserve_ports(count: int) -> list[int]:
    """So many ports of the loopback interface, for this process alone until it ends."""
    directory = Path(tempfile.gettempdir()) / f"eventing-mesh-ports-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    found: list[int] = []
    for port in random.SystemRandom().sample(_RANGE, len(_RANGE)):
        if len(found) == count:
            return found
        lock = os.open(directory / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
            continue
        _held.append(lock)
        found.append(port)
    raise AssertionError(f"{count} free ports were wanted of {_RANGE}")
