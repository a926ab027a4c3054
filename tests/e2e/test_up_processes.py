"""The processes of a real mesh: starts beside each other, crashes, kills, signals."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.manifests import CHANNEL, subscription
from tests.support.up import Subscriber, Up
from tests.support.waiting import alive, eventually

SUBSCRIPTIONS = "/apis/messaging.knative.dev/v1/namespaces/default/subscriptions"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_is_clean(tmp_path: Path, number: int) -> None:
    with Up(tmp_path / "data") as mesh:
        pids = [mesh.ready().process.pid, *mesh.children().values()]
        assert mesh.stop(number) == 0, mesh.log
        assert not any(map(alive, pids))
        assert "ERROR" not in mesh.log
        assert "Traceback" not in mesh.log


def test_a_second_start_beside_a_running_one_says_so(tmp_path: Path) -> None:
    with Up(tmp_path / "data") as mesh:
        mesh.ready()
        with Up(tmp_path / "data") as second:
            assert second.process.wait(20) == 1
            assert f"already running on {mesh.data_dir}, process {mesh.process.pid}" in second.log
        assert mesh.api("/api/v1/namespaces/default")["metadata"]["name"] == "default"


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with Up(tmp_path / "data") as mesh:
        port = mesh.ready().endpoints["metrics"].rpartition(":")[2]
        with Up(tmp_path / "other", f"--metrics-port={port}") as second:
            assert second.process.wait(20) == 1
            assert f"port {port} on 127.0.0.1, for the metrics endpoint, is in use" in second.log
            assert "--metrics-port" in second.log


def test_a_killed_data_plane_comes_back_and_delivers(tmp_path: Path) -> None:
    with Subscriber() as subscriber:
        manifests = f"{CHANNEL}---\n{subscription(subscriber.url)}"
        with Up(tmp_path / "data", "-f", "-", stdin=manifests) as mesh:
            subscriber.get(mesh.ready().send_until_due())
            before = mesh.children()
            os.kill(before["DataPlaneRole"], signal.SIGKILL)
            eventually(
                lambda: mesh.children().get("DataPlaneRole", before["DataPlaneRole"]) != before["DataPlaneRole"], "a new one"
            )
            subscriber.get(mesh.send_until_due())
            assert mesh.children()["Control"] == before["Control"]
            assert "process ended, starting it again" in mesh.log
            assert "what in-memory channels held" in mesh.log
            assert mesh.stop() == 0, mesh.log


def test_what_failed_is_known_after_the_data_plane_was_killed(tmp_path: Path) -> None:
    spec = {"delivery": {"retry": 1, "backoffDelay": "PT0.01S"}}
    manifest = yaml.safe_load(subscription("http://127.0.0.1:1/"))
    manifest["spec"] |= spec
    with Up(tmp_path / "data", "-f", "-", stdin=f"{CHANNEL}---\n{yaml.safe_dump(manifest)}") as mesh:
        event = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": "lost"}

        def traced() -> dict[str, Any]:
            told = json.loads(mesh.run("trace", "lost", "-o", "json"))
            matches = [match for match in told["matches"] if match["deliveries"]]
            return matches[0] if matches else {}

        def dropped() -> bool:
            if mesh.post("/default/orders", event, b"{}").status == 404:
                return False  # the channel that was applied at start is not made yet
            found = traced()
            return bool(found) and found["deliveries"][0]["state"] == "dropped"

        mesh.ready()
        eventually(dropped, "an event was due to it, and dropped")
        segments = list((mesh.data_dir / "journal").glob("*.seg"))
        eventually(lambda: any(b'"lost"' in path.read_bytes() for path in segments), "that is on disk")
        before = mesh.children()["DataPlaneRole"]
        os.kill(before, signal.SIGKILL)
        eventually(lambda: mesh.children().get("DataPlaneRole", before) != before, "a new one")
        found = traced()
        assert found["kept"] == "disk"
        (delivery,) = found["deliveries"]
        assert (delivery["state"], delivery["reason"]) == ("dropped", "NoDeadLetterSink")
        assert [attempt["outcome"] for attempt in delivery["attempts"]] == ["retrying", "failed", "dropped"]
        assert mesh.stop() == 0, mesh.log


def test_the_data_plane_delivers_while_control_is_killed_and_control_comes_back(tmp_path: Path) -> None:
    with Subscriber() as subscriber, Subscriber() as later:
        manifests = f"{CHANNEL}---\n{subscription(subscriber.url)}"
        with Up(tmp_path / "data", "-f", "-", stdin=manifests) as mesh:
            subscriber.get(mesh.ready().send_until_due())
            before = mesh.children()
            os.kill(before["Control"], signal.SIGKILL)
            event = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": "meanwhile"}
            assert mesh.post("/default/orders", event, b"{}").status == 202
            subscriber.get("meanwhile")
            # The API's socket was kept open by the supervisor: a client waits instead of being refused.
            assert [each["metadata"]["name"] for each in mesh.api(SUBSCRIPTIONS)["items"]] == ["printer"]
            assert mesh.children()["DataPlaneRole"] == before["DataPlaneRole"]
            body = {
                "apiVersion": "messaging.knative.dev/v1",
                "kind": "Subscription",
                "metadata": {"name": "later"},
                "spec": {
                    "channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "orders"},
                    "subscriber": {"uri": later.url},
                },
            }
            mesh.api(SUBSCRIPTIONS, "POST", body)

            def reached() -> bool:
                mesh.post("/default/orders", event, b"{}")
                return not later.received.empty()

            eventually(reached, "an event at the new subscription")
            assert mesh.stop() == 0, mesh.log


def test_children_end_with_a_killed_supervisor_and_the_next_start_works(tmp_path: Path) -> None:
    with Up(tmp_path / "data") as mesh:
        pids = list(mesh.ready().children().values())
        assert len(pids) == 2
        mesh.process.kill()
        mesh.process.wait()
        eventually(lambda: not any(map(alive, pids)), "children gone")
        assert mesh.endpoints == {}
    with Up(tmp_path / "data") as mesh:
        assert mesh.ready().stop() == 0, mesh.log


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc")
def test_an_idle_mesh_fits_into_130_mb(tmp_path: Path) -> None:
    with Up(tmp_path / "data") as mesh:
        pids = [mesh.ready().process.pid, *mesh.children().values()]
        shares = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
        pss_kib = sum(int(line.split()[1]) for text in shares for line in text.splitlines() if line.startswith("Pss:"))
        assert pss_kib <= 130_000
