"""What the verbs on API objects share: how objects are named on the command line, and how several faults end it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from eventing.cli.completion import complete_namespaces
from eventing.cli.terminal import printable
from eventing.errors import EventingError, ObjectNotFoundError
from eventing.observe.lines import lines_of
from eventing.runtime.api_client import ApiClient, ApiResource

__all__ = ["FAILED", "NOT_FOUND", "Faults", "Namespace", "Selector", "Target", "api_client", "targets"]

FAILED = 1
NOT_FOUND = 3

Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Namespace of the objects.", autocompletion=complete_namespaces)
]
Selector = Annotated[str, typer.Option("--selector", "-l", metavar="LABEL=VALUE", help="Only those with the labels.")]


@dataclass(frozen=True, slots=True)
class Target:
    """An object, or (`name` empty) all of a kind."""

    resource: ApiResource
    name: str = ""


def targets(client: ApiClient, words: Sequence[str]) -> list[Target]:
    """What `TYPE[,TYPE] [NAME…]` or `TYPE/NAME…` means, as in kubectl. Raises BadParameter, ObjectNotFoundError."""
    if any("/" in word for word in words):
        found: list[Target] = []
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not kind or not name or "/" in name:
                raise typer.BadParameter(
                    f"{word!r} is not TYPE/NAME: give all so (channel/orders), or one type and then names (channel orders)"
                )
            found.append(Target(_one(client, kind), name))
        return found
    kinds, *names = words
    resources = list({resource: None for kind in kinds.split(",") if kind for resource in client.resolve(kind)})
    if not resources:
        raise typer.BadParameter("no kind is given: channels, subscriptions, …")
    if not names:
        return [Target(resource) for resource in resources]
    if len(resources) > 1:
        raise typer.BadParameter(f"{kinds!r} are several kinds: names belong to one, or write TYPE/NAME")
    return [Target(resources[0], name) for name in names]


def _one(client: ApiClient, kind: str) -> ApiResource:
    found = client.resolve(kind)
    if len(found) > 1:
        raise typer.BadParameter(f"{kind!r} are several kinds: name one of {', '.join(each.plural for each in found)}")
    return found[0]


class Faults:
    """Errors told one by one while the rest goes on; at the end, the exit code for all."""

    def __init__(self) -> None:
        self._code = 0

    @contextmanager
    def collected(self, origin: str = "") -> Iterator[None]:
        """Print an EventingError of the body and go on; NotRunningError and the like end the verb at once."""
        try:
            yield
        except ObjectNotFoundError as error:
            self.tell(f"{origin}{error}", NOT_FOUND)
        except EventingError as error:
            if error.retriable or not hasattr(error, "code"):
                raise
            self.tell(f"{origin}{error}", FAILED)

    def tell(self, text: str, code: int = FAILED) -> None:
        typer.echo(f"eventing: {lines_of(text)}", err=True)
        self._code = code if self._code in {0, code} else FAILED

    def end(self) -> None:
        """Raises Exit where something was told."""
        if self._code:
            raise typer.Exit(self._code)


@contextmanager
def api_client(data_dir: Path | None) -> Iterator[ApiClient]:
    """The client of the running mesh; its warnings go to standard error at the end."""
    with ApiClient.find(data_dir) as client:
        try:
            yield client
        finally:
            for warning in dict.fromkeys(client.warnings):
                typer.echo(f"Warning: {printable(warning)}", err=True)
