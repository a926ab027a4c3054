"""Kubeconfig files, and credentials that stay out of sight."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventing.errors import StartError
from eventing.kube import Cluster, in_cluster, load_kubeconfig


def write(tmp_path: Path, *, cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443/"} | (cluster or {})}],
                "users": [{"name": "u", "user": user or {}}],
            }
        )
    )
    return path


def test_inline_data(tmp_path: Path) -> None:
    data = base64.b64encode(b"PEM").decode()
    path = write(tmp_path, cluster={"certificate-authority-data": data}, user={"token": "t0p"})
    cluster = load_kubeconfig(path)
    assert (cluster.server, cluster.ca_data, cluster.bearer()) == ("https://127.0.0.1:6443", "PEM", "t0p")
    assert "t0p" not in repr(cluster)
    assert "PEM" not in repr(cluster)


def test_files_are_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("CA")
    (tmp_path / "token").write_text("one\n")
    path = write(tmp_path, cluster={"certificate-authority": "ca.crt"}, user={"tokenFile": "token"})
    cluster = load_kubeconfig(path)
    assert (cluster.ca_data, cluster.bearer()) == ("CA", "one")
    (tmp_path / "token").write_text("two\n")
    assert cluster.bearer() == "two"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not YAML"),
        ("{}", "is incomplete"),
        ("current-context: x\ncontexts: []", "context 'x'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(StartError, match=message):
        load_kubeconfig(path)


def test_missing_file_and_exec(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot read the kubeconfig"):
        load_kubeconfig(tmp_path / "none")
    with pytest.raises(StartError, match="exec"):
        load_kubeconfig(write(tmp_path, user={"exec": {"command": "x"}}))
    with pytest.raises(StartError, match="not base64"):
        load_kubeconfig(write(tmp_path, cluster={"certificate-authority-data": "!"}))


def test_outside_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(StartError, match="not in a Kubernetes cluster"):
        in_cluster()


def test_plain_cluster_has_no_token() -> None:
    assert Cluster("http://x").bearer() is None
