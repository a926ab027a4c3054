"""Requests that two readers could take for two different things are refused, whole, on raw sockets (peers A13; RFC 9112 §11.2).

Behind each of them comes an event that must never be accepted: whoever sends such a request may mean it as the body of the first
one, so that a proxy in front has not seen it.
"""

import asyncio
import re

import pytest

from eventing.testing.sinks import Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber

LINE = b"POST /default/orders HTTP/1.1\r\n"
EVENT = b"ce-specversion: 1.0\r\nce-id: first\r\nce-source: /s\r\nce-type: t\r\n"
POST = LINE + b"host: x\r\n" + EVENT
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
HIDDEN = LINE + b"host: x\r\n" + EVENT.replace(b"first", b"hidden") + b"content-length: 0\r\n\r\n"

REFUSED = [
    # two lengths
    ("CL.TE", 400, POST + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nX"),
    ("TE.CL", 400, POST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n"),
    ("CL.TE behind an upgrade", 400, POST + b"connection: upgrade\r\nupgrade: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("CL.CL, the same", 400, POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
    ("CL.CL, different", 400, POST + b"content-length: 0\r\ncontent-length: 3\r\n\r\nabc"),
    ("CL list", 400, POST + b"content-length: 3, 3\r\n\r\nabc"),
    ("CL and 0", 400, POST + b"content-length: 3 0\r\n\r\nabc"),
    ("CL +3", 400, POST + b"content-length: +3\r\n\r\nabc"),
    ("CL -1", 400, POST + b"content-length: -1\r\n\r\n"),
    ("CL 0x3", 400, POST + b"content-length: 0x3\r\n\r\nabc"),
    ("CL 1_0", 400, POST + b"content-length: 1_0\r\n\r\n0123456789"),
    ("CL 3.0", 400, POST + b"content-length: 3.0\r\n\r\nabc"),
    ("CL quoted", 400, POST + b'content-length: "3"\r\n\r\nabc'),
    ("CL of nothing", 400, POST + b"content-length:\r\n\r\n"),
    ("CL beyond 64 bits", 400, POST + b"content-length: 18446744073709551619\r\n\r\nabc"),
    ("CL in a trailer", 400, CHUNKED + b"0\r\ncontent-length: 9\r\n\r\n"),
    # transfer codings
    ("TE twice", 400, POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE chunked, then identity", 400, POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n"),
    ("TE identity, then chunked", 501, POST + b"transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE: chunked, identity", 400, POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("TE: identity, chunked", 501, POST + b"transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    ("TE: identity", 501, POST + b"transfer-encoding: identity\r\ncontent-length: 0\r\n\r\n"),
    ("TE: gzip, chunked", 501, POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("TE: xchunked", 501, POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("TE: chunked;q=1", 501, POST + b"transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    ("TE quoted", 501, POST + b'transfer-encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    ("TE behind a vertical tab", 400, POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("TE behind a NUL", 400, POST + b"transfer-encoding: \0chunked\r\n\r\n0\r\n\r\n"),
    ("TE of nothing", 400, POST + b"transfer-encoding:\r\ncontent-length: 0\r\n\r\n"),
    ("TE, comma first", 501, POST + b"transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    ("TE, comma last", 400, POST + b"transfer-encoding: chunked,\r\n\r\n0\r\n\r\n"),
    ("TE folded", 400, POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("TE in a trailer", 400, CHUNKED + b"0\r\ntransfer-encoding: chunked\r\n\r\n"),
    ("TE in HTTP/1.0", 400, CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n"),
    ("TE in HTTP/1.0, kept alive", 400, POST.replace(b"1.1", b"1.0") + b"connection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    # chunks
    ("size of no digits", 400, CHUNKED + b"\r\n0\r\n\r\n"),
    ("size zz", 400, CHUNKED + b"zz\r\n"),
    ("size 0x2", 400, CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n"),
    ("size +2", 400, CHUNKED + b"+2\r\nab\r\n0\r\n\r\n"),
    ("size -2", 400, CHUNKED + b"-2\r\nab\r\n0\r\n\r\n"),
    ("size 0_2", 400, CHUNKED + b"0_2\r\nab\r\n0\r\n\r\n"),
    ("size, space before", 400, CHUNKED + b" 2\r\nab\r\n0\r\n\r\n"),
    ("size, space behind", 400, CHUNKED + b"2 \r\nab\r\n0\r\n\r\n"),
    ("size beyond 64 bits", 400, CHUNKED + b"10000000000000002\r\nab\r\n0\r\n\r\n"),
    ("size, bare LF", 400, CHUNKED + b"2\nab\r\n0\r\n\r\n"),
    ("size, bare CR", 400, CHUNKED + b"2\rab\r\n0\r\n\r\n"),
    ("last chunk, bare LF", 400, CHUNKED + b"0\n\r\n"),
    ("data, bare LF", 400, CHUNKED + b"2\r\nab\n0\r\n\r\n"),
    ("data longer than said", 400, CHUNKED + b"1\r\nab\r\n0\r\n\r\n"),
    ("data shorter than said", 400, CHUNKED + b"4\r\nab\r\n0\r\n\r\n"),
    ("extension, bare LF before its name", 400, CHUNKED + b"2;\nxx\r\nab\r\n0\r\n\r\n"),
    ("extension, bare LF behind its name", 400, CHUNKED + b"2;x\nab\r\n0\r\n\r\n"),
    ("extension, bare CR", 400, CHUNKED + b"2;\rxx\r\nab\r\n0\r\n\r\n"),
    ("extension, NUL", 400, CHUNKED + b"2;\0\r\nab\r\n0\r\n\r\n"),
    ("extension, open quote", 400, CHUNKED + b'2;a="x\r\nab\r\n0\r\n\r\n'),
    ("extension without its semicolon", 400, CHUNKED + b"2 xx\r\nab\r\n0\r\n\r\n"),
    ("trailer, bare LF", 400, CHUNKED + b"0\r\nx: y\n\r\n"),
    ("trailer, space before the colon", 400, CHUNKED + b"0\r\nx : y\r\n\r\n"),
    ("trailers' end, bare LF", 400, CHUNKED + b"0\r\n\n"),
    # lines
    ("folded", 400, POST + b"x: a\r\n b\r\n\r\n"),
    ("folded by a tab", 400, POST + b"x: a\r\n\tb\r\n\r\n"),
    ("folded, first line", 400, LINE + b" host: x\r\n" + EVENT + b"\r\n"),
    ("bare LF everywhere", 400, (POST + b"\r\n").replace(b"\r\n", b"\n")),
    ("bare LF behind a value", 400, POST + b"x: a\ncontent-length: 0\r\n\r\n"),
    ("bare LF behind the request line", 400, POST.replace(b"1.1\r\n", b"1.1\n") + b"\r\n"),
    ("bare LF, end of the head", 400, POST + b"x: a\r\n\n"),
    ("bare CR in a value", 400, POST + b"x: a\rcontent-length: 0\r\n\r\n"),
    ("bare CR, end of the head", 400, POST + b"x: a\r\n\r\r\n"),
    ("CR CR LF", 400, POST + b"x: a\r\r\n\r\n"),
    ("NUL in a value", 400, POST + b"x: a\0b\r\n\r\n"),
    ("control in a value", 400, POST + b"x: a\x01b\r\n\r\n"),
    ("space before the colon", 400, POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("tab before the colon", 400, POST + b"content-length\t: 0\r\n\r\n"),
    ("space in a name", 400, POST + b"content length: 0\r\n\r\n"),
    ("no colon", 400, POST + b"content-length\r\n\r\n"),
    ("no name", 400, POST + b": chunked\r\n\r\n"),
    ("a name beyond ASCII", 400, POST + b"content-length\xff: 0\r\n\r\n"),
    # which host, which version
    ("two hosts", 400, LINE + b"host: x\r\nhost: y\r\n" + EVENT + b"\r\n"),
    ("no host", 400, LINE + EVENT + b"\r\n"),
    ("a space in the target", 400, POST.replace(b"orders ", b"orders x ") + b"\r\n"),
    ("a control in the target", 400, POST.replace(b"orders ", b"orders\x01 ") + b"\r\n"),
    ("HTTP/0.9", 505, b"POST /default/orders\r\n\r\n"),
    ("HTTP/0.9, kept alive", 505, POST.replace(b" HTTP/1.1", b"") + b"connection: keep-alive\r\n\r\n"),
    ("HTTP/2.0, kept alive", 505, POST.replace(b"1.1", b"2.0") + b"connection: keep-alive\r\n\r\n"),
    ("HTTP/1.2", 400, POST.replace(b"1.1", b"1.2") + b"\r\n"),
    ("HTTP/2.0", 505, POST.replace(b"1.1", b"2.0") + b"\r\n"),
    ("HTTP/2, by its preface", 400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("http in small letters", 400, POST.replace(b"HTTP", b"http") + b"\r\n"),
    ("TLS", 405, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("a tunnel", 405, b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n"),
]  # fmt: skip

TAKEN = [
    ("length", POST + b"content-length: 3\r\n\r\nabc", b"abc"),
    ("length with white space", POST + b"content-length: \t3 \r\n\r\nabc", b"abc"),
    ("no length", POST + b"\r\n", b""),
    ("chunks", POST + b"Transfer-Encoding: \tChunked \r\n\r\n2\r\nab\r\n01;x=y;z=\"q\"\r\nc\r\n000\r\nx: y\r\n\r\n", b"abc"),
    ("an empty line before", b"\r\n" + POST + b"content-length: 3\r\n\r\nabc", b"abc"),
    ("an upgrade", POST + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 3\r\n\r\nabc", b"abc"),
    ("a header that looks like one of framing", POST + b"transfer_encoding: chunked\r\nx-content-length: 9\r\n\r\n", b""),
]  # fmt: skip


async def answers(mesh: DataPlaneRig, sent: bytes) -> list[bytes]:
    """Status codes of all answers until the server closes; what is sent ends with the end of the stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port)
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(20):
        got = await reader.read()
    writer.close()
    await writer.wait_closed()
    return re.findall(rb"HTTP/1\.1 (\d+)", got)


@pytest.mark.parametrize(("name", "status", "sent"), REFUSED, ids=[case[0] for case in REFUSED])
async def test_refused(sink: Sink, name: str, status: int, sent: bytes) -> None:
    async with DataPlaneRig() as mesh:
        mesh.channel("orders", subscriber("s", sink.url + "/"))
        assert await answers(mesh, sent + HIDDEN) == [b"%d" % status]
        assert mesh.journal.accepted_events == 0
        assert [refusal.status for refusal in mesh.journal.refusals] == [status]
        await mesh.accepted(make_event("last"))
        assert [received.event_id for received in await sink.received(1)] == ["last"]


@pytest.mark.parametrize(("name", "sent", "body"), TAKEN, ids=[case[0] for case in TAKEN])
async def test_taken_and_so_is_what_follows(sink: Sink, name: str, sent: bytes, body: bytes) -> None:
    async with DataPlaneRig() as mesh:
        mesh.channel("orders", subscriber("s", sink.url + "/", concurrency=1))
        assert await answers(mesh, sent + HIDDEN) == [b"202", b"202"]
        first, second = await sink.received(2)
        assert [(each.event_id, each.body) for each in (first, second)] == [("first", body), ("hidden", b"")]
