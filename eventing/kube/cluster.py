"""Where the API server is and how to speak to it: from a kubeconfig, or from inside a pod."""

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from eventing.errors import StartError

__all__ = ["Cluster", "find_cluster", "in_cluster", "load_kubeconfig"]

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Cluster:
    """An API server and the credentials for it. Certificates and keys are PEM text; secrets stay out of the
    repr.

    `token_file` is read again and again by a client, since a cluster renews the tokens of its pods.
    """

    server: str
    token: str | None = field(default=None, repr=False)
    ca_data: str | None = field(default=None, repr=False)
    client_certificate_data: str | None = field(default=None, repr=False)
    client_key_data: str | None = field(default=None, repr=False)
    token_file: Path | None = None

    def ssl_context(self) -> ssl.SSLContext:
        """Trust in the cluster's own CA, or in the system's where it names none."""
        context = ssl.create_default_context(cadata=self.ca_data)
        if self.client_certificate_data and self.client_key_data:
            # The ssl module takes a certificate and its key from files only.
            with tempfile.TemporaryDirectory(prefix="eventing-") as directory:
                certificate, key = Path(directory, "tls.crt"), Path(directory, "tls.key")
                certificate.write_text(self.client_certificate_data, encoding="utf-8")
                key.touch(mode=0o600)
                key.write_text(self.client_key_data, encoding="utf-8")
                context.load_cert_chain(certificate, key)
        return context

    def bearer(self) -> str | None:
        """The token to send now, None where there is none."""
        if self.token_file is not None:
            return self.token_file.read_text(encoding="utf-8").strip()
        return self.token


# What a kubeconfig may say that would be ignored here, in its cluster and its user entry.
_UNSUPPORTED_CLUSTER: Final = ("insecure-skip-tls-verify", "proxy-url", "tls-server-name")
_UNSUPPORTED_USER: Final = ("exec", "auth-provider", "username", "as", "as-uid", "as-groups")


def find_cluster(kubeconfig: Path | None = None, context: str | None = None) -> Cluster:
    """The cluster that is meant, by the rules of Kubernetes' own controllers: the file given, else the one that $KUBECONFIG
    names, else the cluster that this process is a pod of, else ~/.kube/config. StartError where there is none.
    """
    if kubeconfig is None and (named := os.environ.get("KUBECONFIG")):
        kubeconfig = Path(named)
    if kubeconfig is not None:
        return load_kubeconfig(kubeconfig, context)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return in_cluster()
    default = Path.home() / ".kube" / "config"
    if default.exists():
        return load_kubeconfig(default, context)
    raise StartError("no cluster is named: give a kubeconfig (--kubeconfig, or KUBECONFIG in the environment)")


def load_kubeconfig(path: Path, context: str | None = None) -> Cluster:
    """The cluster of that context of the file, its current one unless given. StartError says what is wrong with the file."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"cannot read the kubeconfig {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StartError(f"the kubeconfig {path} is not YAML: {error}") from error
    try:
        chosen = _named(document["contexts"], context or document["current-context"], "context")
        cluster = _named(document["clusters"], chosen["cluster"], "cluster")
        user = _named(document.get("users") or [], chosen["user"], "user") if chosen.get("user") else {}
        _refuse_unsupported(path, cluster, user)
        return Cluster(
            server=str(cluster["server"]).rstrip("/"),
            token=user.get("token"),
            token_file=_relative(path, user["tokenFile"]) if user.get("tokenFile") else None,
            ca_data=_pem(path, cluster, "certificate-authority"),
            client_certificate_data=_pem(path, user, "client-certificate"),
            client_key_data=_pem(path, user, "client-key"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise StartError(f"the kubeconfig {path} is incomplete: {error}") from error


def _refuse_unsupported(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    """What would be ignored is refused: a connection that is not the one that was asked for helps nobody."""
    for name in _UNSUPPORTED_USER:
        if user.get(name):
            raise StartError(
                f"the kubeconfig {path} logs in by {name!r}, which is not supported; use a token or a client certificate"
            )
    for name in _UNSUPPORTED_CLUSTER:
        if cluster.get(name):
            raise StartError(f"the kubeconfig {path} sets {name!r}, which is not supported")


def in_cluster(directory: Path = _SERVICE_ACCOUNT) -> Cluster:
    """The cluster that this process runs in as a pod; `directory` is where its service account is mounted."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token_file = directory / "token"
    if not host or not token_file.exists():
        raise StartError("not in a Kubernetes cluster (no service account is mounted); give a kubeconfig")
    try:
        ca_data = (directory / "ca.crt").read_text(encoding="utf-8")
    except OSError as error:
        raise StartError(f"cannot read {directory / 'ca.crt'} of the pod's service account: {error.strerror}") from error
    address = f"[{host}]" if ":" in host else host
    return Cluster(server=f"https://{address}:{port}", token_file=token_file, ca_data=ca_data)


def _named(entries: list[Any], name: str, what: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return dict(entry[what])
    raise KeyError(f"{what} {name!r}")


def _pem(path: Path, entry: dict[str, Any], name: str) -> str | None:
    """Inline data (base64) wins over a file, as in kubectl; a relative file name is relative to the
    kubeconfig.
    """
    if data := entry.get(f"{name}-data"):
        try:
            return base64.b64decode(data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise StartError(f"{name}-data in the kubeconfig {path} is not base64 of PEM text") from error
    if file := entry.get(name):
        try:
            return _relative(path, file).read_text(encoding="utf-8")
        except OSError as error:
            raise StartError(f"cannot read {file}, named by the kubeconfig {path}: {error.strerror}") from error
    return None


def _relative(path: Path, file: str) -> Path:
    return path.parent / file
