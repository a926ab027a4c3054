"""Back ends as they are named at the command line."""

from collections.abc import Mapping

from eventing.channels import channel_factories
from eventing.errors import StartError

__all__ = ["configurations_of"]

Objects = dict[str, dict[str, str]]  # by name, what is in it


def configurations_of(addresses: Mapping[str, str]) -> tuple[Objects, Objects]:
    """What ConfigMaps and Secrets must say so that each back end, by name, is found at its address.

    Raises ValueError saying what is wrong with an address, and StartError where a back end's client is not installed.
    """
    config_maps: Objects = {}
    secrets: Objects = {}
    for name, address in addresses.items():
        factory = channel_factories()[name]
        if factory.missing:
            raise StartError(factory.missing)
        found = factory.configuration(address)
        config_maps[factory.config_map] = dict(found.config)
        if found.secret_name:
            secrets[found.secret_name] = dict(found.secret)
    return config_maps, secrets
