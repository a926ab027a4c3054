"""What a client asks about itself: who am I, may I. Everyone with a token may do everything."""

from typing import Any

import msgspec

from eventing.apiserver.requests import Request, decode_body, expect_object

__all__ = ["review"]

_ALL = ["*"]
_KINDS = {
    "selfsubjectreviews": "SelfSubjectReview",
    "selfsubjectaccessreviews": "SelfSubjectAccessReview",
    "selfsubjectrulesreviews": "SelfSubjectRulesReview",
}
_ADMIN_GROUPS = ["system:masters", "system:authenticated"]


def review(request: Request) -> tuple[int, bytes]:
    """Answer a SelfSubjectReview, SelfSubjectAccessReview or SelfSubjectRulesReview: the object with its status."""
    value = decode_body(request)
    if isinstance(value, dict):  # typed clients leave these to the path
        value.setdefault("apiVersion", "/".join(request.parts[1:3]))
        value.setdefault("kind", _KINDS[request.parts[-1]])
    obj = expect_object(value)
    obj["status"] = _status(request)
    metadata = obj.get("metadata")
    obj["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "creationTimestamp": None}
    return 201, msgspec.json.encode(obj)


def _status(request: Request) -> dict[str, Any]:
    match request.parts[-1]:
        case "selfsubjectreviews":
            return {"userInfo": {"username": request.user, "groups": _groups(request.user)}}
        case "selfsubjectaccessreviews":
            return {"allowed": True, "reason": "everyone with a token may do everything"}
        case _:
            rule = {"verbs": _ALL, "apiGroups": _ALL, "resources": _ALL}
            other = {"verbs": _ALL, "nonResourceURLs": _ALL}
            return {"resourceRules": [rule], "nonResourceRules": [other], "incomplete": False}


def _groups(user: str) -> list[str]:
    parts = user.split(":")
    if parts[:2] == ["system", "serviceaccount"] and len(parts) == 4:
        return ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}", "system:authenticated"]
    return _ADMIN_GROUPS
