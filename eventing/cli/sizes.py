"""Sizes as people write them."""

import re
from typing import Final

import typer

__all__ = ["byte_size"]

_SIZE: Final = re.compile(r"(\d+)\s*(?:(Ki|Mi|Gi)?B?)", re.ASCII)
_UNITS: Final = {None: 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def byte_size(text: str | int) -> int:
    """`1048576`, `1024KiB`, `1Mi` → bytes, at least one. Raises typer.BadParameter."""
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or not int(match[1]):
        raise typer.BadParameter(f"{text!r} is no size: write bytes, or as in 512KiB, 4MiB")
    return int(match[1]) * _UNITS[match[2]]
