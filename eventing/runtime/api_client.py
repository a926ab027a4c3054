"""How a verb reads and writes the API objects of the running mesh.

Synchronous and on the standard library, like `mesh_client`: a command line should start quickly, and asks few questions.
"""

import http.client
import json
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit

from eventing.errors import EventingError, ObjectNotFoundError, api_error
from eventing.runtime.data_directory import DataDirectory, default_data_dir
from eventing.runtime.manifests import FIELD_MANAGER
from eventing.runtime.mesh_client import MeshClient, NotRunningError

__all__ = ["ApiClient", "ApiResource", "Object"]

Object = dict[str, Any]

_TIMEOUT_S: Final = 35.0
_PAGE: Final = 500
_TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io"
_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class ApiResource:
    """A kind as discovery tells it."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def qualified(self) -> str:
        """`channels.messaging.knative.dev`, as in Kubernetes' messages about an object."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular_qualified(self) -> str:
        """`channel.messaging.knative.dev`, as kubectl says what it has done to one."""
        return f"{self.singular}.{self.group}" if self.group else self.singular

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def answers_to(self, word: str) -> bool:
        """Whether people may call it so: plural, singular, kind or short name, alone or with group, or version and group."""
        name, _, rest = word.lower().partition(".")
        if rest not in {"", self.group, f"{self.version}.{self.group}".rstrip(".")}:
            return False
        return name in {self.plural, self.singular, self.kind.lower(), *self.short_names}

    def path(self, namespace: str = "", name: str = "") -> str:
        parts = ["", "apis", self.group, self.version] if self.group else ["", "api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [self.plural, *([quote(name, safe="")] if name else ())]
        return "/".join(parts)


class ApiClient:
    """One connection to a mesh's Kubernetes API, as its administrator. Use it as a context manager.

    Every call raises ApiError (ObjectNotFoundError and the like) where the server refuses, NotRunningError where it does not
    answer. `warnings` collects what the server warned of.
    """

    def __init__(self, url: str, token: str, ca_cert: Path, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._url = url
        self._token = token
        self._ca_cert = ca_cert
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPSConnection | None = None
        self._resources: list[ApiResource] | None = None
        self.warnings: list[str] = []

    @classmethod
    def find(cls, data_dir: Path | None = None, *, timeout_s: float = _TIMEOUT_S) -> Self:
        """The API of the mesh of `data_dir` (None: the default one). Raises NotRunningError."""
        mesh = MeshClient.find(data_dir)
        directory = DataDirectory(data_dir.expanduser().absolute() if data_dir else default_data_dir())
        return cls(mesh.endpoints.api, mesh.token, directory.pki / "ca.crt", timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def resources(self) -> list[ApiResource]:
        """All kinds that are served, the mesh's own groups first. Asked for once."""
        if self._resources is None:
            found = [
                resource for root in ("/apis", "/api") for resource in _discovered(self._json("GET", root, accept=_DISCOVERY))
            ]
            self._resources = sorted(found, key=lambda resource: not resource.group.endswith("knative.dev"))
        return self._resources

    def resolve(self, word: str) -> list[ApiResource]:
        """The kind that people call `word`, or all those of the category `word`. Raises ObjectNotFoundError."""
        for resource in self.resources():
            if resource.answers_to(word):
                return [resource]
        found = [resource for resource in self.resources() if word.lower() in resource.categories]
        if not found:
            raise ObjectNotFoundError(404, "NotFound", f'the mesh has no kind "{word}"{self._suggestion(word)}')
        return found

    def _suggestion(self, word: str) -> str:
        from difflib import get_close_matches  # needed only here

        names = sorted({name for resource in self.resources() for name in (resource.plural, *resource.short_names)})
        close = get_close_matches(word.lower(), names, 1)
        listed = ", ".join(sorted({resource.plural for resource in self.resources()}))
        return f': did you mean "{close[0]}"?' if close else f": it has {listed}"

    def kind(self, api_version: str, kind: str) -> ApiResource:
        """The kind of a manifest. Raises ObjectNotFoundError."""
        for resource in self.resources():
            if (resource.api_version, resource.kind) == (api_version, kind):
                return resource
        raise ObjectNotFoundError(404, "NotFound", f"kind {kind} of apiVersion {api_version} is not served here")

    def get(self, resource: ApiResource, namespace: str, name: str, *, table: bool = False) -> Object:
        return self._json("GET", resource.path(namespace, name), accept=_TABLE if table else "application/json")

    def list(
        self, resource: ApiResource, namespace: str = "", *, labels: str = "", fields: str = "", table: bool = False
    ) -> Object:
        """All of a namespace ("": of all), pages put together: a list object, or a Table."""
        members = "rows" if table else "items"
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        whole: Object | None = None
        while True:
            page = self._json("GET", resource.path(namespace), query=query, accept=_TABLE if table else "application/json")
            page[members] = page.get(members) or []
            if whole is None:
                whole = page
            else:
                whole[members] += page[members]
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                return whole

    def apply(self, resource: ApiResource, namespace: str, body: Object, *, dry_run: bool = False) -> tuple[Object, bool]:
        """Server-side apply, strict on unknown fields; the object, and whether it was made. What others set is taken over."""
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": "true", "dryRun": "All" if dry_run else ""}
        path = resource.path(namespace, body["metadata"]["name"])
        status, obj = self._call("PATCH", path, query=query, body=body, content_type="application/apply-patch+yaml")
        return obj, status == 201

    def delete(self, resource: ApiResource, namespace: str, name: str) -> str:
        """Begin the deletion; its dependants follow in the background. The uid of what goes, "" where the server tells none."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        answer = self._json("DELETE", resource.path(namespace, name), body=options)
        gone = answer.get("details") if answer.get("kind") == "Status" else answer.get("metadata")
        return str((gone or {}).get("uid", ""))

    def wait_gone(self, resource: ApiResource, namespace: str, name: str, uid: str, deadline: float) -> Object | None:
        """None once the object of this uid is gone; the object as it is when `time.monotonic()` reaches `deadline`."""
        while True:
            try:
                obj = self.get(resource, namespace, name)
            except ObjectNotFoundError:
                return None
            if uid and obj["metadata"].get("uid") != uid:
                return None
            if time.monotonic() >= deadline:
                return obj
            time.sleep(0.1)

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        accept: str = "application/json",
    ) -> Object:
        return self._call(method, path, query=query, body=body, accept=accept)[1]

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        accept: str = "application/json",
        content_type: str = "application/json",
    ) -> tuple[int, Object]:
        given = {name: value for name, value in (query or {}).items() if value}
        target = f"{path}?{urlencode(given)}" if given else path
        headers = {"Authorization": f"Bearer {self._token}", "Accept": accept}
        if body is not None:
            headers["Content-Type"] = content_type
        with self._problems() as connection:
            connection.request(method, target, body=None if body is None else json.dumps(body), headers=headers)
            response = connection.getresponse()
            content = response.read()
        self.warnings += (value.split('"', 1)[-1].rstrip('"') for value in response.headers.get_all("Warning") or ())
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not 200 <= response.status < 300:
            raise api_error(response.status, document, content[:200].decode(errors="replace"))
        if not isinstance(document, dict):
            raise EventingError(f"{self._url} answered {method} {path} with something that is no API object")
        return response.status, document

    @contextmanager
    def _problems(self) -> Iterator[http.client.HTTPSConnection]:
        """The connection; what goes wrong with it, for people."""
        parts = urlsplit(self._url)
        try:
            if self._connection is None:
                context = ssl.create_default_context(cafile=self._ca_cert)
                self._connection = http.client.HTTPSConnection(
                    parts.hostname or "", parts.port, timeout=self._timeout_s, context=context
                )
            yield self._connection
        except (OSError, http.client.HTTPException) as error:
            self.__exit__()
            reason = getattr(error, "strerror", None) or error
            raise NotRunningError(f"the mesh does not answer on {parts.netloc} ({reason}): is it still running?") from error


def _discovered(document: Object) -> Iterable[ApiResource]:
    for group in document.get("items") or ():
        name = str(group["metadata"].get("name", ""))
        for version in group["versions"]:
            for entry in version["resources"]:
                yield ApiResource(
                    group=name,
                    version=version["version"],
                    plural=entry["resource"],
                    singular=entry.get("singularResource") or entry["responseKind"]["kind"].lower(),
                    kind=entry["responseKind"]["kind"],
                    namespaced=entry["scope"] == "Namespaced",
                    short_names=tuple(entry.get("shortNames") or ()),
                    categories=tuple(entry.get("categories") or ()),
                )
