"""A client of a Kubernetes API, embedded or real: requests, list and watch, and a cache that follows one
kind.
"""

from eventing.kube.back_end_settings import SettingsFollower
from eventing.kube.cache import Cache, Change, controller_of
from eventing.kube.client import KubeClient
from eventing.kube.cluster import Cluster, find_cluster, in_cluster, load_kubeconfig

__all__ = [
    "Cache",
    "Change",
    "Cluster",
    "KubeClient",
    "SettingsFollower",
    "controller_of",
    "find_cluster",
    "in_cluster",
    "load_kubeconfig",
]
