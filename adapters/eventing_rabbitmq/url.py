"""The URL of a RabbitMQ broker, or of the nodes of a cluster."""

import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["SHAPE", "read_url"]

SHAPE: Final = (
    "amqp://USER:PASSWORD@HOST:5672/VHOST is expected, or amqps:// (HOST:5671) with TLS; nodes of a cluster are HOST,HOST:PORT,…"
)
_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_HOSTS: Final = re.compile(r"(\w+://(?:[^/?#]*@)?)([^/?#]*)(.*)", re.DOTALL)
_SECOND_URL: Final = re.compile(r",\s*amqps?://")


def read_url(text: str) -> dict[str, Any]:
    """What `amqp(s)://USER:PASSWORD@HOST:PORT[,HOST:PORT…]/VHOST[?heartbeat=SECONDS]` says, as fields of RabbitmqSettings.

    ValueError says what is wrong; the text itself, which holds a password, is no part of that."""
    if _SECOND_URL.search(text):
        raise ValueError(f"it is more than one URL; {SHAPE}")
    before, hosts, after = found.groups() if (found := _HOSTS.fullmatch(text)) else (text, "", "")
    first, *others = hosts.split(",")
    try:
        parts = urlsplit(f"{before}{first}{after}")
        nodes = [(each.hostname, each.port) for each in (parts, *(urlsplit(f"//{other}") for other in others))]
    except ValueError:
        raise ValueError(f"it is no URL; {SHAPE}") from None
    if parts.scheme not in _PORTS:
        raise ValueError(f"it begins with neither amqp:// nor amqps://; {SHAPE}")
    if any(not host or port == 0 for host, port in nodes) or any(character.isspace() for character in text):
        raise ValueError(f"it names no host; {SHAPE}")
    if "/" in parts.path[1:] or parts.fragment:
        raise ValueError("more than a virtual host follows the host; '/' in the name of a virtual host is written %2F")
    (host, port), *further = [(host, port or _PORTS[parts.scheme]) for host, port in nodes]
    said: dict[str, Any] = {
        "host": host,
        "port": port,
        "others": tuple(further),
        "vhost": unquote(parts.path[1:]) or "/",
        "encrypted": parts.scheme == "amqps",
    }
    if parts.username is not None:
        said |= {"user": unquote(parts.username), "password": unquote(parts.password or "")}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "heartbeat":
            raise ValueError(f"the parameter {name[:100]!r} is not known; heartbeat, in seconds, is the only one")
        if not (value.isascii() and value.isdigit() and 0 < int(value[:6]) <= 3600):
            raise ValueError("heartbeat is 1 to 3600, in seconds")
        said["heartbeat_s"] = int(value)
    return said
