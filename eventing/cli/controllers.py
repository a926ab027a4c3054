"""`eventing controllers`: the controllers alone, against a Kubernetes API that is there already."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["controllers"]


def controllers(
    *,
    ingress_url: Annotated[
        str,
        typer.Option(
            envvar="EVENTING_INGRESS_URL", help="Where the data plane takes events; channels get their addresses below it."
        ),
    ],
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="Whose API server to work on.",
            show_default="$KUBECONFIG, else the cluster that this is a pod of, else ~/.kube/config",
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.", show_default="its current one")] = None,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(envvar="EVENTING_LOG_FORMAT", help="Format of the log on standard error.")
    ] = "text",
) -> None:
    """Run the controllers alone, against the API server of a cluster, until SIGTERM or Ctrl-C.

    Logs in by token, token file or client certificate; a kubeconfig that logs in by `exec` is refused.

    Example: eventing controllers --kubeconfig ~/.kube/config --ingress-url http://ingress.knative-eventing.svc.cluster.local
    """
    import uvloop

    from eventing.kube import find_cluster
    from eventing.observe.logs import configure
    from eventing.runtime.remote import run_controllers

    configure(log_format, "controllers")
    cluster = find_cluster(kubeconfig, context)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        typer.echo(f"The controllers work on {cluster.server}.", err=True)
        await run_controllers(cluster, ingress_url=ingress_url, stop=stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
