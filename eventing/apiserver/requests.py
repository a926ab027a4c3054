"""A request as the API understands it: path, options, body, and what the client wants back."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec
import yaml

from eventing.apiserver.failures import bad_request, invalid_options, not_acceptable, unsupported_media_type
from eventing.apiserver.protobuf import decode_protobuf
from eventing.resources.kinds import Kind, Object
from eventing.resources.kubernetes_yaml import KubernetesLoader, check_yaml

__all__ = [
    "APPLY_PATCH",
    "JSON_PATCH",
    "MERGE_PATCH",
    "PROTOBUF",
    "STRATEGIC_PATCH",
    "Options",
    "Request",
    "View",
    "decode_body",
    "decode_json",
    "decode_yaml",
    "expect_object",
    "parse_target",
    "parse_view",
]

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
_JSON_TYPES: Final = {"", "application/json", "application/x-www-form-urlencoded"}
_YAML_TYPES: Final = {"application/yaml", "application/x-yaml", "text/yaml"}
_OPTIONS: Final = {"POST": "CreateOptions", "PATCH": "PatchOptions"}
_MAX_MANAGER: Final = 128
_MAX_DEPTH: Final = 200
_MAX_DIGITS: Final = 19


@dataclass(frozen=True, slots=True)
class View:
    """How objects are to be shown: as JSON ("", whole), as Table, or their metadata only."""

    form: str = ""  # "" | "Table" | "PartialObjectMetadata"
    version: str = "v1"  # of meta.k8s.io
    include: str = "Metadata"  # in rows of a Table: None | Metadata | Object


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `params` has the last value of each query parameter."""

    method: str
    path: str
    parts: tuple[str, ...]
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    user: str
    warnings: list[str] = field(default_factory=list)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def flag(self, name: str) -> bool:
        """A boolean parameter; anything but true and 1 is false, as is its absence."""
        return self.params.get(name, "").lower() in {"true", "1"}

    def number(self, name: str, default: int = 0) -> int:
        text = self.params.get(name, "")
        if not text:
            return default
        if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
            raise bad_request(f'Invalid value: "{text[:_MAX_DIGITS]}": {name} must be a number')
        return int(text)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a write (CreateOptions, UpdateOptions, PatchOptions)."""

    dry_run: bool = False
    manager: str = "unknown"
    validation: str = "Warn"  # Strict | Warn | Ignore
    force: bool = False

    @classmethod
    def of(cls, request: Request) -> "Options":
        kind = _OPTIONS.get(request.method, "UpdateOptions")
        dry_run = request.params.get("dryRun", "")
        if dry_run not in {"", "All"}:
            raise invalid_options(kind, "dryRun", f'Unsupported value: "{dry_run}": supported values: "All"')
        validation = request.params.get("fieldValidation") or "Warn"
        if validation not in {"Strict", "Warn", "Ignore"}:
            text = f'Unsupported value: "{validation}": supported values: "Ignore", "Strict", "Warn"'
            raise invalid_options(kind, "fieldValidation", text)
        manager = request.params.get("fieldManager", "")
        if len(manager.encode()) > _MAX_MANAGER:
            raise invalid_options(kind, "fieldManager", f"Too long: may not be more than {_MAX_MANAGER} bytes")
        if not manager.isprintable():
            text = f"Invalid value: {json.dumps(manager)}: should not contain non-printable characters"
            raise invalid_options(kind, "fieldManager", text)
        if not manager:
            manager = request.headers.get("user-agent", "").partition("/")[0][:_MAX_MANAGER] or "unknown"
        return cls(dry_run == "All", manager, validation, request.flag("force"))


def parse_target(raw_path: bytes, query: bytes) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """Path, its decoded segments, and the query parameters. A segment keeps an encoded slash to itself."""
    text = raw_path.decode("ascii", "replace")
    parts = tuple(unquote(part) for part in text.strip("/").split("/"))
    try:
        params = dict(parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise bad_request("the query parameters cannot be read") from None
    return text, parts, params


def decode_body(request: Request) -> Any:
    """The body as JSON values, whatever it was encoded in. Raises 400 or 415."""
    content_type = request.content_type
    if content_type == PROTOBUF:
        return decode_protobuf(request.body)
    if content_type in _YAML_TYPES:
        return decode_yaml(request.body)
    if content_type not in _JSON_TYPES:
        raise unsupported_media_type(["application/json", "application/yaml", PROTOBUF])
    return decode_json(request.body)


def decode_json(body: bytes) -> Any:
    """JSON values. Raises 400."""
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise bad_request("error decoding from json: exceeded max depth") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"error decoding the body: {error}") from None


def decode_yaml(body: bytes) -> Any:
    """YAML as JSON values. JSON, which is what clients send under this name, is read as such. Raises 400."""
    if body.lstrip()[:1] in {b"{", b"["}:
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            pass
    try:
        check_yaml(body, depth_max=_MAX_DEPTH, aliases=False)
        value = yaml.load(body, Loader=KubernetesLoader)  # noqa: S506 - a safe loader
        return msgspec.json.decode(msgspec.json.encode(value))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, RecursionError, ValueError) as error:
        raise bad_request(f"error decoding YAML: {error}") from None


_QUALITY: Final = re.compile(r"q=([0-9.]+)")


def parse_view(accept: str, include: str = "") -> View:
    """The first form among those accepted that the server has. Raises 406 where there is none."""
    entries = [entry.strip() for entry in accept.split(",") if entry.strip()] or ["*/*"]
    entries.sort(key=_quality, reverse=True)
    for entry in entries:
        media_type, _, rest = entry.partition(";")
        if media_type.strip().lower() not in {"application/json", "*/*", "application/*"}:
            continue
        params = dict(part.strip().partition("=")[::2] for part in rest.split(";"))
        form = params.get("as", "").removesuffix("List")
        if not form:
            return View()
        known = params.get("g") == "meta.k8s.io" and params.get("v") in {"v1", "v1beta1"}
        if known and form in {"Table", "PartialObjectMetadata"}:
            if include not in {"", "None", "Metadata", "Object"}:
                raise bad_request(f'includeObject: Unsupported value: "{include}"')
            return View(form, params["v"], include or "Metadata")
    raise not_acceptable(["application/json"])


def _quality(entry: str) -> float:
    match = _QUALITY.search(entry)
    try:
        return float(match[1]) if match else 1.0
    except ValueError:
        return 0.0


def expect_object(value: Any, kind: Kind | None = None) -> Object:
    """The body of a write, which is an object with apiVersion and kind.

    Those of Kubernetes' own kinds may be left to the path, which `kind` gives: typed clients do so.
    """
    if not isinstance(value, dict):
        raise bad_request("couldn't get version/kind; json parse error: the body is not an object")
    if kind is not None and kind.group in {"", "apiextensions.k8s.io"}:
        value.setdefault("apiVersion", kind.api_version)
        value.setdefault("kind", kind.kind)
    for name in ("kind", "apiVersion"):
        if not isinstance(value.get(name), str) or not value[name]:
            shown = msgspec.json.encode(value)[:200].decode(errors="replace")
            raise bad_request(f"Object '{name[:1].upper()}{name[1:]}' is missing in '{shown}'")
    return value
