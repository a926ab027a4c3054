"""`eventing version`."""

import platform

import typer

from eventing import __version__

__all__ = ["version"]


def version() -> None:
    """Print the version."""
    typer.echo(f"eventing-mesh {__version__} (Python {platform.python_version()}, {platform.system()})")
