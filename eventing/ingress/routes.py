"""Which channel a request is for: host form first, then `/NAMESPACE/NAME` (docs/architecture.md, "Addresses")."""

import re
from collections.abc import Callable
from typing import Final

from eventing.channels import Channel
from eventing.observe.metrics import ChannelMetrics

__all__ = ["MisaddressedError", "Route", "Routes"]

# `NAME-kn-channel.NAMESPACE[.svc…][:port]`: Knative, too, looks at the first two labels of Host only.
_CHANNEL_HOST: Final = re.compile(rb"([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)-kn-channel\.([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)(?:[.:].*)?")
# RFC 3986 §3.2.2, without user information: a registered name or an address, and a port.
_HOST: Final = re.compile(rb"[ \t]*(?:\[[0-9A-Fa-f:.%v]+\]|[\w!$%&'()*+,;=.~-]*)(?::[0-9]*)?[ \t]*")
_HOSTS_MAX: Final = 4096
_HOST_LENGTH: Final = 300  # a name of 253 characters and a port; what comes from outside is not kept at any length


def _nobody_is_behind(_events: int) -> bool:
    return False


class Route:
    """A channel as the ingress sees it. `place` is the journal's number for the channel and those to whom its events are due.
    `behind` tells whether each of its subscriptions, and there are some, has more than so many events before it."""

    __slots__ = ("behind", "channel", "metrics", "name", "place")

    def __init__(self, name: str, channel: Channel, metrics: ChannelMetrics) -> None:
        self.name = name  # NAMESPACE/NAME
        self.channel = channel
        self.metrics = metrics
        self.place = 0
        self.behind: Callable[[int], bool] = _nobody_is_behind


class MisaddressedError(Exception):
    """The address contradicts itself, or is none (400, as Knative answers). The text says how."""


class Routes:
    """The table. Changed by the data plane, read for each request."""

    def __init__(self) -> None:
        self._paths: dict[bytes, Route] = {}
        self._hosts: dict[bytes, bytes | None] = {}  # Host as sent → path of the channel that it names; bounded

    def add(self, route: Route) -> None:
        self._paths[b"/" + route.name.encode()] = route

    def remove(self, route: Route) -> None:
        path = b"/" + route.name.encode()
        if self._paths.get(path) is route:
            del self._paths[path]

    def find(self, host: bytes, target: bytes) -> Route | None:
        """The route, or None where there is no such channel."""
        try:
            named = self._hosts[host]
        except KeyError:
            named = self._classify(host)
        if named is None:
            return self._paths.get(target) or self._find_thoroughly(target)
        if target not in {b"/", b""}:
            if not target.startswith(b"/"):
                return self._find_thoroughly(target)
            if _path(target) != b"/":
                raise MisaddressedError("the Host header names a channel, so the path must be /")
        return self._paths.get(named)

    def _find_thoroughly(self, target: bytes) -> Route | None:
        """By the target alone. Its absolute form brings a host, which counts instead of the header (RFC 9112 §3.2.2)."""
        scheme, separator, rest = target.partition(b"://")
        if separator and b"/" not in scheme:
            host, _, path = rest.partition(b"/")
            return self.find(host.partition(b"?")[0], b"/" + path)
        return self._paths.get(_path(target))

    def _classify(self, host: bytes) -> bytes | None:
        if not _HOST.fullmatch(host):
            raise MisaddressedError("the Host header holds no host (RFC 9112 section 3.2)")
        match = _CHANNEL_HOST.fullmatch(host.strip(b" \t").lower())
        named = b"/%s/%s" % (match[2], match[1]) if match else None
        if len(self._hosts) < _HOSTS_MAX and len(host) <= _HOST_LENGTH:
            self._hosts[host] = named
        return named


def _path(target: bytes) -> bytes:
    """The path of a request target without query and one trailing slash."""
    path = target.partition(b"?")[0]
    return path[:-1] if path.endswith(b"/") and len(path) > 1 else path
