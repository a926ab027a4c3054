"""Fields that a JSON text names twice. Parsers take the last; whoever wrote it should know (Kubernetes, "Field validation")."""

import json
from typing import Any

__all__ = ["duplicate_fields"]


def duplicate_fields(body: bytes) -> list[str]:
    """Their paths, `spec.delivery.retry`; empty for what is not JSON."""
    found = False

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        names = dict(pairs)
        found = found or len(names) != len(pairs)
        return names

    try:
        json.loads(body, object_pairs_hook=note)
        if not found:
            return []
        paths: list[str] = []
        _collect(json.loads(body, object_pairs_hook=tuple), "", paths)
    except (ValueError, RecursionError):
        return []
    return paths


def _collect(value: Any, path: str, paths: list[str]) -> None:
    """Objects are tuples of pairs here, arrays are lists."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            _collect(item, f"{path}[{index}]", paths)
    elif isinstance(value, tuple):
        seen = set()
        for name, item in value:
            below = f"{path}.{name}" if path else name
            if name in seen:
                paths.append(below)
            seen.add(name)
            _collect(item, below, paths)
