"""The in-memory channel: `kind: InMemoryChannel`, found through the entry point `eventing.channels: memory`."""

from eventing_memory.factory import MemoryChannelFactory

__all__ = ["factory"]

factory = MemoryChannelFactory()
