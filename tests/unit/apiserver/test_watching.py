"""Watches: replay, resume, selectors, WatchList, 410, shared encoding, the end."""

import asyncio
import json
import socket
import ssl
import time

import pytest

from eventing.apiserver import dispatch, watching
from eventing.apiserver import store as store_module
from tests.unit.apiserver.client import SHAPES, Client, shape


async def test_a_watch_begins_with_what_there_is_and_goes_on(api: Client) -> None:
    await api.create(SHAPES, shape("a"))
    async with api.watch(SHAPES) as watch:
        assert await watch.take(1) == [("ADDED", "a")]
        await api.create(SHAPES, shape("b"))
        await api.patch(f"{SHAPES}/a", {"spec": {"color": "red"}})
        await api.ask("DELETE", f"{SHAPES}/a")
        assert await watch.take(3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_a_watch_resumes_after_the_version_of_a_list(api: Client) -> None:
    await api.create(SHAPES, shape("a"))
    version = (await api.get(SHAPES))["metadata"]["resourceVersion"]
    await api.create(SHAPES, shape("b"))
    await api.ask("DELETE", f"{SHAPES}/a")
    async with api.watch(SHAPES, resourceVersion=version) as watch:
        assert await watch.take(2) == [("ADDED", "b"), ("DELETED", "a")]


async def test_a_deleted_objects_last_state_has_the_version_of_its_deletion(api: Client) -> None:
    made = await api.create(SHAPES, shape("a"))
    async with api.watch(SHAPES, resourceVersion=made["metadata"]["resourceVersion"]) as watch:
        await api.ask("DELETE", f"{SHAPES}/a")
        event = await watch.next()
        assert event
        assert int(event["object"]["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


async def test_a_selector_sees_objects_come_and_go(api: Client) -> None:
    async with api.watch(SHAPES, labelSelector="show=yes") as watch:
        await api.create(SHAPES, shape("a"))
        await api.patch(f"{SHAPES}/a", {"metadata": {"labels": {"show": "yes"}}})
        await api.patch(f"{SHAPES}/a", {"spec": {"color": "red"}})
        left = await api.patch(f"{SHAPES}/a", {"metadata": {"labels": {"show": "no"}}})
        assert await watch.take(2) == [("ADDED", "a"), ("MODIFIED", "a")]
        event = await watch.next()
        assert event
        assert event["type"] == "DELETED"
        assert event["object"]["metadata"]["labels"] == {"show": "yes"}, "as the watcher last saw it"
        assert event["object"]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]


async def test_one_object_by_name(api: Client) -> None:
    for name in ("a", "b"):
        await api.create(SHAPES, shape(name))
    async with api.watch(SHAPES, fieldSelector="metadata.name=b", resourceVersion="0") as watch:
        assert await watch.take(1) == [("ADDED", "b")]
        await api.patch(f"{SHAPES}/a", {"spec": {"color": "red"}})
        await api.patch(f"{SHAPES}/b", {"spec": {"color": "red"}})
        assert await watch.take(1) == [("MODIFIED", "b")]


async def test_watch_list_ends_its_beginning_with_a_bookmark(api: Client) -> None:
    await api.create(SHAPES, shape("a"))
    params = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with api.watch(SHAPES, **params) as watch:
        assert await watch.take(1) == [("ADDED", "a")]
        event = await watch.next()
        assert event
        assert event["type"] == "BOOKMARK"
        assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        version = event["object"]["metadata"]["resourceVersion"]
    async with api.watch(SHAPES, resourceVersion=version) as watch:
        await api.create(SHAPES, shape("b"))
        assert await watch.take(1) == [("ADDED", "b")]
    for wrong in (
        {"sendInitialEvents": "true"},
        {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"},
        {"resourceVersion": version, "resourceVersionMatch": "NotOlderThan"},
    ):
        code, body = await api.ask("GET", SHAPES, watch="true", **wrong)
        assert (code, body["reason"]) == (422, "Invalid"), "clients list instead when they are told so"


async def test_what_the_log_has_lost_is_410(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_LOG_EVENTS", 3)
    version = (await api.get(SHAPES))["metadata"]["resourceVersion"]
    for index in range(6):
        await api.create(SHAPES, shape(f"s{index}"))
    code, body = await api.ask("GET", SHAPES, watch="true", resourceVersion=version)
    assert (code, body["reason"]) == (410, "Expired")
    code, body = await api.ask("GET", SHAPES, watch="true", resourceVersion="999999")
    assert (code, body["reason"]) == (410, "Expired")


async def test_a_watcher_that_does_not_read_is_ended_not_fed_from_memory(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_LOG_EVENTS", 20)
    await api.create(SHAPES, shape("a"))
    padding = "x" * 100_000
    async with api.watch(SHAPES) as watch:
        assert await watch.take(1) == [("ADDED", "a")]
        for index in range(150):
            await api.patch(f"{SHAPES}/a", {"spec": {"free": {"i": index, "p": padding}}})
        last = None
        while (event := await watch.next()) is not None:
            last = event
        assert last
        assert (last["type"], last["object"]["code"]) == ("ERROR", 410)


async def test_a_watcher_that_takes_nothing_is_cut_off(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_STUCK_S", 0.2)
    await api.create(SHAPES, shape("a"))
    padding = "x" * 500_000
    async with api.watch(SHAPES) as watch:
        assert await watch.take(1) == [("ADDED", "a")]
        for index in range(40):
            await api.patch(f"{SHAPES}/a", {"spec": {"free": {"i": index, "p": padding}}})
        async with asyncio.timeout(10):
            while len(api.server._watches):
                await asyncio.sleep(0.01)


async def test_a_watch_ends_at_its_time(api: Client) -> None:
    async with api.watch(SHAPES, timeoutSeconds="1") as watch:
        assert await watch.next() is None


async def test_a_watch_with_bookmarks_ends_with_one(api: Client) -> None:
    made = await api.create(SHAPES, shape("a"))
    async with api.watch(SHAPES, timeoutSeconds="1", allowWatchBookmarks="true", labelSelector="a=b") as watch:
        event = await watch.next()
        assert event
        assert (event["type"], event["object"]["kind"]) == ("BOOKMARK", "Shape")
        assert event["object"]["metadata"] == {"resourceVersion": made["metadata"]["resourceVersion"]}
        assert await watch.next() is None


async def test_tables_are_watched_as_tables(api: Client) -> None:
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    async with api.watch(SHAPES, headers=accept) as watch:
        await api.create(SHAPES, shape("a", color="red"))
        event = await watch.next()
        assert event
        assert event["type"] == "ADDED"
        assert event["object"]["kind"] == "Table"
        assert event["object"]["rows"][0]["cells"][:2] == ["a", "red"]


async def test_watchers_get_everything_in_order(api: Client) -> None:
    async def follow() -> list[str]:
        async with api.watch(SHAPES, resourceVersion=version) as watch:
            ready.release()
            return [f"{kind} {name}" for kind, name in await watch.take(100)]

    version = (await api.get(SHAPES))["metadata"]["resourceVersion"]
    ready = asyncio.Semaphore(0)
    watchers = [asyncio.create_task(follow()) for _ in range(10)]
    for _ in watchers:
        await ready.acquire()
    await asyncio.gather(*(api.create(SHAPES, shape(f"s{index}")) for index in range(100)))
    seen = await asyncio.gather(*watchers)
    assert all(events == seen[0] for events in seen)
    assert len(set(seen[0])) == 100


async def test_stopping_ends_the_watches_within_a_second(api: Client) -> None:
    async with api.watch(SHAPES) as one, api.watch(SHAPES) as other:
        begun = time.monotonic()
        await api.server.aclose()
        assert await one.next() is None
        assert await other.next() is None
        assert time.monotonic() - begun < 1


async def test_clients_that_do_not_answer_are_cut_off_at_the_stop(api: Client) -> None:
    host, port = api.url.removeprefix("https://").split(":")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection((host, int(port)))
    silent = await asyncio.to_thread(trust.wrap_socket, plain)
    silent.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200" in await asyncio.to_thread(silent.recv, 1000)
    begun = time.monotonic()
    await api.server.aclose()
    async with asyncio.timeout(5):
        while api.server._server is not None:
            await asyncio.sleep(0.01)
    assert time.monotonic() - begun < 1.5
    silent.close()


async def test_lines_are_whole_json(api: Client) -> None:
    async with api.watch(SHAPES) as watch:
        await api.create(SHAPES, shape("a", free={"text": "line\nfeed \u2028 é"}))
        line = await watch.response.content.readline()
        assert json.loads(line)["object"]["spec"]["free"]["text"] == "line\nfeed \u2028 é"


async def test_a_quiet_watch_hears_how_far_the_others_are(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_BOOKMARK_S", 0.05)
    async with api.watch(SHAPES, allowWatchBookmarks="true", labelSelector="a=b") as watch:
        made = await api.create(SHAPES, shape("a"))
        async with asyncio.timeout(10):
            while (event := await watch.next()) and event["object"]["metadata"] != {
                "resourceVersion": made["metadata"]["resourceVersion"]
            }:
                assert event["type"] == "BOOKMARK"
        assert event
