"""`python -m tests.unit.apiserver.ledger DATABASE`: writes and removes objects as fast as it can, until it is killed.

Says `put KEY VERSION` or `remove KEY VERSION` on standard output once the store has acknowledged it.
"""

import asyncio
import os
import sys
from pathlib import Path

from eventing.apiserver.store import Store

WRITERS = 8
KEYS = 5


async def work(store: Store, writer: int) -> None:
    body = b"x" * 500
    for turn in range(1_000_000):
        key = ("default", f"w{writer}-{turn % KEYS}")

        def encode(version: int) -> bytes:
            return b'{"metadata":{"resourceVersion":"%d"},"body":"%s"}' % (version, body)

        if turn % 7 == 6 and store.latest("things", key) is not None:
            word, record = "remove", await store.remove("things", key, encode)
        else:
            word, record = "put", await store.put("things", key, encode)
        os.write(1, f"{word} {key[1]} {record.version}\n".encode())


async def main(path: Path) -> None:
    store = Store(path, stamp="test")
    async with asyncio.TaskGroup() as group:
        for writer in range(WRITERS):
            group.create_task(work(store, writer))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
