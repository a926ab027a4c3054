"""How a verb finds the running mesh and speaks to it: the URLs and the administrator's token in the data directory."""

import http.client
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eventing.errors import EventingError
from eventing.runtime.data_directory import DataDirectory, default_data_dir
from eventing.runtime.settings import Endpoints

__all__ = ["Answer", "NotRunningError", "Running", "connect", "find", "request"]

_TIMEOUT_S = 35.0


class NotRunningError(EventingError):
    """There is no mesh to speak to; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A mesh that runs, as far as its data directory says."""

    endpoints: Endpoints
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def find(data_dir: Path | None) -> Running:
    """The mesh of `data_dir` (None: the default one). Raises NotRunningError."""
    directory = DataDirectory(data_dir.absolute() if data_dir else default_data_dir())
    endpoints = directory.read_endpoints()
    if endpoints is None:
        raise NotRunningError(
            f"no mesh is ready on {directory.path}: start one with `eventing up`, or name its directory with --data-dir"
        )
    try:
        tokens = json.loads(directory.tokens.read_text())
    except OSError as error:
        raise NotRunningError(f"{directory.tokens} cannot be read: {error.strerror}") from error
    return Running(endpoints, tokens["admin"])


def connect(url: str) -> http.client.HTTPConnection:
    """A connection to the host of an `http` URL, to be closed by the caller."""
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)


def request(
    connection: http.client.HTTPConnection, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str]
) -> Answer:
    """One request and its whole answer. Raises NotRunningError where nothing answers."""
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    except (OSError, http.client.HTTPException) as error:
        raise NotRunningError(
            f"the mesh does not answer on {connection.host}:{connection.port} ({error}): is it still running?"
        ) from error
