"""Manifests that several tests use: as text, and as objects where a test changes them."""

from typing import Any

__all__ = ["CHANNEL", "KNATIVE", "channel_object", "config_map_object", "subscription", "subscription_object"]

KNATIVE = "messaging.knative.dev/v1"

CHANNEL = """\
apiVersion: messaging.knative.dev/v1
kind: Channel
metadata:
  name: orders
"""


def subscription(uri: str, name: str = "printer") -> str:
    """A Subscription of the channel `orders` to `uri`."""
    return f"""\
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata:
  name: {name}
spec:
  channel: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: orders}}
  subscriber:
    uri: {uri}
"""


def channel_object(name: str = "orders", metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": KNATIVE, "kind": "Channel", "metadata": {"name": name, **(metadata or {})}, "spec": spec}


def subscription_object(uri: str = "http://localhost:1/", name: str = "printer", **metadata: Any) -> dict[str, Any]:
    """A Subscription of the channel `orders` to `uri`."""
    spec = {"channel": {"apiVersion": KNATIVE, "kind": "Channel", "name": "orders"}, "subscriber": {"uri": uri}}
    return {"apiVersion": KNATIVE, "kind": "Subscription", "metadata": {"name": name, **metadata}, "spec": spec}


def config_map_object(name: str = "config", metadata: dict[str, Any] | None = None, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **(metadata or {})}, "data": data}
