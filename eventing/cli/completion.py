"""Completion with what the running mesh has: kinds, names, namespaces, channels.

A shell waits for it, so it is quick or silent: without a mesh, or with one that does not answer within a second, nothing is
offered.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final

import typer

from eventing.errors import EventingError
from eventing.runtime.api_client import ApiClient

__all__ = ["complete_channels", "complete_namespaces", "complete_subscriptions", "complete_targets"]

_PATIENCE_S: Final = 1.0

Completer = Callable[[typer.Context, str], list[str]]


def _live(offer: Callable[Concatenate[ApiClient, typer.Context, str, ...], Iterable[str]]) -> Completer:
    """Run `offer` with a client of the mesh whose data directory the command line names; nothing where there is none."""

    @wraps(offer)
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        given = ctx.params.get("data_dir")
        try:
            with ApiClient.find(Path(given) if given else None, timeout_s=_PATIENCE_S) as client:
                return sorted(word for word in offer(client, ctx, incomplete) if word.startswith(incomplete))
        except EventingError:
            return []

    # What typer looks at to know which parameters to give.
    complete.__annotations__ = {"ctx": typer.Context, "incomplete": str}
    del complete.__wrapped__
    return complete


@_live
def complete_namespaces(client: ApiClient, _ctx: typer.Context, _incomplete: str) -> list[str]:
    return _names(client, "namespaces", "")


@_live
def complete_channels(client: ApiClient, ctx: typer.Context, _incomplete: str) -> list[str]:
    return _names(client, "channels.messaging.knative.dev", _namespace(ctx))


@_live
def complete_subscriptions(client: ApiClient, ctx: typer.Context, _incomplete: str) -> list[str]:
    return _names(client, "subscriptions.messaging.knative.dev", _namespace(ctx))


@_live
def complete_targets(client: ApiClient, ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """First a kind, then its names; after `channel/`, names too."""
    kind, slash, _ = incomplete.partition("/")
    if slash:
        return [f"{kind}/{name}" for name in _names(client, kind, _namespace(ctx))]
    words: list[str] = list(ctx.params.get("words") or ())
    if not words:
        return {name for resource in client.resources() for name in (resource.plural, *resource.short_names)}
    if "/" in words[0]:
        return [f"{resource.singular}/" for resource in client.resources()]
    return set(_names(client, words[0], _namespace(ctx))) - set(words[1:])


def _namespace(ctx: typer.Context) -> str:
    return str(ctx.params.get("namespace") or "default")


def _names(client: ApiClient, kind: str, namespace: str) -> list[str]:
    resource = client.resolve(kind)[0]
    listed = client.list(resource, namespace if resource.namespaced else "")
    return [str(item["metadata"]["name"]) for item in listed["items"]]
