"""Settings of `eventing up` and of each of its children. Plain data: they travel as JSON and hold no secrets."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from eventing.observe.lines import LogFormat

__all__ = [
    "API_PORT",
    "DATA_PLANE_NAME",
    "INGRESS_PORT",
    "MAX_EVENT_BYTES",
    "METRICS_PORT",
    "WORKERS_MAX",
    "ChildSettings",
    "DeliverySettings",
    "Endpoints",
    "IngressSettings",
    "UpSettings",
    "data_plane_names",
]

DATA_PLANE_NAME: Final = "embedded"  # of a data-plane process that runs alone
WORKERS_MAX: Final = 64
API_PORT: Final = 7443
INGRESS_PORT: Final = 8080
METRICS_PORT: Final = 9464
MAX_EVENT_BYTES: Final = 1 << 20


def data_plane_names(workers: int) -> tuple[str, ...]:
    """The names of a mesh's data-plane processes; each always comes back under its own."""
    return (DATA_PLANE_NAME,) if workers == 1 else tuple(f"{DATA_PLANE_NAME}-{number}" for number in range(workers))


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the running mesh listens: URLs without a trailing slash, as in `DATA_DIR/endpoints.json`.

    `metrics` is the first data-plane process's; `data_planes` has those of all, by name ({}: there is that one only).
    """

    api: str
    ingress: str
    metrics: str
    data_planes: dict[str, str] = field(default_factory=dict)

    @property
    def admin_urls(self) -> dict[str, str]:
        """Where each data-plane process tells about itself, by its name."""
        return self.data_planes or {DATA_PLANE_NAME: self.metrics}

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, KeyError, TypeError or AttributeError where `text` is not such a file."""
        members = json.loads(text)
        planes = {str(name): str(url) for name, url in members.get("data_planes", {}).items()}
        return cls(str(members["api"]), str(members["ingress"]), str(members["metrics"]), planes)


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """How events come in. Paths are absolute; "" where there is none."""

    max_event_bytes: int = MAX_EVENT_BYTES  # of a request's body; beyond it the answer is 413
    certificate: str = ""  # file, PEM, the chain: the ingress speaks https
    key: str = ""  # file, PEM; "": it is in the certificate's file
    ca: str = (
        ""  # file, PEM, that clients need to trust the certificate; "": what is self-signed in it, else the usual authorities
    )

    @property
    def scheme(self) -> str:
        return "https" if self.certificate else "http"


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How events go out: ranges of addresses in CIDR notation, judged by eventing.delivery.addresses.AddressGuard."""

    allow_ranges: Sequence[str] = ()  # connected to, whatever denies them
    deny_ranges: Sequence[str] = ()  # besides those that are denied by default: link-local, metadata services


@dataclass(frozen=True, slots=True)
class UpSettings:
    """The options of `eventing up`. A port of 0 picks a free one."""

    data_dir: str  # absolute
    host: str = "127.0.0.1"  # address or name that all three listen on
    api_port: int = API_PORT
    ingress_port: int = INGRESS_PORT
    metrics_port: int = METRICS_PORT
    quickstart: bool = False  # apply and play the built-in example
    log_format: LogFormat = "text"
    drain_s: float = 10.0  # how long a stop may wait for what is in flight
    start_s: float = 60.0  # how long a child may take until it is ready
    stall_s: float = 30.0  # how long the event loop of a child may be stuck until the child is ended and started again
    bin_dir: str = ""  # where the command is; "" where a shell finds it without being told
    journal: bool = True  # keep what happens to each event, for `eventing trace`
    workers: int = 1  # data-plane processes; the admin port of each further one is the next after `metrics_port`
    manifests_fd: int | None = None  # inherited file that holds the manifests of `-f`, as JSON; None: there are none
    # ConfigMaps of the mesh's own namespace, and the keys in them that are to have these values
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    # Inherited file with Secrets likewise, as JSON. These settings are an argument of a process, which everybody can read.
    secrets_fd: int | None = None
    ingress: IngressSettings = field(default_factory=IngressSettings)
    delivery: DeliverySettings = field(default_factory=DeliverySettings)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        members: dict[str, Any] = json.loads(text)
        nested = {"ingress": IngressSettings(**members["ingress"]), "delivery": DeliverySettings(**members["delivery"])}
        return cls(**{**members, **nested})


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """What a child is told on its orders pipe, in one line of JSON."""

    role: str
    data_dir: str
    host: str
    endpoints: Endpoints
    data_plane: str = DATA_PLANE_NAME  # of the role dataplane: its name
    workers: int = 1  # data-plane processes in all
    loads_fd: int = -1  # of the role dataplane, one of several: inherited file for eventing.wire.shared_listener.Loads
    sockets: dict[str, int] = field(default_factory=dict)  # name (api, ingress, metrics, subscriber) -> inherited fd
    log_format: LogFormat = "text"
    drain_s: float = 10.0
    stall_s: float = 30.0
    journal: bool = True
    manifests_fd: int | None = None
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    ingress: IngressSettings = field(default_factory=IngressSettings)
    delivery: DeliverySettings = field(default_factory=DeliverySettings)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        members: dict[str, Any] = json.loads(text)
        nested = {
            "endpoints": Endpoints(**members["endpoints"]),
            "ingress": IngressSettings(**members["ingress"]),
            "delivery": DeliverySettings(**members["delivery"]),
        }
        return cls(**{**members, **nested})
