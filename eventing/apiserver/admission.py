"""What every object goes through before it is stored: metadata, schema, defaults, the kind's own rules, generation."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from eventing.apiserver.duplicates import duplicate_fields
from eventing.apiserver.failures import Cause, bad_request, conflict, invalid
from eventing.apiserver.metadata import METADATA_SCHEMA, metadata_causes
from eventing.apiserver.registry import Resource
from eventing.apiserver.requests import Options, Request
from eventing.apiserver.schema import Findings, Node
from eventing.errors import ApiError, InvalidObjectError
from eventing.resources.kinds import Admission, Object

__all__ = ["Admitter", "same_json", "spec_differs"]

_METADATA: Final = Node(METADATA_SCHEMA, typed=True)
_SERVER_SET: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink")
_WEBHOOK: Final = "validation.webhook.eventing.knative.dev"
_PLAIN_GROUPS: Final = frozenset({"", "apiextensions.k8s.io"})  # Kubernetes' own: their rules are no webhook's


class Admitter:
    """Admits objects. `config_map` reads the data of a ConfigMap by (namespace, name)."""

    def __init__(self, config_map: Callable[[str, str], Mapping[str, str]]) -> None:
        self._config_map = config_map

    def identify(self, resource: Resource, obj: Object, namespace: str, name: str) -> None:
        """Check that the object is what the path says, and complete its metadata. Raises 400."""
        kind = resource.kind
        if obj.get("kind") != kind.kind:
            shown = f"{obj.get('apiVersion')}, Kind={obj.get('kind')}"
            raise bad_request(f"the object provided is unrecognized (must be of type {kind.kind}): {shown}")
        if obj.get("apiVersion") != kind.api_version:
            given = obj.get("apiVersion")
            text = f"the API version in the data ({given}) does not match the expected API version ({kind.api_version})"
            raise bad_request(text)
        metadata = obj.get("metadata")
        if metadata is None:
            metadata = {}
        if not isinstance(metadata, dict):
            raise _undecodable(resource, "json: cannot unmarshal into Go struct field metadata of type v1.ObjectMeta")
        obj["metadata"] = metadata
        if namespace:
            if metadata.get("namespace", namespace) not in {namespace, "", None}:
                raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
            metadata["namespace"] = namespace
        else:
            if metadata.get("namespace"):
                raise bad_request("namespace may not be set: the kind is cluster-wide")
            metadata.pop("namespace", None)
        if name:
            if metadata.get("name", name) not in {name, "", None}:
                other = metadata.get("name")
                raise bad_request(f"the name of the object ({other}) does not match the name on the URL ({name})")
            metadata["name"] = name

    def check_partial(self, resource: Resource, config: Object, options: Options, request: Request) -> None:
        """Prune and check the types of the configuration of an apply, which is a part of an object."""
        findings = self._walk(resource, config, whole=False)
        self._report_unknown(resource, findings, options, request)
        wrong = [cause for cause in findings.causes if cause.reason == "FieldValueTypeInvalid"]
        self._report(resource, config, wrong)

    def admit(
        self, resource: Resource, obj: Object, old: Object | None, options: Options, request: Request, *, quiet: bool = False
    ) -> None:
        """Check, prune and complete `obj` in place, for a write to the main resource. Raises 400 or 422.

        `quiet`: unknown fields were reported before.
        """
        findings = self._walk(resource, obj, whole=True)
        if not quiet:
            self._report_unknown(resource, findings, options, request)
        self._report(resource, obj, findings.causes)
        admission = Admission(request.user, "CREATE" if old is None else "UPDATE", self._config_map)
        try:
            resource.kind.default(obj, admission)
            if old is None or obj["metadata"] != old["metadata"]:
                self._report(resource, obj, metadata_causes(resource.kind, obj))
            resource.kind.validate(obj, old, admission)
        except InvalidObjectError as error:
            raise _denied(resource, obj, error) from None

    def admit_status(self, resource: Resource, obj: Object, options: Options, request: Request) -> None:
        """The same for a write to the status: its shape only."""
        findings = self._walk(resource, obj, whole=True)
        self._report_unknown(resource, findings, options, request)
        self._report(resource, obj, findings.causes)

    def carry_over(self, resource: Resource, old: Object, new: Object) -> None:
        """Give `new` the metadata that clients cannot change. Raises 409 where it is another object, 422 on new finalizers."""
        before, after = old["metadata"], new["metadata"]
        if after.get("uid", before["uid"]) not in {before["uid"], "", None}:
            text = f"Precondition failed: UID in precondition: {after['uid']}, UID in object meta: {before['uid']}"
            raise conflict(resource.kind, before["name"], text)
        for name in _SERVER_SET:
            if name in before:
                after[name] = before[name]
            else:
                after.pop(name, None)
        if "deletionTimestamp" in before:
            added = sorted(set(after.get("finalizers") or ()) - set(before.get("finalizers") or ()))
            if added:
                shown = ", ".join(f'"{name}"' for name in added)
                text = (
                    "Forbidden: no new finalizers can be added if the object is being deleted, "
                    f"found new finalizers []string{{{shown}}}"
                )
                raise invalid(resource.kind, before["name"], [Cause("FieldValueForbidden", text, "metadata.finalizers")])

    def _walk(self, resource: Resource, obj: Object, *, whole: bool) -> Findings:
        findings = Findings(whole=whole)
        below = Findings(whole=whole)
        metadata = obj["metadata"]
        managed = metadata.pop("managedFields", None)
        for name in [name for name, value in metadata.items() if value is None]:
            del metadata[name]
        _METADATA.walk(metadata, "metadata", below)
        if below.causes:
            wrong = [cause for cause in below.causes if cause.reason == "FieldValueTypeInvalid"]
            if wrong:
                raise _undecodable(resource, wrong[0].message)
        for name in [name for name, value in metadata.items() if value in ({}, [], "")]:
            del metadata[name]
        if managed is not None:
            metadata["managedFields"] = managed
        resource.node.walk(obj, "", findings)
        findings.unknown[:0] = below.unknown
        findings.causes[:0] = below.causes
        return findings

    def _report_unknown(self, resource: Resource, findings: Findings, options: Options, request: Request) -> None:
        if options.validation == "Ignore":
            return
        texts = [f'duplicate field "{path}"' for path in duplicate_fields(request.body)]
        texts += [f'unknown field "{path}"' for path in findings.unknown]
        if not texts:
            return
        if options.validation == "Strict":
            raise _undecodable(resource, f"strict decoding error: {', '.join(texts)}")
        request.warnings.extend(texts)

    def _report(self, resource: Resource, obj: Object, causes: list[Cause]) -> None:
        if not causes:
            return
        if resource.typed:
            wrong = [cause for cause in causes if cause.reason == "FieldValueTypeInvalid"]
            if wrong:
                raise _undecodable(resource, wrong[0].message)
        raise invalid(resource.kind, str(obj["metadata"].get("name", "")), causes)


def _undecodable(resource: Resource, what: str) -> ApiError:
    kind = resource.kind
    return bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {what}')


def _denied(resource: Resource, obj: Object, error: InvalidObjectError) -> ApiError:
    """A kind's own rules speak through Knative's webhook; those of Kubernetes' own kinds as Kubernetes does."""
    kind = resource.kind
    if kind.group in _PLAIN_GROUPS:
        causes = [Cause("FieldValueInvalid", fault.message, fault.field) for fault in error.causes]
        return invalid(kind, obj["metadata"].get("name", ""), causes or [Cause("FieldValueInvalid", str(error), "")])
    details: dict[str, Any] = {"name": obj["metadata"].get("name", ""), "group": kind.group, "kind": kind.kind}
    if error.causes:
        details["causes"] = [
            {"reason": "FieldValueInvalid", "message": fault.message, "field": fault.field} for fault in error.causes
        ]
    return bad_request(f'admission webhook "{_WEBHOOK}" denied the request: validation failed: {error}', details)


def spec_differs(old: Object, new: Object) -> bool:
    """Whether anything outside metadata and status changed."""
    names = (old.keys() | new.keys()) - {"metadata", "status", "apiVersion", "kind"}
    return not all(same_json(old.get(name), new.get(name)) for name in names)


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: to Python, true equals 1."""
    return bool(one == other) and msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
