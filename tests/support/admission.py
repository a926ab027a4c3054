"""An object as it is admitted, or refused, without an API server."""

import copy
from typing import Any

import pytest

from eventing.errors import InvalidObjectError
from eventing.resources.kinds import Admission, Kind, Object

__all__ = ["admitted", "refused", "verdict"]


def admitted(kind: Kind, obj: Object, old: Object | None = None, *, user: str = "somebody") -> Object:
    """The object with its defaults. Raises InvalidObjectError."""
    obj = copy.deepcopy(obj)
    admission = Admission(user, "CREATE" if old is None else "UPDATE")
    kind.default(obj, admission)
    kind.validate(obj, old, admission)
    return obj


def refused(kind: Kind, obj: Object, old: Object | None = None) -> str:
    """In which words."""
    with pytest.raises(InvalidObjectError) as caught:
        admitted(kind, obj, old)
    assert caught.value.causes
    return str(caught.value)


def verdict(kind: Kind, vector: dict[str, Any]) -> str:
    """What is said of the object of a recorded case: the text of its refusal, "" where it is taken."""
    try:
        admitted(kind, vector["obj"], vector.get("old"), user=vector["user"])
    except InvalidObjectError as error:
        assert error.causes
        return str(error)
    return ""
