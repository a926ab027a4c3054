"""What the verbs share of the terminal: safe text, the option for the data directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from eventing.observe.lines import printable

__all__ = ["DataDir", "printable", "qualified", "say_unanswered"]

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


def say_unanswered(processes: Sequence[str], of: int) -> None:
    """Tell on standard error which of so many data-plane processes did not answer, and why."""
    if processes:
        do, they = ("do", "they know") if len(processes) > 1 else ("does", "it knows")
        told = f"{len(processes)} of {of} data-plane processes {do} not answer, what only {they} is missing"
        typer.echo(f"eventing: {told}: {'; '.join(map(printable, processes))}", err=True)
