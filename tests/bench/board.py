"""Eight-byte counters in a memory-mapped file, shared by the sink, the load generator and the harness.

Each word has one writer; aligned 64-bit stores are atomic on every machine that CPython runs on.
"""

import mmap
from pathlib import Path

__all__ = ["ACCEPTED", "DELIVERED", "RECORDING", "create_board", "open_board"]

DELIVERED = 0  # written by the sink: deliveries ever
RECORDING = 1  # written by the harness: 1 while latencies count
ACCEPTED = 2  # written by the load generator: events ever answered 202
WORDS = 3


def create_board(path: Path) -> memoryview:
    path.write_bytes(bytes(8 * WORDS))
    return open_board(path)


def open_board(path: Path) -> memoryview:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 8 * WORDS)).cast("Q")
