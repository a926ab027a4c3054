"""Kubeconfig files, and credentials that stay out of sight."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventing.errors import StartError
from eventing.kube import Cluster, find_cluster, in_cluster, load_kubeconfig


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


@pytest.mark.parametrize("name", ["insecure-skip-tls-verify", "proxy-url", "tls-server-name"])
def test_what_would_be_ignored_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StartError, match=f"sets '{name}', which is not supported"):
        load_kubeconfig(write(tmp_path, cluster={name: True}))
    assert load_kubeconfig(write(tmp_path, cluster={name: False})).server
    with pytest.raises(StartError, match="logs in by 'as'"):
        load_kubeconfig(write(tmp_path, user={"as": "somebody"}))


def test_the_context_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path)
    document = yaml.safe_load(path.read_text())
    document["contexts"].append({"name": "there", "context": {"cluster": "d"}})
    document["clusters"].append({"name": "d", "cluster": {"server": "https://there"}})
    path.write_text(yaml.safe_dump(document))
    assert load_kubeconfig(path, "there").server == "https://there"
    with pytest.raises(StartError, match="context 'nowhere'"):
        load_kubeconfig(path, "nowhere")


def test_which_cluster_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StartError, match="no cluster is named"):
        find_cluster()
    (tmp_path / ".kube").mkdir()
    write(tmp_path, cluster={"server": "https://home"}).rename(tmp_path / ".kube" / "config")
    assert find_cluster().server == "https://home"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(StartError, match="no service account"):
        find_cluster()
    monkeypatch.setenv("KUBECONFIG", str(write(tmp_path, cluster={"server": "https://named"})))
    assert find_cluster().server == "https://named"
    (tmp_path / "given").mkdir()
    assert find_cluster(write(tmp_path / "given", cluster={"server": "https://given"})).server == "https://given"


def test_as_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    (tmp_path / "token").write_text("one\n")
    with pytest.raises(StartError, match=r"cannot read .*ca\.crt"):
        in_cluster(tmp_path)
    (tmp_path / "ca.crt").write_text("CA")
    cluster = in_cluster(tmp_path)
    assert (cluster.server, cluster.ca_data, cluster.bearer()) == ("https://[fd00::1]:6443", "CA", "one")


def test_outside_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(StartError, match="not in a Kubernetes cluster"):
        in_cluster()


def test_plain_cluster_has_no_token() -> None:
    assert Cluster("http://x").bearer() is None
