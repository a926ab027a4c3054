"""Where deliveries may connect: A1 to A3."""

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest

from eventing.bindings.http import HeaderNames
from eventing.delivery.addresses import AddressGuard, Resolve, address_guard, connect
from eventing.delivery.connections import target, unreachable
from eventing.delivery.resolver import Resolver
from eventing.delivery.tls import TlsContexts
from eventing.wire.client import Connection, Origin
from eventing.wire.pool import Pool

STRICT = AddressGuard(
    deny=[
        ipaddress.ip_network(text)
        for text in (
            "127.0.0.0/8",
            "10.0.0.0/8",
            "169.254.0.0/16",
            "100.64.0.0/10",
            "0.0.0.0/8",
            "::1/128",
            "fe80::/10",
            "fc00::/7",
        )
    ]
)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::10.0.0.1", "fe80::1%lo", "fd00::1", "64:ff9b::7f00:1", "64:ff9b::10.1.2.3", "2002:7f00:1::", "2002:a9fe:a9fe::",
        "2001:0:a9fe:a9fe::",
    ],
)  # fmt: skip
def test_a_strict_list_denies_every_form(address: str) -> None:
    with pytest.raises(PermissionError, match="denied"):
        STRICT.check(address)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "0.0.0.0", "::", "224.0.0.1", "ff02::1",
     "255.255.255.255", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::ffff:0.0.0.0", "::169.254.169.254"],
)  # fmt: skip
def test_metadata_and_link_local_are_denied_by_default(address: str) -> None:
    with pytest.raises(PermissionError, match="denied"):
        AddressGuard().check(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "8.8.8.8", "2001:db8::1", "::ffff:10.0.0.1"])
def test_the_rest_is_allowed_by_default(address: str) -> None:
    AddressGuard().check(address)


def test_allow_beats_deny() -> None:
    guard = AddressGuard(allow=[ipaddress.ip_network("169.254.169.254/32")])
    guard.check("169.254.169.254")
    with pytest.raises(PermissionError):
        guard.check("169.254.169.253")


def test_ranges_of_the_user_come_to_those_of_the_house() -> None:
    guard = address_guard(["169.254.169.254", "10.1.0.0/16"], ["10.0.0.0/8", "2001:db8::/32"])
    for allowed in ("169.254.169.254", "10.1.2.3", "::ffff:10.1.2.3", "192.168.0.1"):
        guard.check(allowed)
    for denied in ("169.254.169.253", "10.2.0.1", "2001:db8::1", "64:ff9b::a02:1"):
        with pytest.raises(PermissionError):
            guard.check(denied)


async def test_an_address_that_drops_everything_does_not_use_up_the_time_of_the_next() -> None:
    """F20: a name with many addresses. The test stands in for the loop: what drops packets cannot be had on every machine."""
    loop = asyncio.get_running_loop()
    tried: list[str] = []

    async def create_connection(_factory: object, host: str, _port: int, **_options: object) -> None:
        tried.append(host)
        if host == "192.0.2.1":
            await asyncio.sleep(60)

    began = loop.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "create_connection", create_connection)
        patch.setattr("eventing.delivery.addresses.NEXT_ADDRESS_S", 0.05)
        await connect(
            Origin("http", "x", 1),
            factory,
            guard=AddressGuard(),
            resolve=answers("192.0.2.1", "192.0.2.2"),
            contexts=TlsContexts(),
        )
    assert tried == ["192.0.2.1", "192.0.2.2"]
    assert loop.time() - began < 30


def answers(*addresses: str) -> Resolve:
    async def resolve(_host: str) -> Sequence[str]:
        return addresses

    return resolve


def factory() -> Connection:
    pool = Pool(Origin("http", "x", 1), lambda *_: asyncio.sleep(0), lambda _: None, names=HeaderNames())
    return Connection(pool)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "::1", "::ffff:127.0.0.1"]
)
async def test_whatever_the_spelling_what_counts_is_the_address(host: str) -> None:
    with pytest.raises(PermissionError, match="denied"):
        await connect(Origin("http", host, 1), factory, guard=STRICT, resolve=Resolver(), contexts=TlsContexts())


@pytest.mark.parametrize("host", ["2852039166", "0xa9.0xfe.0xa9.0xfe", "169.254.43518"])
async def test_metadata_services_in_other_spellings(host: str) -> None:
    with pytest.raises(PermissionError, match=r"169\.254\.169\.254"):
        await connect(Origin("http", host, 80), factory, guard=AddressGuard(), resolve=Resolver(), contexts=TlsContexts())


