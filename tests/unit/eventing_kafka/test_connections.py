"""A connection of the client that is reset while something is written to it breaks as the client expects, on uvloop too."""

import asyncio

import aiokafka.conn
import uvloop
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ListGroupsRequest

from eventing_kafka.clients import told  # the module changes the client


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
