"""What makes a CustomResourceDefinition one that Kubernetes would refuse, beside its schema (see `structural`)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from eventing.apiserver.jsonpath import JsonPath, JsonPathError
from eventing.apiserver.structural import structural_causes
from eventing.errors import Fault, InvalidObjectError
from eventing.resources.kinds import Admission, Object

__all__ = ["validate_definition"]

_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_NOT_A_LABEL: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end "
    "with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_AT_ROOT: Final = (
    *("description", "type", "format", "title", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength"),
    *("minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf", "required", "items", "properties"),
    *("externalDocs", "example", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"),
)
_SELECTABLE: Final = ("string", "boolean", "integer")


def validate_definition(obj: Object, old: Object | None, _admission: Admission) -> None:
    """Kubernetes' ValidateCustomResourceDefinition and …Update, in its words. Raises InvalidObjectError."""
    spec = obj["spec"]
    faults: list[Fault] = []
    wanted = f"{spec['names']['plural']}.{spec['group']}"
    if obj["metadata"]["name"] != wanted:
        text = f'Invalid value: "{obj["metadata"]["name"]}": must be spec.names.plural+"."+spec.group'
        faults.append(Fault("metadata.name", text))
    if "." not in spec["group"]:
        faults.append(Fault("spec.group", f'Invalid value: "{spec["group"]}": should be a domain with at least one dot'))
    faults += _name_faults(spec["names"])
    faults += _conversion_faults(spec["conversion"])
    faults += _version_faults(spec["versions"])
    if old is not None:
        faults += [
            Fault(f"spec.{name}", f'Invalid value: "{spec[name]}": field is immutable')
            for name in ("group", "scope")
            if spec[name] != old["spec"][name]
        ]
    if faults:
        raise InvalidObjectError("; ".join(map(str, faults)), faults)


def _invalid(path: str, value: Any, text: str) -> Fault:
    return Fault(path, f'Invalid value: "{value}": {text}')


def _name_faults(names: Mapping[str, Any]) -> Iterator[Fault]:
    for name in ("plural", "singular"):
        if not _LABEL.fullmatch(names[name]):
            yield _invalid(f"spec.names.{name}", names[name], _NOT_A_LABEL)
    for name in ("kind", "listKind"):
        if not _LABEL.fullmatch(names[name].lower()):
            text = f"may have mixed case, but should otherwise match: {_NOT_A_LABEL}"
            yield _invalid(f"spec.names.{name}", names[name], text)
    if names["kind"] == names["listKind"]:
        yield _invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same")
    for name in ("shortNames", "categories"):
        for index, text in enumerate(names.get(name) or ()):
            if not _LABEL.fullmatch(text):
                yield _invalid(f"spec.names.{name}[{index}]", text, _NOT_A_LABEL)


def _conversion_faults(conversion: Mapping[str, Any]) -> Iterator[Fault]:
    strategy = conversion.get("strategy")
    if strategy not in {"None", "Webhook"}:
        text = f'Unsupported value: "{strategy}": supported values: "None", "Webhook"'
        yield Fault("spec.conversion.strategy", text)
    webhook = conversion.get("webhook") or {}
    if strategy == "Webhook" and not webhook.get("clientConfig"):
        text = "Required value: required when strategy is set to Webhook"
        yield Fault("spec.conversion.webhookClientConfig", text)
    if strategy == "Webhook" and not webhook.get("conversionReviewVersions"):
        yield Fault("spec.conversion.conversionReviewVersions", "Required value")


def _version_faults(versions: Sequence[Object]) -> Iterator[Fault]:
    if sum(bool(version["storage"]) for version in versions) != 1:
        yield Fault("spec.versions", "Invalid value: must have exactly one version marked as storage version")
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        if not _LABEL.fullmatch(version["name"]):
            yield _invalid(f"{path}.name", version["name"], _NOT_A_LABEL)
        if "deprecationWarning" in version and not version.get("deprecated"):
            text = "can only be set for deprecated versions"
            yield _invalid(f"{path}.deprecationWarning", version["deprecationWarning"], text)
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        causes = structural_causes(schema, f"{path}.schema.openAPIV3Schema")
        yield from (Fault(cause.field, cause.message) for cause in causes)
        yield from _scale_faults((version.get("subresources") or {}).get("scale"), f"{path}.subresources.scale")
        yield from _column_faults(version.get("additionalPrinterColumns") or (), f"{path}.additionalPrinterColumns")
        if schema is not None and "status" in (version.get("subresources") or {}):
            yield from _root_faults(schema, f"{path}.schema.openAPIV3Schema")
        if schema is not None and not causes:
            yield from _selectable_faults(version.get("selectableFields") or (), schema, f"{path}.selectableFields")


def _root_faults(schema: Mapping[str, Any], path: str) -> Iterator[Fault]:
    """With a status that is written apart, the root holds nothing that needs both halves of the object."""
    others = sorted(name for name, value in schema.items() if value and name not in _AT_ROOT)
    if others:
        text = (
            f"Invalid value: only [{' '.join(_AT_ROOT)}] fields are allowed at the root of the schema if the status "
            f"subresource is enabled, not {', '.join(others)}"
        )
        yield Fault(path, text)


def _column_faults(columns: Sequence[Object], path: str) -> Iterator[Fault]:
    for index, column in enumerate(columns):
        if not column["name"]:
            yield Fault(f"{path}[{index}].name", "Required value")
        json_path, where = column["jsonPath"], f"{path}[{index}].jsonPath"
        if not json_path.startswith("."):
            yield _invalid(where, json_path, "must be a simple json path starting with .")
            continue
        try:
            JsonPath(json_path)
        except JsonPathError as error:
            yield _invalid(where, json_path, str(error))


def _scale_faults(scale: Any, path: str) -> Iterator[Fault]:
    if scale is None:
        return
    for name, below in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        text = str(scale.get(name) or "")
        if not text:
            yield Fault(f"{path}.{name}", "Required value")
        elif not text.startswith("."):
            yield _invalid(f"{path}.{name}", text, "must be a simple json path starting with .")
        elif not text.startswith(below):
            yield _invalid(f"{path}.{name}", text, f"should be a json path under {below.rstrip('.')}")


def _selectable_faults(fields: Sequence[Object], schema: Mapping[str, Any], path: str) -> Iterator[Fault]:
    seen = set()
    for index, field in enumerate(fields):
        where, json_path = f"{path}[{index}].jsonPath", field["jsonPath"]
        at: Any = schema
        for name in json_path.lstrip(".").split("."):
            at = (at.get("properties") or {}).get(name)
            if at is None:
                break
        if not json_path.startswith(".") or at is None:
            yield _invalid(where, json_path, "is an invalid path: does not refer to a valid field")
        elif json_path.startswith(".metadata."):
            yield _invalid(where, json_path, "must not point to fields in metadata")
        elif at.get("type") not in _SELECTABLE:
            text = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are "
                "allowed."
            )
            yield _invalid(where, json_path, text)
        if json_path in seen:
            yield Fault(where, f'Duplicate value: "{json_path}"')
        seen.add(json_path)
