"""`eventing apply`: what is in the files holds."""

from contextlib import suppress
from typing import Annotated

import typer

from eventing.cli.completion import complete_namespaces
from eventing.cli.objects import Faults, api_client
from eventing.cli.terminal import DataDir, printable
from eventing.errors import EventingError, ObjectNotFoundError
from eventing.runtime.api_client import ApiClient, Object
from eventing.runtime.manifests import Manifest

__all__ = ["Filename", "apply", "namespace_of"]

Filename = Annotated[
    list[str],
    typer.Option("--filename", "-f", metavar="FILE|DIR|-", help="YAML or JSON; may be given several times.", show_default=False),
]


def apply(
    *,
    filename: Filename,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            "-n",
            help="For objects that name none.",
            show_default="default",
            autocompletion=complete_namespaces,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all of it, keep nothing.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Make or change objects until they are as the files say. Fields that others have set are taken over.

    All of the files is read before the first object is applied. One that is refused does not stop the others; exit code 1.

    Example: eventing apply -f invoices.yaml
    """
    from eventing.runtime import manifests  # YAML is slow to import

    faults = Faults()
    given = manifests.read(filename)
    with api_client(data_dir) as client:
        for manifest in given:
            with faults.collected(f"{manifest.origin}: "):
                typer.echo(printable(_apply(client, manifest, namespace, dry_run=dry_run)))
    faults.end()


def _apply(client: ApiClient, manifest: Manifest, namespace: str | None, *, dry_run: bool) -> str:
    body = manifest.body
    name = str(body["metadata"]["name"])
    resource = client.kind(body["apiVersion"], body["kind"])
    where = namespace_of(manifest, namespace) if resource.namespaced else ""
    before: Object = {}
    with suppress(ObjectNotFoundError):
        before = client.get(resource, where, name)
    obj, made = client.apply(resource, where, body, dry_run=dry_run)
    changed = "unchanged" if before and _wanted(before) == _wanted(obj) else "configured"
    return f"{resource.singular_qualified}/{name} {'created' if made else changed}{' (dry run)' if dry_run else ''}"


def _wanted(obj: Object) -> Object:
    """What people write of an object: a status that was written meanwhile makes it no other one."""
    metadata = {name: obj["metadata"].get(name) for name in ("labels", "annotations", "finalizers", "ownerReferences")}
    return {**obj, "metadata": metadata, "status": None}


def namespace_of(manifest: Manifest, given: str | None) -> str:
    """Where the object belongs. Raises EventingError where the command line says one namespace and the file another."""
    own = manifest.body["metadata"].get("namespace")
    if own and given and own != given:
        raise EventingError(
            f"metadata.namespace: the object is of namespace {own}, --namespace says {given}: leave one of them out"
        )
    return str(own or given or "default")
