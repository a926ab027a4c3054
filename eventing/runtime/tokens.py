"""Who may speak to the embedded API server: bearer tokens, made once and kept in the data directory."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from eventing.errors import StartError
from eventing.runtime.data_directory import DataDirectory

__all__ = ["Tokens"]

_USERS: Final = {
    "admin": "kubernetes-admin",
    "controllers": "system:serviceaccount:knative-eventing:eventing-controller",
    "data-plane": "system:serviceaccount:knative-eventing:eventing-data-plane",
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """One secret for each user, by the short name of the user."""

    by_name: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, directory: DataDirectory) -> Self:
        """The tokens kept there; those that are missing are made. Raises StartError where the file is damaged."""
        try:
            kept = json.loads(directory.tokens.read_text())
        except FileNotFoundError:
            kept = {}
        except ValueError as error:
            raise StartError(
                f"{directory.tokens} is damaged ({error}): remove it, and new tokens and a new kubeconfig are made"
            ) from error
        tokens = {name: kept.get(name) or secrets.token_urlsafe(32) for name in _USERS}
        if tokens != kept:
            directory.write(directory.tokens, json.dumps(tokens, indent=2) + "\n")
        return cls(tokens)

    @property
    def users(self) -> dict[str, str]:
        """Token → name of the user, as the API server wants it."""
        return {self.by_name[name]: user for name, user in _USERS.items()}

    @property
    def admin(self) -> str:
        return self.by_name["admin"]

    @property
    def controllers(self) -> str:
        return self.by_name["controllers"]

    @property
    def data_plane(self) -> str:
        return self.by_name["data-plane"]
