"""Commands on the takedown list."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from newfound.cli.shared import Root, console
from newfound.release.storage import Storage
from newfound.release.takedown import Takedown, change_takedown, read_takedown, start_takedown

takedown_app = typer.Typer(no_args_is_help=True, help="The takedown list: start, show, add, remove.")
ItemIds = Annotated[list[str] | None, typer.Option(help="An item's id; may be repeated.")]
ClusterIds = Annotated[list[str] | None, typer.Option(help="A cluster's id; may be repeated.")]


@takedown_app.command("start")
def takedown_start_command(root: Root = "releases") -> None:
    """Writes an empty list where there is none, as for releases that were published before there were lists."""
    done = start_takedown(Storage(root))
    console.print("an empty list was written" if done else "there is a list already; it stays as it is")


@takedown_app.command("show")
def takedown_show_command(root: Root = "releases") -> None:
    """Items and interests that must not be shown any more."""
    _show_takedown(read_takedown(root))


@takedown_app.command("add")
def takedown_add_command(item: ItemIds = None, cluster: ClusterIds = None, root: Root = "releases") -> None:
    """Takes items and clusters down, within seconds, whatever release serves."""
    items, clusters = frozenset(item or ()), frozenset(cluster or ())
    _show_takedown(change_takedown(root, lambda old: Takedown(old.items | items, old.clusters | clusters)))


@takedown_app.command("remove")
def takedown_remove_command(item: ItemIds = None, cluster: ClusterIds = None, root: Root = "releases") -> None:
    """Lets items and clusters be shown again."""
    items, clusters = frozenset(item or ()), frozenset(cluster or ())
    _show_takedown(change_takedown(root, lambda old: Takedown(old.items - items, old.clusters - clusters)))


def _show_takedown(takedown: Takedown) -> None:
    for kind, ids in (("items", takedown.items), ("clusters", takedown.clusters)):
        console.print(f"{kind}: {escape(', '.join(sorted(ids))) or 'none'}")
