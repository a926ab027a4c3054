"""What the verbs share of the terminal: safe text, the option for the data directory."""

from pathlib import Path
from typing import Annotated

import typer

from eventing.observe.lines import printable

__all__ = ["DataDir", "printable"]

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
