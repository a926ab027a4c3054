"""Manifests that several tests use."""

__all__ = ["CHANNEL", "subscription"]

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
