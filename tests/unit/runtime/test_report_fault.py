"""What nobody has caught in an event loop, and what is no fault of ours."""

import asyncio
import logging

import pytest
import uvloop

from eventing.runtime.child import report_fault


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def _written_after_its_end() -> dict[str, object]:
    """What uvloop tells the loop's exception handler where TLS writes to a connection that is gone."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    transport, client = await loop.create_connection(_Client, *server.sockets[0].getsockname()[:2])
    transport.abort()
    await client.lost.wait()
    server.close()
    try:
        transport.set_write_buffer_limits(0)
        transport.write(b"goodbye")
    except RuntimeError as error:
        return {"message": "Error occurred during shutdown", "exception": error, "transport": transport}
    pytest.fail("uvloop no longer refuses it")


@pytest.mark.parametrize("fault", ["gone", "ours", "without a transport"])
def test_only_a_goodbye_to_who_is_gone_is_no_fault(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(report_fault)
        context = await _written_after_its_end()
        if fault == "ours":
            context["exception"] = RuntimeError("a mistake")
        elif fault == "without a transport":
            del context["transport"]
        loop.call_exception_handler(context)

    with caplog.at_level(logging.WARNING), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    assert ("Error occurred during shutdown" in caplog.text) == (fault != "gone")
