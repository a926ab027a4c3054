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

__all__ = ["Cluster", "in_cluster", "load_kubeconfig"]

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Cluster:
    """An API server and the credentials for it. Certificates and keys are PEM text; secrets stay out of the
    repr.

    `token_file` is read again for each new connection of a client, since a cluster renews the tokens of its
    pods.
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


def load_kubeconfig(path: Path) -> Cluster:
    """The cluster of the file's current context. StartError says what is wrong with the file."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"cannot read the kubeconfig {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StartError(f"the kubeconfig {path} is not YAML: {error}") from error
    try:
        context = _named(document["contexts"], document["current-context"], "context")
        cluster = _named(document["clusters"], context["cluster"], "cluster")
        user = _named(document.get("users") or [], context["user"], "user") if context.get("user") else {}
        for unsupported in ("exec", "auth-provider", "username"):
            if unsupported in user:
                raise StartError(
                    f"the kubeconfig {path} logs in by {unsupported!r}, which is not supported; "
                    "use a token or a client certificate"
                )
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


def in_cluster() -> Cluster:
    """The cluster that this process runs in as a pod."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token_file = _SERVICE_ACCOUNT / "token"
    if not host or not token_file.exists():
        raise StartError("not in a Kubernetes cluster (no service account is mounted); give a kubeconfig")
    address = f"[{host}]" if ":" in host else host
    return Cluster(
        server=f"https://{address}:{port}",
        token_file=token_file,
        ca_data=(_SERVICE_ACCOUNT / "ca.crt").read_text(encoding="utf-8"),
    )


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
