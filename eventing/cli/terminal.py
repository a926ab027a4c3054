"""What the verbs share of the terminal: safe text, the option for the data directory."""

from pathlib import Path
from typing import Annotated

import typer

from eventing.observe.lines import printable

__all__ = ["DataDir", "printable", "qualified"]

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="EVENTING_DATA_DIR",
        help="Data directory of the mesh.",
        show_default="~/.local/share/eventing-mesh",
        file_okay=False,
    ),
]


def qualified(name: str, namespace: str) -> str:
    """NAMESPACE/NAME of a name that may be so already; "" stays "". Raises BadParameter."""
    parts = name.split("/")
    if len(parts) > 2 or not all(parts if "/" in name else [namespace]):
        raise typer.BadParameter(f"{name!r} is not NAME or NAMESPACE/NAME")
    return name if "/" in name or not name else f"{namespace}/{name}"