async def test_one_denied_address_refuses_the_name() -> None:
    """A2: also where a public one stands before it."""
    with pytest.raises(PermissionError, match=r"10\.0\.0\.1"):
        await connect(
            Origin("http", "x", 1), factory, guard=STRICT, resolve=answers("8.8.8.8", "10.0.0.1"), contexts=TlsContexts()
        )


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """A2: a name is resolved once; a second answer finds nobody who asks."""
    asked = 0
    accepted = asyncio.Event()

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)

    async def rebinding(_host: str) -> Sequence[str]:
        nonlocal asked
        asked += 1
        return ["127.0.0.1"] if asked == 1 else ["10.0.0.1"]

    port = server.sockets[0].getsockname()[1]
    made: list[Connection] = []

    def remember() -> Connection:
        made.append(factory())
        return made[-1]

    await connect(
        Origin("http", "rebound.example", port), remember, guard=AddressGuard(), resolve=rebinding, contexts=TlsContexts()
    )
    await asyncio.wait_for(accepted.wait(), 5)
    assert asked == 1
    made[0].close()
    server.close()


async def test_the_next_address_is_tried_where_one_refuses() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made: list[Connection] = []

    def remember() -> Connection:
        made.append(factory())
        return made[-1]

    await connect(
        Origin("http", "x", port),
        remember,
        guard=AddressGuard(),
        resolve=answers("127.0.0.2", "127.0.0.1"),
        contexts=TlsContexts(),
    )
    made[-1].close()
    server.close()


async def test_a_name_without_an_address() -> None:
    with pytest.raises(OSError, match="no address"):
        await connect(Origin("http", "x", 1), factory, guard=AddressGuard(), resolve=answers(), contexts=TlsContexts())


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "gopher://x/", "unix:/run/x", "ftp://x/", "//x/", "x", "", "http://", "http:///path", "http://good@evil/",
        "http://user:secret@x/", "http://x:99999/", "http://x:0/", "http://x:y/", "http://[::1/", "http://" + "ü" * 80 + "/",
    ],
)  # fmt: skip
def test_urls_that_are_no_places_to_deliver_to(url: str) -> None:
    """A3."""
    with pytest.raises(ValueError) as refused:
        target(url, namespace="default")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "line", "host", "origin"),
    [
        ("http://x", b"POST / HTTP/1.1", b"host: x", Origin("http", "x", 80)),
        ("HTTP://X:80/a/b?c=d#fragment", b"POST /a/b?c=d HTTP/1.1", b"host: x", Origin("http", "x", 80)),
        ("https://x:8443/", b"POST / HTTP/1.1", b"host: x:8443", Origin("https", "x", 8443)),
        ("https://x/a%20b", b"POST /a%20b HTTP/1.1", b"host: x", Origin("https", "x", 443)),
        ("http://x/a b/ü?q=ä", b"POST /a%20b/%C3%BC?q=%C3%A4 HTTP/1.1", b"host: x", Origin("http", "x", 80)),
        ("http://[::1]:81/", b"POST / HTTP/1.1", b"host: [::1]:81", Origin("http", "::1", 81)),
        (
            "http://bücher.example/",
            b"POST / HTTP/1.1",
            b"host: xn--bcher-kva.example",
            Origin("http", "xn--bcher-kva.example", 80),
        ),
        ("http://x/\r\nhost: evil", b"POST /host:%20evil HTTP/1.1", b"host: x", Origin("http", "x", 80)),
    ],
)
def test_a_target_is_taken_apart_once(url: str, line: bytes, host: bytes, origin: Origin) -> None:
    made = target(url, namespace="shop", reply=True)
    lines = made.prefix.split(b"\r\n")
    assert lines[:2] == [line, host]
    assert made.origin == origin
    assert b"kn-namespace: shop" in lines
    assert b"prefer: reply" in lines
    assert b"prefer" not in target(url, namespace="shop").prefix


async def test_an_unreachable_target_fails_for_good_and_keeps_no_secret() -> None:
    made = unreachable("http://user:secret@x/", "credentials do not belong there")
    assert "secret" not in made.url
    with pytest.raises(PermissionError, match="credentials"):
        await connect(made.origin, factory, guard=AddressGuard(), resolve=Resolver(), contexts=TlsContexts())
