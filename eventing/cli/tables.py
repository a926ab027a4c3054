"""Tables as kubectl prints them, coloured where a person looks."""

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import typer

from eventing.cli.terminal import printable
from eventing.runtime.api_client import Object

__all__ = ["aligned", "rows_of", "write_table"]

_GAP: Final = 3
_STYLES: Final = {"True": "green", "False": "red", "Unknown": "yellow"}


def rows_of(table: Object, *, wide: bool, prefix: str = "", namespaces: bool = False) -> list[list[str]]:
    """A server's Table as text, its header first. `prefix` goes before each name, `namespaces` adds a column for them."""
    shown = [
        (index, column["name"]) for index, column in enumerate(table["columnDefinitions"]) if wide or not column.get("priority")
    ]
    header = [str(name).upper() for _, name in shown]
    rows = [["NAMESPACE", *header] if namespaces else header]
    for row in table["rows"]:
        cells = [_text(row["cells"][index]) for index, _ in shown]
        cells[0] = prefix + cells[0]
        rows.append([str(row["object"]["metadata"].get("namespace", "")), *cells] if namespaces else cells)
    return rows


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return printable(cell if isinstance(cell, str) else str(cell).lower() if isinstance(cell, bool) else str(cell))


def aligned(rows: Sequence[Sequence[str]], gap: int = _GAP) -> list[list[str]]:
    """Every cell but the last of each row filled up to the width of its column."""
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(max(map(len, rows), default=0))]
    return [[*(cell.ljust(widths[index] + gap) for index, cell in enumerate(row[:-1])), *row[-1:]] for row in rows]


def write_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the first of them the header; on a terminal True, False and Unknown have colours."""
    lines = aligned(rows)
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        typer.echo("".join("".join(line).rstrip() + "\n" for line in lines), nl=False)
        return
    from rich.console import Console  # not needed where the output goes to a program
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for number, line in enumerate(lines):
        console.print(Text.assemble(*((cell, "bold" if number == 0 else _STYLES.get(cell.strip(), "")) for cell in line)))
