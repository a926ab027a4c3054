"""What `/readyz` says while a data plane starts, loses its control plane, gets it back, and stops."""

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from eventing.bindings.http import event_head
from eventing.channels import channel_factories
from eventing.dataplane import DataPlane, DataPlaneSettings
from eventing.kube import Cluster, KubeClient
from eventing.runtime.data_directory import DataDirectory
from eventing.runtime.listeners import bind, port_of
from eventing.runtime.mesh import Mesh
from eventing.runtime.tokens import Tokens
from eventing.testing.proxy import TcpProxy
from eventing.testing.sinks import Sink
from tests.support.data_plane import Client, make_event
from tests.support.manifests import CHANNEL, subscription


async def get(url: str, tls: ssl.SSLContext | bool = True) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url, ssl=tls) as answer:
        return answer.status, await answer.text()


async def says(url: str, status: int, *lines: str) -> None:
    """Wait until the answer has this status and all of these lines."""
    found: tuple[int, str] = (0, "")
    try:
        async with asyncio.timeout(20):
            while found[0] != status or not all(line in found[1] for line in lines):
                await asyncio.sleep(0.02)
                found = await get(url)
    except TimeoutError:
        raise AssertionError(f"{url} says {found}, and not {status} {lines}") from None


async def test_through_the_life_of_a_data_plane(tmp_path: Path) -> None:
    manifest = tmp_path / "orders.yaml"
    async with Sink() as sink, TcpProxy("127.0.0.1", urlsplit(sink.url).port or 0) as way_to_sink:
        manifest.write_text(f"{CHANNEL}---\n{subscription(f'http://127.0.0.1:{way_to_sink.port}/')}")
        async with Mesh(tmp_path / "data", manifests=[str(manifest)]) as mesh:
            api = urlsplit(mesh.api_url)
            assert api.port is not None
            async with TcpProxy("127.0.0.1", api.port) as proxy, asyncio.TaskGroup() as tasks:
                await proxy.refuse()
                directory = DataDirectory(mesh.data_dir)
                ca = (directory.pki / "ca.crt").read_text()
                cluster = Cluster(f"https://127.0.0.1:{proxy.port}", Tokens.of(directory).data_plane, ca)
                client = KubeClient(cluster, user_agent="second-data-plane")
                ingress, admin = bind("ingress", "127.0.0.1", 0, ""), bind("admin", "127.0.0.1", 0, "")
                readyz, port = f"http://127.0.0.1:{port_of(admin)}/readyz", port_of(ingress)
                plane = DataPlane(
                    name="second",
                    client=client,
                    factories=channel_factories(),
                    ingress=ingress,
                    admin=admin,
                    token="t",
                    settings=DataPlaneSettings(drain_s=20.0),
                )
                stop = asyncio.Event()
                running = tasks.create_task(plane.run(started=lambda: None, stop=stop))

                await says(
                    readyz, 503, "[-]ingress failed: starting", "[-]channels failed: not listed yet", "[!]control degraded"
                )
                assert await get(readyz.replace("readyz", "healthz")) == (200, "ok")

                await proxy.resume()
                await says(f"{readyz}?verbose", 200, "[+]ingress ok", "[+]channels ok: 1 in force", "[+]control ok")
                assert await get(readyz) == (200, "ok")

                await proxy.refuse()
                proxy.cut()
                await says(readyz, 200, "[!]control degraded: the API server has not answered for", "readyz check passed")
                assert (await get(f"{readyz}/control"))[0] == 200
                event = make_event()
                producer = Client(port)
                answer = await producer.request("POST", "/default/orders", event_head(event), event.data)
                assert answer.status == 202  # ready means that it takes and delivers, control or not
                await sink.received(1)

                await proxy.resume()
                await says(readyz, 200, "ok")

                way_to_sink.half_open()
                await producer.request("POST", "/default/orders", event_head(event), event.data)
                stop.set()
                await says(readyz, 503, "[-]ingress failed: stopping", "readyz check failed")
                await way_to_sink.resume()
                await running
                await sink.received(2)
                await producer.aclose()
                await client.aclose()


async def test_control_says_how_it_is(tmp_path: Path) -> None:
    async with Mesh(tmp_path / "data") as mesh:
        tls = ssl.create_default_context(cafile=str(mesh.data_dir / "pki" / "ca.crt"))
        assert await get(f"{mesh.api_url}/livez", tls) == (200, "ok")
        async with asyncio.timeout(20):
            while (found := await get(f"{mesh.api_url}/readyz?verbose", tls))[0] != 200 or "[!]" in found[1]:
                await asyncio.sleep(0.02)
        body = found[1]
        assert body.startswith("[+]api ok\n[+]store ok\n[+]controllers ok: ")
        assert body.endswith("[+]dataplanes ok: 1 reporting\nreadyz check passed\n")
