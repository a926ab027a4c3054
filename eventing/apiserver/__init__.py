"""The embedded Kubernetes API: store, verbs, watch, discovery, OpenAPI. It knows kinds only as data.

Where it differs from a real API server: there is no authorization beyond the token (every user may do everything), one version
is served per kind, pages of a list are of the present, and CEL rules of CustomResourceDefinitions are not evaluated.
"""

from eventing.apiserver.certificates import CertificatePaths, ensure_certificates
from eventing.apiserver.kubeconfig import write_kubeconfig
from eventing.apiserver.server import ApiServer

__all__ = ["ApiServer", "CertificatePaths", "ensure_certificates", "write_kubeconfig"]
