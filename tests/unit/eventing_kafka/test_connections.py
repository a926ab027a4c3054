"""What the client's connections do that it does not of itself: one that is reset while something is written to it breaks as the client
expects, on uvloop too, and a server that does not answer is left alone for a moment."""

import asyncio

import aiokafka.client
import aiokafka.conn
import pytest
import uvloop
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ListGroupsRequest

import eventing_kafka.connections  # noqa: F401 - changes the client
from eventing_kafka.clients import told


def test_written_to_in_the_turn_in_which_it_was_reset() -> None:
    async def main() -> str:
        server = await asyncio.start_server(lambda _reader, writer: writer.transport.abort(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = aiokafka.conn.AIOKafkaConnection("127.0.0.1", port)
        try:
            _, connection._writer = await asyncio.open_connection("127.0.0.1", port)
            connection._versions = {ListGroupsRequest.API_KEY: (0, 4)}
            connection._writer.transport.abort()
            await asyncio.sleep(0.01)
            try:
                connection.send(ListGroupsRequest())
            except KafkaConnectionError as error:
                return told(error)
            except RuntimeError as error:
                return f"as nobody expects: {error}"
            return "not at all"
        finally:
            connection._writer = None
            server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert "broken" in runner.run(main())


async def test_who_does_not_answer_is_left_alone_by_all_clients() -> None:
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: writers.append(writer), "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError):
            await aiokafka.client.create_conn("127.0.0.1", port, request_timeout_ms=200)
        for _ in range(3):
            with pytest.raises(KafkaConnectionError, match="has not answered a moment ago"):
                await aiokafka.client.create_conn("127.0.0.1", port, request_timeout_ms=200)
        assert len(writers) <= 1
    finally:
        server.close()
        for writer in writers:
            writer.close()
            await writer.wait_closed()
