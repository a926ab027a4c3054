"""The data-plane process: watched objects become routes, channels and workers; it reports what it has applied."""

from eventing.dataplane.process import DataPlane, DataPlaneSettings

__all__ = ["DataPlane", "DataPlaneSettings"]
