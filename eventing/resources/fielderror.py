"""Faults of an API object in the words of Knative (`apis.FieldError`), which users and test suites grep for.

A `FieldErrors` collects; each level of an object prefixes the paths of what its parts found (`via`), and the
outermost one turns the lot into one InvalidObjectError. Equal messages are merged and sorted as Knative does,
so the text is the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from eventing.errors import Fault, InvalidObjectError

__all__ = ["FieldErrors"]


@dataclass(frozen=True, slots=True)
class _Entry:
    message: str
    paths: tuple[str, ...]
    details: str = ""


class FieldErrors:
    """A collection of faults; empty and falsy when all is well."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[_Entry] = ()) -> None:
        self._entries = tuple(entries)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __add__(self, other: "FieldErrors") -> "FieldErrors":
        return FieldErrors((*self._entries, *other._entries))

    def via(self, *prefix: str) -> "FieldErrors":
        """The same faults seen from further out: `errors.via("spec", "subscribers", "[0]")`."""
        return FieldErrors(
            _Entry(entry.message, tuple(_join(*prefix, path) for path in entry.paths), entry.details) for entry in self._entries
        )

    def __str__(self) -> str:
        return "\n".join(
            f"{entry.message}: {', '.join(entry.paths)}" + (f"\n{entry.details}" if entry.details else "")
            for entry in self._merged()
        )

    def raise_if_any(self) -> None:
        """Raise InvalidObjectError with Knative's text and one cause per path, or return."""
        if self._entries:
            causes = [
                Fault(path, f"{entry.message}" + (f": {entry.details}" if entry.details else ""))
                for entry in self._merged()
                for path in entry.paths
            ]
            raise InvalidObjectError(str(self), causes)

    def _merged(self) -> list[_Entry]:
        paths: dict[tuple[str, str], set[str]] = {}
        for entry in self._entries:
            paths.setdefault((entry.message, entry.details), set()).update(entry.paths)
        return [_Entry(message, tuple(sorted(at)), details) for (message, details), at in sorted(paths.items())]

    @classmethod
    def of(cls, message: str, *paths: str, details: str = "") -> "FieldErrors":
        """One fault in words of its own (Knative's ErrGeneric)."""
        return cls((_Entry(message, paths, details),))

    @classmethod
    def missing(cls, *paths: str, details: str = "") -> "FieldErrors":
        return cls.of("missing field(s)", *paths, details=details)

    @classmethod
    def disallowed(cls, *paths: str, details: str = "") -> "FieldErrors":
        return cls.of("must not set the field(s)", *paths, details=details)

    @classmethod
    def invalid(cls, value: object, path: str = "", details: str = "") -> "FieldErrors":
        return cls.of(f"invalid value: {value}", path, details=details)

    @classmethod
    def invalid_key(cls, key: str, path: str, details: str = "") -> "FieldErrors":
        return cls.of(f'invalid key name "{key}"', path, details=details)

    @classmethod
    def none_of(cls, *paths: str) -> "FieldErrors":
        return cls.of("expected exactly one, got neither", *paths)

    @classmethod
    def both_of(cls, *paths: str) -> "FieldErrors":
        return cls.of("expected exactly one, got both", *paths)


def _join(*parts: str) -> str:
    """A path from its parts: dots between names, none before an index (`spec.subscribers[0].uid`)."""
    path = ""
    for part in parts:
        if not part:
            continue
        path += part if not path or (part.startswith("[") and part.endswith("]")) else f".{part}"
    return path
