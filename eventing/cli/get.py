"""`eventing get`: objects as tables, or whole."""

from typing import Annotated, Any, Literal

import typer

from eventing.cli.completion import complete_targets
from eventing.cli.objects import Faults, Namespace, Selector, Target, api_client, targets
from eventing.cli.tables import rows_of, write_table
from eventing.cli.terminal import DataDir, printable
from eventing.runtime.api_client import ApiClient, Object

__all__ = ["get"]

Output = Literal["table", "wide", "name", "json", "yaml"]


def get(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="TYPE[/NAME] [NAME]",
            help="A kind (channels, ch, subscriptions, all …), and names of it.",
            autocompletion=complete_targets,
            show_default=False,
        ),
    ],
    *,
    namespace: Namespace = "default",
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    selector: Selector = "",
    output: Annotated[Output, typer.Option("--output", "-o", help="A table, names, or the objects whole.")] = "table",
    data_dir: DataDir = None,
) -> None:
    """Show objects of the running mesh: the same tables that kubectl shows.

    Exit code 3: one that was named is not there.

    Example: eventing get channels,subscriptions -A

    Example: eventing get subscription bookkeeping -o yaml
    """
    faults = Faults()
    with api_client(data_dir) as client:
        chosen = targets(client, words)
        if selector and any(target.name for target in chosen):
            raise typer.BadParameter("--selector chooses among all: leave the names out")
        if all_namespaces and any(target.name for target in chosen):
            raise typer.BadParameter("a name is of one namespace: give --namespace instead of --all-namespaces")
        if output in {"table", "wide"}:
            _tables(client, chosen, namespace, selector, faults, wide=output == "wide", everywhere=all_namespaces)
        else:
            _whole(client, chosen, "" if all_namespaces else namespace, selector, faults, output)
    faults.end()


def _tables(
    client: ApiClient, chosen: list[Target], namespace: str, selector: str, faults: Faults, *, wide: bool, everywhere: bool
) -> None:
    """One table for each kind; where there are several, names tell the kind, as with kubectl."""
    found: dict[str, Object] = {}
    for target in chosen:
        resource = target.resource
        where = namespace if resource.namespaced and not everywhere else ""
        with faults.collected():
            if target.name:
                table = client.get(resource, where, target.name, table=True)
            else:
                table = client.list(resource, where, labels=selector, table=True)
            if resource.qualified in found:
                found[resource.qualified]["rows"] += table["rows"]
            elif table["rows"]:
                found[resource.qualified] = {**table, "resource": resource}
    for number, table in enumerate(found.values()):
        resource = table["resource"]
        prefix = f"{resource.singular_qualified}/" if len({target.resource for target in chosen}) > 1 else ""
        if number:
            typer.echo()
        write_table(rows_of(table, wide=wide, prefix=prefix, namespaces=everywhere and resource.namespaced))
    if not found and not any(target.name for target in chosen):
        namespaced = any(target.resource.namespaced for target in chosen) and not everywhere
        typer.echo("No resources found" + (f" in {printable(namespace)} namespace." if namespaced else "."), err=True)


def _whole(client: ApiClient, chosen: list[Target], namespace: str, selector: str, faults: Faults, output: str) -> None:
    items: list[tuple[Target, Object]] = []
    for target in chosen:
        where = namespace if target.resource.namespaced else ""
        with faults.collected():
            if target.name:
                items.append((target, client.get(target.resource, where, target.name)))
            else:
                listed = client.list(target.resource, where, labels=selector)["items"]
                items += (
                    (target, {"apiVersion": target.resource.api_version, "kind": target.resource.kind, **item}) for item in listed
                )
    if output == "name":
        for target, obj in items:
            typer.echo(printable(f"{target.resource.singular_qualified}/{obj['metadata']['name']}"))
        return
    objects = [_shown(obj) for _, obj in items]
    if len(chosen) == 1 and chosen[0].name:
        if objects:
            typer.echo(dump(objects[0], output), nl=False)
        return
    typer.echo(
        dump({"apiVersion": "v1", "items": objects, "kind": "List", "metadata": {"resourceVersion": ""}}, output), nl=False
    )


def _shown(obj: Object) -> Object:
    """Without the record of who set which field, which kubectl hides too."""
    return {**obj, "metadata": {name: value for name, value in obj["metadata"].items() if name != "managedFields"}}


def dump(document: Any, output: str) -> str:
    """JSON or YAML text, in the order of names."""
    if output == "json":
        import json

        return json.dumps(document, indent=4, sort_keys=True) + "\n"
    import yaml  # slow to import, and not needed for tables

    text: str = yaml.safe_dump(document, sort_keys=True, allow_unicode=True, width=10_000)
    return text
