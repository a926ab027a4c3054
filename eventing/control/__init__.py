"""The controllers of the eventing kinds: one reconciler per kind, over a client of any Kubernetes API."""

from eventing.control.controllers import Controllers

__all__ = ["Controllers"]
