"""Commands on releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from newfound.cli.shared import Root, cache, console, current_release
from newfound.release import store as releases
from newfound.release.new_items import read_new_items

release_app = typer.Typer(no_args_is_help=True, help="Releases: list, show, verify, fetch, add to, promote, roll back.")


@release_app.command("list")
def list_command(root: Root = "releases") -> None:
    """All releases, oldest first; the current one is marked."""
    current = releases.current(root)
    table = Table("", "release", "created", "data", "files", "MB")
    for manifest in releases.list_releases(root):
        size = sum(record.bytes for record in manifest.files.values()) / 1e6
        data = str(manifest.lineage.get("dataset", ""))
        mark = "*" if manifest.id == current else ""
        table.add_row(mark, manifest.id, manifest.created[:19], escape(data), str(len(manifest.files)), f"{size:.1f}")
    if table.row_count:
        console.print(table)
    else:
        console.print(f"no release in {escape(root)} yet; `make run` makes one")


@release_app.command("show")
def show_command(release: Annotated[str | None, typer.Argument()] = None, root: Root = "releases") -> None:
    """One release's lineage, measures, gates and flags (the current one's by default)."""
    manifest = releases.manifest_of(root, release or current_release(root))
    console.print(f"[bold]{manifest.id}[/bold], created {manifest.created}, in {escape(root)}")
    console.print(f"planner: {manifest.planner_name or 'none'}")
    for key, fit in manifest.fits.items():
        console.print(f"{escape(key)}: {escape(fit)}")
    console.print_json(json.dumps(manifest.lineage))
    gates = Table("gate", "value", "bound", "held", title="gates")
    for name, gate in manifest.gates.items():
        gates.add_row(name, f"{gate['value']:.4g}", f"{gate['bound']:.4g}", "yes" if gate["passed"] else "no")
    console.print(gates)
    for name, flag in manifest.flags.items():
        console.print(f"[yellow]flag {escape(name)}:[/] {escape(flag)}", soft_wrap=True)
    measures = Table("measure", "value", title="measures")
    for name, value in sorted(manifest.measures.items()):
        measures.add_row(escape(name), f"{value:.4f}" if isinstance(value, float) else escape(str(value)))
    console.print(measures)


@release_app.command("verify")
def verify_command(release: Annotated[str | None, typer.Argument()] = None, root: Root = "releases") -> None:
    """Checks every file of a release against its manifest, and the new items beside it."""
    manifest = releases.verify(root, release, cache())
    console.print(f"{manifest.id}: {len(manifest.files)} files, every digest holds")
    new = read_new_items(root, manifest.id)
    if new is not None:
        console.print(f"{len(new)} new items beside it, added by {new.made:%Y-%m-%d %H:%M:%S} UTC")


@release_app.command("fetch")
def fetch_command(
    folder: Annotated[Path, typer.Argument(help="Local folder; the release becomes a folder of its id in it.")],
    release: Annotated[str | None, typer.Option(help="The release; the current one by default.")] = None,
    root: Root = "releases",
) -> None:
    """Copies a release to a local folder and verifies the copy."""
    fetched = releases.fetch(root, release, folder)
    console.print(f"{fetched.id}: {len(fetched.manifest.files)} files in {fetched.path}, every digest holds")


@release_app.command("fetch-planner")
def fetch_planner_command(
    folder: Annotated[Path, typer.Argument(help="Local folder; the planner goes to NAME/planner in it.")],
    planner: Annotated[str, typer.Option(help="The planner's name, as `newfound release show` tells it.")],
    root: Root = "releases",
) -> None:
    """Copies a planner out of whichever release has it, and verifies the copy."""
    fetched = releases.fetch_planner(root, planner, folder)
    console.print(f"{planner} of {fetched.id}: in {fetched.path}/planner, every digest holds")


@release_app.command("promote")
def promote_command(release: str, root: Root = "releases") -> None:
    """Points `current` at a release, once that one is verified; lifts what a rollback holds."""
    manifest = releases.promote(root, release, cache())
    console.print(f"current is now {manifest.id}")


@release_app.command("rollback")
def rollback_command(
    to: Annotated[str | None, typer.Option(help="The release to go to; the one before by default.")] = None,
    root: Root = "releases",
) -> None:
    """Points `current` at an earlier release, once that one is verified, and holds it there until one is promoted."""
    manifest = releases.rollback(root, to, cache())
    console.print(f"current is now {manifest.id}, and held: later releases serve once one is promoted")


@release_app.command("add-items")
def add_items_command(
    items: Annotated[str, typer.Argument(help="CSV or Parquet: item_id, title; perhaps text, categories.")],
    release: Annotated[str | None, typer.Option(help="The release; the current one by default.")] = None,
    skip_known: Annotated[bool, typer.Option(help="Pass over items of the release itself.")] = False,
    replace: Annotated[bool, typer.Option(help="Drop what was added before, damaged or not.")] = False,
    root: Root = "releases",
) -> None:
    """Adds items that appeared after a release was made; its services recommend them within seconds."""
    from newfound.recommend.adding import add_items

    added = add_items(root, items, release, skip_known=skip_known, replace=replace)
    console.print(
        f"{added.release}: {added.added} items added, {added.unchanged} there already, {added.known} of the release "
        f"itself passed over; {added.whole} new items now",
        soft_wrap=True,
    )
