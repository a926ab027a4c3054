"""Back ends as they are named at the command line."""

from collections.abc import Mapping

from eventing.channels import channel_factories
from eventing.errors import StartError

__all__ = ["config_maps_of"]


def config_maps_of(addresses: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What the ConfigMaps must say so that each back end, by name, is found at its address.

    Raises ValueError saying what is wrong with an address, and StartError where a back end's client is not installed.
    """
    found: dict[str, dict[str, str]] = {}
    for name, address in addresses.items():
        factory = channel_factories()[name]
        if factory.missing:
            raise StartError(factory.missing)
        found[factory.config_map] = dict(factory.configuration(address))
    return found
