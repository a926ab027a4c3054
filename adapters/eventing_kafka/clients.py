"""Starting and ending aiokafka's clients without leaving a connection behind.

Whatever of aiokafka is cancelled while it opens a connection loses it. So starts are not cancelled but end by their own
time-outs, and no new connection is begun while a client is being stopped.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any, Final

__all__ = ["stop", "told"]

logger = logging.getLogger(__name__)

_HOLD_S: Final = 1.0


async def stop(client: Any, stoppable: Any, within_s: float) -> None:
    """Stop a consumer, producer or admin client (`stoppable`), of which `client` is the inner one; not longer than `within_s`,
    then its connections are closed under it."""
    lock = client._get_conn_lock  # noqa: SLF001 - held: nobody opens a connection that is then cancelled half way
    held = False
    with suppress(TimeoutError):
        async with asyncio.timeout(min(_HOLD_S, within_s)):
            held = await lock.acquire()
    task = asyncio.get_running_loop().create_task(stoppable.stop())
    try:
        # Who needs a connection to say goodbye and has none gets one after that.
        await asyncio.wait({task}, timeout=min(_HOLD_S, within_s))
    finally:
        if held:
            lock.release()
    if not task.done():
        await asyncio.wait({task}, timeout=max(0.0, within_s - _HOLD_S))
    if not task.done():
        task.cancel()
        await client.close()
        await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.debug("stopping a client of Kafka: %s", told(error))


def told(error: BaseException | None) -> str:
    """An error of the client in words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}" if error is not None and str(error) else type(error).__name__
