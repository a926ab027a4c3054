"""YAML as Kubernetes reads it: safe, with timestamps as the strings that they are in JSON, and in bounds."""

from typing import Final

import yaml

__all__ = ["KubernetesLoader", "check_yaml"]

_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"


class KubernetesLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # which of both is known at run time
    """To be given to yaml.load and its like, after `check_yaml`."""


KubernetesLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def check_yaml(text: str | bytes, *, depth_max: int, aliases: bool) -> None:
    """The composer in C recurses without bound, and would take the process with it; aliases make much out of little.

    Raises RecursionError, and yaml.YAMLError for what is no YAML, and for an alias where `aliases` is False."""
    depth = 0
    for event in yaml.parse(text, Loader=KubernetesLoader):
        match event:
            case yaml.AliasEvent() if not aliases:
                raise yaml.YAMLError("aliases are not allowed")
            case yaml.CollectionStartEvent():
                depth += 1
                if depth > depth_max:
                    raise RecursionError("exceeded max depth")
            case yaml.CollectionEndEvent():
                depth -= 1
            case _:
                pass
