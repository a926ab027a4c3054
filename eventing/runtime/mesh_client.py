"""How a verb, or any program on the same machine, speaks to the running mesh: sends events, asks for their way.

Synchronous and on the standard library: a command line should start quickly, and sends few events.
"""

import http.client
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from eventing.bindings.http import HOPS_HEADER, binary_head
from eventing.errors import EventingError, ObjectNotFoundError
from eventing.event import Event
from eventing.runtime.data_directory import DataDirectory, default_data_dir
from eventing.runtime.settings import Endpoints

__all__ = ["Answer", "MeshClient", "NotRunningError"]

_TIMEOUT_S = 35.0  # longer than the ingress may take to answer
_ASKED_S = 10.0  # how long a data-plane process may take to answer a question, where others have answered or none may come


class NotRunningError(EventingError):
    """There is no mesh to speak to; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    @property
    def receipt(self) -> str:
        """The number of the acceptance; "" where there is none."""
        return self.headers.get("Eventing-Receipt", "")

    @property
    def problem(self) -> str:
        """Why it was refused, in one line: the detail of a problem document (RFC 9457), else the text of the answer."""
        text = self.body[:2000].decode("utf-8", "replace").strip()
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            text = str(document.get("detail") or document.get("title") or text)
        retry_after = self.headers.get("Retry-After")
        return f"{self.status} {text}".strip() + (f"; try again in {retry_after} s" if retry_after else "")


@dataclass(slots=True)
class MeshClient:
    """A mesh that runs, as far as its data directory says. Use it as a context manager."""

    endpoints: Endpoints
    token: str = field(repr=False)
    ingress_ca: Path | None = None  # file, PEM, of what to trust besides the usual authorities; may be empty
    _ingress: http.client.HTTPConnection | None = field(default=None, init=False, repr=False)
    _queries: dict[str, http.client.HTTPConnection] = field(default_factory=dict, init=False, repr=False)  # by URL

    @classmethod
    def find(cls, data_dir: Path | None = None) -> Self:
        """The mesh of `data_dir` (None: the default one). Raises NotRunningError."""
        directory = DataDirectory(data_dir.expanduser().absolute() if data_dir else default_data_dir())
        try:
            endpoints = directory.read_endpoints()
            if endpoints is None:
                raise NotRunningError(
                    f"no mesh is ready on {directory.path}: start one with `eventing up`, or name its directory with --data-dir"
                )
            tokens = json.loads(directory.tokens.read_text())
        except OSError as error:
            raise NotRunningError(f"{error.filename} cannot be read: {error.strerror}") from error
        return cls(endpoints, tokens["admin"], directory.ingress_ca)

    def send(self, namespace: str, channel: str, event: Event) -> Answer:
        """POST the event in binary mode; the connection is kept for the next one. Raises NotRunningError."""
        if self._ingress is None:
            self._ingress = _connection(self.endpoints.ingress, self.ingress_ca)
        lines = binary_head(event).decode("ascii").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        del headers[HOPS_HEADER.decode()]  # it has been through no channel yet
        path = f"/{quote(namespace, safe='')}/{quote(channel, safe='')}"
        return _request(self._ingress, "POST", path, event.data, headers)

    def trace(self, identity: str, *, channel: str = "", data: bool = False) -> dict[str, Any]:
        """What is known of an event id or a receipt (eventing.journal.documents.Trace), in all data-plane processes together;
        those that do not answer are in `unanswered`. Raises NotRunningError, EventingError."""
        path = f"/trace/{quote(identity, safe='')}"
        told, unanswered = self._ask_all(path, {"channel": channel, "data": "true" if data else ""})
        documents = [document for document in told.values() if document is not None]
        if len(documents) == 1:
            document = documents[0]
        else:
            import msgspec

            from eventing.journal.documents import Trace, as_dict
            from eventing.journal.joined import joined_trace

            document = as_dict(joined_trace([msgspec.convert(each, Trace) for each in documents]))
        return {**document, "unanswered": unanswered}

    def tail(self, url: str, after: str, *, wait_s: float, **wanted: str) -> dict[str, Any]:
        """What happened after a position (Feed) in the data-plane process that answers at `url`: "" is now. `wanted`: channel,
        subscription, type, failed. Raises as `trace`. eventing.runtime.feeds asks all of them."""
        return self._ask(url, "/tail", {"after": after, "wait_s": f"{wait_s:g}", **wanted}, timeout_s=wait_s + _ASKED_S)

    def standing(self, namespace: str, name: str) -> tuple[dict[str, Any] | None, list[str]]:
        """How a Subscription stands in all data-plane processes together (Standing), None where it is in force in none; and those
        that do not answer. Raises as `trace`."""
        told, unanswered = self._ask_all(f"/subscriptions/{quote(namespace, safe='')}/{quote(name, safe='')}", {})
        documents = [document for document in told.values() if document is not None]
        if len(told) == 1 or not documents:
            return (documents[0] if documents else None), unanswered
        import msgspec

        from eventing.journal.documents import Standing, as_dict
        from eventing.journal.joined import joined_standing

        absent = [process for process, document in told.items() if document is None]
        return as_dict(joined_standing([msgspec.convert(each, Standing) for each in documents], absent)), unanswered

    def _ask_all(self, path: str, query: dict[str, str]) -> tuple[dict[str, dict[str, Any] | None], list[str]]:
        """The answers by process, None for 404; and, in words, the processes that gave none. Raises where no one answers."""
        urls = self.endpoints.admin_urls

        def asked(url: str) -> dict[str, Any] | EventingError | None:
            try:
                return self._ask(url, path, query, timeout_s=_TIMEOUT_S if len(urls) == 1 else _ASKED_S)
            except ObjectNotFoundError:
                return None
            except EventingError as error:
                return error

        if len(urls) == 1:
            answers = list(map(asked, urls.values()))
        else:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(len(urls)) as pool:
                answers = list(pool.map(asked, urls.values()))
        told: dict[str, dict[str, Any] | None] = {}
        unanswered: list[str] = []
        faults: list[EventingError] = []
        for process, answer in zip(urls, answers, strict=True):
            if isinstance(answer, EventingError):
                unanswered.append(f"{process}: {answer}")
                faults.append(answer)
            else:
                told[process] = answer
        if not told:
            raise faults[0]
        return told, unanswered

    def _ask(self, url: str, path: str, query: dict[str, str], *, timeout_s: float = _TIMEOUT_S) -> dict[str, Any]:
        """A question to the local API of one data-plane process; the connection is kept for the next one."""
        connection = self._queries.get(url)
        if connection is None:
            connection = self._queries[url] = _connection(url)
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        given = urlencode({name: value for name, value in query.items() if value})
        target = f"/api/v1{path}" + (f"?{given}" if given else "")
        try:
            answer = _request(connection, "GET", target, None, {"Authorization": f"Bearer {self.token}"})
        except NotRunningError:
            connection.close()
            raise
        if answer.status == 503:  # it is stopping, and perhaps about to be started again
            raise NotRunningError(f"the mesh does not answer on {connection.host}:{connection.port} ({answer.problem})")
        if answer.status == 404:
            raise ObjectNotFoundError(404, "NotFound", answer.problem)
        if answer.status != 200:
            raise EventingError(f"the mesh refused to answer: {answer.problem}")
        document: dict[str, Any] = json.loads(answer.body)
        return document

    def close(self) -> None:
        """Close its connections; the next call opens them again."""
        for connection in (self._ingress, *self._queries.values()):
            if connection is not None:
                connection.close()
        self._ingress = None
        self._queries = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _connection(url: str, trusted: Path | None = None) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    context = ssl.create_default_context()
    if trusted is not None and (pem := trusted.read_text()):
        context.load_verify_locations(cadata=pem)
    return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S, context=context)


def _request(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> Answer:
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    except ssl.SSLCertVerificationError as error:
        raise EventingError(
            f"the certificate of {connection.host}:{connection.port} is not trusted: {error.verify_message}; "
            "`eventing up` takes the authority with --ingress-ca, and the name in the certificate with --host"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotRunningError(
            f"the mesh does not answer on {connection.host}:{connection.port} ({reason}): is it still running?"
        ) from error
