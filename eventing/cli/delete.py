"""`eventing delete`: objects away, and everything that they own."""

import time
from collections.abc import Iterator
from typing import Annotated

import typer

from eventing.cli.apply import namespace_of
from eventing.cli.completion import complete_namespaces, complete_targets
from eventing.cli.objects import Faults, api_client, targets
from eventing.cli.terminal import DataDir, printable
from eventing.errors import ObjectNotFoundError
from eventing.runtime.api_client import ApiClient, ApiResource

__all__ = ["delete"]


def delete(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TYPE[/NAME] [NAME]",
            help="A kind and names of it.",
            autocompletion=complete_targets,
            show_default=False,
        ),
    ] = None,
    *,
    filename: Annotated[
        list[str] | None, typer.Option("--filename", "-f", metavar="FILE|DIR|-", help="Delete what is in the file; repeatable.")
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", "-n", help="Namespace of the objects.", show_default="default", autocompletion=complete_namespaces
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All of the kind in the namespace.")] = False,
    selector: Annotated[str, typer.Option("--selector", "-l", metavar="LABEL=VALUE", help="Those with the labels.")] = "",
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="What is not there is no failure.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is gone.")] = True,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for each.")] = 60.0,
    data_dir: DataDir = None,
) -> None:
    """Delete objects. What they own goes with them; what was accepted for them and is not delivered yet is dropped.

    Exit code 3: one that was named is not there.

    Example: eventing delete subscription bookkeeping

    Example: eventing delete -f invoices.yaml
    """
    if bool(words) == bool(filename):
        raise typer.BadParameter("give a kind with names, or --filename")
    faults = Faults()
    with api_client(data_dir) as client:
        chosen = (
            _of_files(client, filename, namespace)
            if filename
            else _of_words(client, words or [], namespace or "default", every=every, selector=selector)
        )
        for resource, where, name in list(chosen):
            with faults.collected():
                try:
                    uid = client.delete(resource, where, name)
                except ObjectNotFoundError:
                    if ignore_not_found:
                        continue
                    raise
                typer.echo(printable(f'{resource.singular_qualified} "{name}" deleted'))
                if wait and (left := client.wait_gone(resource, where, name, uid, time.monotonic() + timeout)):
                    holders = ", ".join(left["metadata"].get("finalizers") or ()) or "what is in it"
                    faults.tell(
                        f"{resource.singular_qualified}/{name} is still there after {timeout:g} s: it waits for {holders}"
                    )
    faults.end()


def _of_words(
    client: ApiClient, words: list[str], namespace: str, *, every: bool, selector: str
) -> Iterator[tuple[ApiResource, str, str]]:
    for target in targets(client, words):
        where = namespace if target.resource.namespaced else ""
        if target.name:
            if every or selector:
                raise typer.BadParameter("names cannot be given together with --all or --selector")
            yield target.resource, where, target.name
        elif every or selector:
            for item in client.list(target.resource, where, labels=selector)["items"]:
                yield target.resource, where, str(item["metadata"]["name"])
        else:
            raise typer.BadParameter(f"which {target.resource.plural}? Give names, --selector or --all")


def _of_files(client: ApiClient, sources: list[str], namespace: str | None) -> Iterator[tuple[ApiResource, str, str]]:
    """In the order of the files, as kubectl does it."""
    from eventing.runtime import manifests  # YAML is slow to import

    for manifest in manifests.read(sources):
        body = manifest.body
        resource = client.kind(body["apiVersion"], body["kind"])
        yield resource, namespace_of(manifest, namespace) if resource.namespaced else "", str(body["metadata"]["name"])
