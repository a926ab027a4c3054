"""A schema that is worked out when it is first looked at."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

__all__ = ["LazySchema"]


class LazySchema(Mapping[str, Any]):
    """Stands for the schema that `build` returns: the data plane handles kinds, and never pays for their models."""

    def __init__(self, build: Callable[[], dict[str, Any]]) -> None:
        self._build = build

    @cached_property
    def _schema(self) -> dict[str, Any]:
        return self._build()

    def __getitem__(self, key: str) -> Any:
        return self._schema[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._schema)

    def __len__(self) -> int:
        return len(self._schema)
