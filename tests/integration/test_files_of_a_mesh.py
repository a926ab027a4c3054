"""What a mesh writes is its user's alone, and what it listens on is this machine's."""

import asyncio
import stat
from pathlib import Path
from urllib.parse import urlsplit

from eventing.runtime.api_client import ApiClient
from eventing.runtime.mesh import Mesh
from eventing.runtime.settings import UpSettings


async def test_nobody_else_can_read_any_file_and_secrets_are_in_the_database_alone(tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "s3cr3t-of-the-test"}}

    def put(data_dir: Path) -> None:
        with ApiClient.find(data_dir) as client:
            client.apply(client.kind("v1", "Secret"), "default", secret)

    async with Mesh(tmp_path / "data") as mesh:
        await asyncio.to_thread(put, mesh.data_dir)
        assert stat.S_IMODE(mesh.data_dir.stat().st_mode) == 0o700
        files = [path for path in mesh.data_dir.rglob("*") if path.is_file()]
        public = {mesh.data_dir / "pki" / name for name in ("ca.crt", "server.crt")}
        for path in set(files) - public:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        holders = {path.name for path in files if b"czNjcjN0LW9m" in path.read_bytes() or b"s3cr3t-of" in path.read_bytes()}
        assert holders <= {"api.sqlite3", "api.sqlite3-wal"}
        for url in (mesh.api_url, mesh.ingress_url, mesh.metrics_url):
            assert urlsplit(url).hostname == "127.0.0.1"
    assert UpSettings(data_dir="/x").host == "127.0.0.1"
