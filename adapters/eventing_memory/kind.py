"""InMemoryChannel, `messaging.knative.dev/v1`: Knative's own kind, so that its manifests apply unchanged."""

from eventing.resources.channelable import channelable_kind

__all__ = ["IN_MEMORY_CHANNEL"]

IN_MEMORY_CHANNEL = channelable_kind(
    kind="InMemoryChannel", plural="inmemorychannels", short_names=("imc",), version="v1", scoped=True
)
