"""`eventing up`: check what can be checked, then become the supervisor."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from eventing.cli.sizes import byte_size
from eventing.cli.terminal import DataDir
from eventing.runtime.data_directory import default_data_dir
from eventing.runtime.settings import (
    API_PORT,
    INGRESS_PORT,
    MAX_EVENT_BYTES,
    METRICS_PORT,
    WORKERS_MAX,
    DeliverySettings,
    IngressSettings,
    UpSettings,
)

__all__ = ["up"]

_RABBITMQ_VARIABLE: Final = "EVENTING_RABBITMQ"


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
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=WORKERS_MAX,
            envvar="EVENTING_WORKERS",
            help="Data-plane processes that share the ingress port and the load; their metrics are on the ports from "
            "--metrics-port on. In-memory channels need 1.",
        ),
    ] = 1,
    max_event_size: Annotated[
        int,
        typer.Option(
            parser=byte_size,
            metavar="SIZE",
            envvar="EVENTING_MAX_EVENT_SIZE",
            show_default="1MiB",
            help="Largest request that the ingress takes, as in 4MiB; beyond it the answer is 413.",
        ),
    ] = MAX_EVENT_BYTES,
    ingress_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="EVENTING_INGRESS_CERT",
            help="Certificate chain, PEM: the ingress speaks https. Read again within a minute of a change.",
        ),
    ] = None,
    ingress_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="EVENTING_INGRESS_KEY", help="Its private key, PEM, where it is not in the same file."
        ),
    ] = None,
    ingress_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="EVENTING_INGRESS_CA",
            help="The authority that clients need to trust it, PEM, where the system does not know it.",
        ),
    ] = None,
    allow_range: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR",
            envvar="EVENTING_ALLOW_RANGES",
            help="Deliver to these addresses whatever denies them; may be given several times.",
        ),
    ] = None,
    deny_range: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR",
            envvar="EVENTING_DENY_RANGES",
            help="Never deliver to these addresses, as in 10.0.0.0/8; link-local and metadata addresses are denied already.",
        ),
    ] = None,
    kafka: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT[,…]",
            envvar="EVENTING_KAFKA",
            show_default=False,
            help="Kafka's servers, for KafkaChannels: written into ConfigMap knative-eventing/kafka-channel-config.",
        ),
    ] = "",
    rabbitmq: Annotated[
        str,
        typer.Option(
            metavar="amqp[s]://USER:PASSWORD@HOST[,HOST…][/VHOST]",
            envvar=_RABBITMQ_VARIABLE,
            show_default=False,
            help="RabbitMQ's URL, for RabbitmqChannels: written into a Secret that ConfigMap "
            "knative-eventing/rabbitmq-channel-config names. A password is safer in the variable.",
        ),
    ] = "",
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
    drain_timeout: Annotated[
        float,
        typer.Option(
            min=0,
            max=3600,
            metavar="SECONDS",
            envvar="EVENTING_DRAIN_TIMEOUT",
            help="How long a stop waits for pending events; what is left is dead-lettered, or dropped with reason Shutdown.",
        ),
    ] = 10.0,
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
    _check_workers(workers, metrics_port, quickstart=quickstart)
    config_maps, secrets = _configurations(kafka, rabbitmq)
    os.environ.pop(_RABBITMQ_VARIABLE, None)  # no child needs to know
    settings = UpSettings(
        data_dir=str(data_dir.expanduser().absolute() if data_dir else default_data_dir()),
        host=host,
        api_port=api_port,
        ingress_port=ingress_port,
        metrics_port=metrics_port,
        quickstart=quickstart,
        log_format=log_format,
        drain_s=drain_timeout,
        journal=journal,
        workers=workers,
        bin_dir="" if shutil.which("eventing") else str(Path(sys.executable).parent),
        manifests_fd=_spool(filename) if filename else None,
        config_maps=config_maps,
        secrets_fd=_unnamed_file(json.dumps(secrets)) if secrets else None,
        ingress=_ingress(max_event_size, ingress_cert, ingress_key, ingress_ca),
        delivery=_delivery(allow_range or (), deny_range or ()),
    )
    sys.stdout.flush()
    # The supervisor replaces this process: the pid, the terminal and the signals stay, what was imported here goes.
    os.execv(  # noqa: S606 - our own interpreter and module
        sys.executable, [sys.executable, "-P", "-m", "eventing.runtime.supervisor", settings.to_json()]
    )


def _check_workers(workers: int, metrics_port: int, *, quickstart: bool) -> None:
    if workers > 1 and quickstart:
        text = "the built-in example has an in-memory channel, which needs one data-plane process: leave one of the two out"
        raise typer.BadParameter(text, param_hint="--quickstart with --workers")
    if metrics_port and metrics_port + workers - 1 > 65535:
        text = f"{workers} data-plane processes need as many ports from {metrics_port} on, and 65535 is the last"
        raise typer.BadParameter(text, param_hint="--metrics-port")


def _ingress(max_event_bytes: int, certificate: Path | None, key: Path | None, ca: Path | None) -> IngressSettings:
    """With files that were found to be good. Raises StartError."""
    if certificate is None:
        if key is not None or ca is not None:
            raise typer.BadParameter("https needs the certificate too", param_hint="--ingress-cert")
        return IngressSettings(max_event_bytes)
    from eventing.runtime.ingress_tls import check

    paths = ("" if path is None else str(path.expanduser().absolute()) for path in (certificate, key, ca))
    settings = IngressSettings(max_event_bytes, *paths)
    check(settings)
    return settings


def _delivery(allow: Sequence[str], deny: Sequence[str]) -> DeliverySettings:
    from eventing.delivery.addresses import address_guard

    for option, ranges in (("--allow-range", allow), ("--deny-range", deny)):
        try:
            address_guard(ranges)
        except ValueError as error:
            raise typer.BadParameter(f"{error}; as in 10.0.0.0/8 or 192.0.2.1", param_hint=option) from error
    return DeliverySettings(tuple(allow), tuple(deny))


def _configurations(kafka: str, rabbitmq: str) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """ConfigMaps and Secrets."""
    config_maps: dict[str, dict[str, str]] = {}
    secrets: dict[str, dict[str, str]] = {}
    for name, address in (("kafka", kafka), ("rabbitmq", rabbitmq)):
        if not address:
            continue
        from eventing.runtime.back_ends import configurations_of  # for those who have such a back end

        try:
            found = configurations_of({name: address})
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=f"--{name}") from None
        config_maps |= found[0]
        secrets |= found[1]
    return config_maps, secrets


def _spool(sources: list[str]) -> int:
    """Read and check the manifests; a file that holds them."""
    from eventing.runtime import manifests

    return _unnamed_file(manifests.dump(manifests.read(sources)))


def _unnamed_file(text: str) -> int:
    """An inheritable descriptor of a file that nobody else can open."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        fd = os.dup(file.fileno())
    os.set_inheritable(fd, True)
    return fd
