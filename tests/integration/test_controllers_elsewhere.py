"""The controllers against the API server of another: found by a kubeconfig, or as a cluster's pod finds it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from eventing.apiserver import ApiServer
from eventing.apiserver.certificates import ensure_certificates
from eventing.apiserver.kubeconfig import write_kubeconfig
from eventing.errors import StartError
from eventing.kube import Cluster, KubeClient, in_cluster
from eventing.resources.catalogue import installed_kinds
from eventing.resources.channelable import CONTROLLER_USER
from eventing.resources.conditions import condition_of
from eventing.resources.dataplane import DATA_PLANE, DATA_PLANE_NAMESPACE
from eventing.resources.kinds import Kind, Object
from eventing.resources.messaging import CHANNEL, SUBSCRIPTION
from eventing.runtime.remote import run_controllers

COMMAND = Path(sys.executable).with_name("eventing")
BACKING = next(kind for kind in installed_kinds() if kind.kind == "InMemoryChannel")
INGRESS = "http://ingress.example:8080"


@dataclass
class Elsewhere:
    """An API server without controllers, and an administrator of it."""

    url: str
    ca_cert: Path
    admin: KubeClient

    async def wait(self, kind: Kind, name: str, status: str) -> Object:
        found: Object = {}
        try:
            async with asyncio.timeout(20):
                while (condition_of(found) or {}).get("status") != status:
                    await asyncio.sleep(0.02)
                    found = await self.admin.get(kind, "default", name)
        except TimeoutError:
            raise AssertionError(f"{name} is not {status}: {found}") from None
        return found

    async def play(self) -> None:
        """A Channel and its Subscription become Ready once a data plane says that it has applied them."""
        reference = {"apiVersion": CHANNEL.api_version, "kind": "Channel", "name": "orders"}
        for kind, name, spec in (
            (CHANNEL, "orders", {}),
            (SUBSCRIPTION, "sub", {"channel": reference, "subscriber": {"uri": "http://example.com"}}),
        ):
            metadata = {"namespace": "default", "name": name}
            await self.admin.create(kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec})
        # Nobody serves it yet, and that is said.
        await self.wait(CHANNEL, "orders", "False")
        plane = {"namespace": DATA_PLANE_NAMESPACE, "name": "plane-0"}
        await self.admin.create(DATA_PLANE, {"apiVersion": DATA_PLANE.api_version, "kind": "DataPlane", "metadata": plane})
        backing: Object = {}
        async with asyncio.timeout(20):
            while not (backing.get("spec") or {}).get("subscribers"):
                await asyncio.sleep(0.02)
                backing = await self.admin.get(BACKING, "default", "orders")
        metadata = backing["metadata"]
        applied = {"uid": metadata["uid"], "generation": metadata["generation"]}
        report = {"status": {"applied": {"inmemorychannels.messaging.knative.dev/default/orders": applied}}}
        await self.admin.patch(DATA_PLANE, DATA_PLANE_NAMESPACE, "plane-0", report, subresource="status")
        channel = await self.wait(CHANNEL, "orders", "True")
        assert channel["status"]["address"]["url"] == f"{INGRESS}/default/orders"
        await self.wait(SUBSCRIPTION, "sub", "True")


@contextlib.asynccontextmanager
async def served(tmp_path: Path, kinds: tuple[Kind, ...]) -> AsyncIterator[Elsewhere]:
    users = {"admin-token": "kubernetes-admin", "controller-token": CONTROLLER_USER}
    server = ApiServer(database=tmp_path / "api.sqlite3", kinds=kinds, users=users)
    paths = ensure_certificates(tmp_path / "pki", ["localhost", "127.0.0.1"])
    sock = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{sock.getsockname()[1]}"
    started = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(sock, certfile=paths.server_cert, keyfile=paths.server_key, started=started.set))
        await started.wait()
        admin = KubeClient(Cluster(url, "admin-token", paths.ca_cert.read_text()), user_agent="test")
        try:
            yield Elsewhere(url, paths.ca_cert, admin)
        finally:
            await admin.aclose()
            serving.cancel()


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncIterator[Elsewhere]:
    async with served(tmp_path, installed_kinds()) as found:
        yield found


async def controllers(*arguments: str, **variables: str) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EVENTING_", "KUBE"))}
    return await asyncio.create_subprocess_exec(
        COMMAND,
        "controllers",
        f"--ingress-url={INGRESS}",
        *arguments,
        env={**environment, **variables},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )


async def end(process: asyncio.subprocess.Process, code: int) -> str:
    async with asyncio.timeout(20):
        _, said = await process.communicate()
    assert process.returncode == code, said.decode()
    return said.decode()


async def test_a_process_of_its_own_by_a_kubeconfig(elsewhere: Elsewhere, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, server=elsewhere.url, ca=elsewhere.ca_cert, token="controller-token", user="controller")
    process = await controllers(f"--kubeconfig={kubeconfig}")
    try:
        await elsewhere.play()
    finally:
        process.send_signal(signal.SIGTERM)
        said = await end(process, 0)
    assert f"The controllers work on {elsewhere.url}." in said
    assert "controller-token" not in said


async def test_the_kubeconfig_may_be_named_by_the_environment(elsewhere: Elsewhere, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, server=elsewhere.url, ca=elsewhere.ca_cert, token="nobody's", user="controller")
    said = await end(await controllers(KUBECONFIG=str(kubeconfig)), 1)
    assert "Unauthorized" in said
    assert "nobody's" not in said
    said = await end(await controllers(HOME=str(tmp_path)), 1)
    assert "no cluster is named" in said


async def test_as_a_pod_of_the_cluster(elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "ca.crt").write_text(elsewhere.ca_cert.read_text())
    (account / "token").write_text("controller-token\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(urlsplit(elsewhere.url).hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(urlsplit(elsewhere.url).port))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run_controllers(in_cluster(account), ingress_url=INGRESS, stop=stop))
        try:
            await elsewhere.play()
        finally:
            stop.set()


async def test_what_the_server_does_not_serve_is_named(tmp_path: Path) -> None:
    kinds = tuple(kind for kind in installed_kinds() if kind.kind not in {"Subscription", "InMemoryChannel"})
    async with served(tmp_path, kinds) as elsewhere:
        cluster = Cluster(elsewhere.url, "admin-token", elsewhere.ca_cert.read_text())
        with pytest.raises(StartError, match=r"does not serve subscriptions\.messaging.*inmemorychannels.*deploy/crds"):
            await run_controllers(cluster, ingress_url=INGRESS, stop=asyncio.Event())


async def test_our_definitions_applied_as_a_user_does_are_all_it_takes(tmp_path: Path) -> None:
    """`kubectl apply -f deploy/crds` on a server that knows nothing of us, and the controllers run on it."""
    from eventing.resources.crds import crd

    core = tuple(kind for kind in installed_kinds() if not kind.group)
    ours = [kind for kind in installed_kinds() if kind.group]
    definitions = Kind(
        group="apiextensions.k8s.io",
        version="v1",
        kind="CustomResourceDefinition",
        plural="customresourcedefinitions",
        schema={},
        namespaced=False,
    )
    async with served(tmp_path, core) as elsewhere:
        for kind in ours:
            await elsewhere.admin.create(definitions, crd(kind))
        stop = asyncio.Event()
        cluster = Cluster(elsewhere.url, "controller-token", elsewhere.ca_cert.read_text())
        async with asyncio.TaskGroup() as group:
            group.create_task(run_controllers(cluster, ingress_url=INGRESS, stop=stop))
            try:
                template: dict[str, Any] = {"apiVersion": BACKING.api_version, "kind": BACKING.kind}
                metadata = {"namespace": "default", "name": "orders"}
                channel = {"apiVersion": CHANNEL.api_version, "kind": "Channel", "metadata": metadata}
                await elsewhere.admin.create(CHANNEL, {**channel, "spec": {"channelTemplate": template}})
                # No data plane here: but the backing channel is made, and it is said what is missing.
                found = await elsewhere.wait(CHANNEL, "orders", "False")
                assert (condition_of(found) or {})["reason"] == "DispatcherEndpointsNotReady"
            finally:
                stop.set()
