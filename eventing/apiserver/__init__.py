"""The embedded Kubernetes API: store, verbs, watch, discovery, OpenAPI. It knows kinds only as data.

Where it differs from a real API server: there is no authorization beyond the token (every user may do everything), one version
is served per kind, pages of a list are of the present, and CEL rules of CustomResourceDefinitions are not evaluated.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from eventing.apiserver.certificates import ensure_certificates
    from eventing.apiserver.kubeconfig import write_kubeconfig
    from eventing.apiserver.pki import CertificatePaths
    from eventing.apiserver.server import ApiServer

__all__ = ["ApiServer", "CertificatePaths", "ensure_certificates", "write_kubeconfig"]

# By need: what makes certificates is large, and a process of its own needs nothing else of this package.
_WHERE: Final = {
    "ApiServer": "server",
    "CertificatePaths": "pki",
    "ensure_certificates": "certificates",
    "write_kubeconfig": "kubeconfig",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
