"""`eventing up`: check what can be checked, then become the supervisor."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from eventing.cli.terminal import DataDir
from eventing.runtime.data_directory import default_data_dir
from eventing.runtime.settings import API_PORT, INGRESS_PORT, METRICS_PORT, UpSettings

__all__ = ["up"]


def up(
    *,
    data_dir: DataDir = None,
    host: Annotated[str, typer.Option(envvar="EVENTING_HOST", help="Address to listen on.")] = "127.0.0.1",
    api_port: Annotated[
        int, typer.Option(min=0, max=65535, envvar="EVENTING_API_PORT", help="Port of the Kubernetes API; 0: any free one.")
    ] = API_PORT,
    ingress_port: Annotated[
        int, typer.Option(min=0, max=65535, envvar="EVENTING_INGRESS_PORT", help="Port that takes events; 0: any free one.")
    ] = INGRESS_PORT,
    metrics_port: Annotated[
        int,
        typer.Option(min=0, max=65535, envvar="EVENTING_METRICS_PORT", help="Port of metrics and trace; 0: any free one."),
    ] = METRICS_PORT,
    filename: Annotated[
        list[str] | None,
        typer.Option(
            "--filename",
            "-f",
            metavar="FILE|DIR|-",
            help="Apply this at start; may be given several times. Where an object was changed meanwhile, the file wins.",
        ),
    ] = None,
    quickstart: Annotated[bool, typer.Option("--quickstart", help="Play the built-in example.")] = False,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(envvar="EVENTING_LOG_FORMAT", help="Format of the log on standard error.")
    ] = "text",
    journal: Annotated[
        bool,
        typer.Option(
            "--journal/--no-journal",
            envvar="EVENTING_JOURNAL",
            help="Keep what happens to each event, for `eventing trace`; it costs a few µs of CPU per delivery.",
        ),
    ] = True,
) -> None:
    """Run the mesh here, until Ctrl-C: Kubernetes API, ingress, channels, delivery.

    Objects are kept in the data directory and found again at the next start.

    Example: eventing up -f my-channel.yaml -f my-subscriptions.yaml
    """
    settings = UpSettings(
        data_dir=str(data_dir.expanduser().absolute() if data_dir else default_data_dir()),
        host=host,
        api_port=api_port,
        ingress_port=ingress_port,
        metrics_port=metrics_port,
        quickstart=quickstart,
        log_format=log_format,
        journal=journal,
        bin_dir="" if shutil.which("eventing") else str(Path(sys.executable).parent),
        manifests_fd=_spool(filename) if filename else None,
    )
    sys.stdout.flush()
    # The supervisor replaces this process: the pid, the terminal and the signals stay, what was imported here goes.
    os.execv(  # noqa: S606 - our own interpreter and module
        sys.executable, [sys.executable, "-P", "-m", "eventing.runtime.supervisor", settings.to_json()]
    )


def _spool(sources: list[str]) -> int:
    """Read and check the manifests; return an inheritable descriptor of an unnamed file that holds them."""
    from eventing.runtime import manifests

    text = manifests.dump(manifests.read(sources))
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        fd = os.dup(file.fileno())
    os.set_inheritable(fd, True)
    return fd
