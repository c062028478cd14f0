"""The command line: look at releases, tables and recommendations. Errors are one line; tracebacks are for bugs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from newfound import release as releases
from newfound.errors import NewfoundError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Recommendations of interests that are new.")
release_app = typer.Typer(no_args_is_help=True, help="Releases: list, show, verify, roll back.")
app.add_typer(release_app, name="release")

Root = Annotated[str, typer.Option("--releases", help="Folder or URL of all releases.")]
console = Console()


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
    """One release's lineage, measures and gates (the current one's by default)."""
    loaded = releases.load(root, release)
    manifest = loaded.manifest
    console.print(f"[bold]{manifest.id}[/bold], created {manifest.created}, in {escape(str(loaded.path))}")
    for key, fit in manifest.fits.items():
        console.print(f"{escape(key)}: {escape(fit)}")
    console.print_json(json.dumps(manifest.lineage))
    gates = Table("gate", "value", "bound", "held", title="gates")
    for name, gate in manifest.gates.items():
        gates.add_row(name, f"{gate['value']:.4g}", f"{gate['bound']:.4g}", "yes" if gate["passed"] else "no")
    console.print(gates)
    measures = Table("measure", "value", title="measures")
    for name, value in sorted(manifest.measures.items()):
        measures.add_row(escape(name), f"{value:.4f}" if isinstance(value, float) else escape(str(value)))
    console.print(measures)


@release_app.command("verify")
def verify_command(release: Annotated[str | None, typer.Argument()] = None, root: Root = "releases") -> None:
    """Checks every file of a release against its manifest."""
    manifest = releases.verify(root, release)
    console.print(f"{manifest.id}: {len(manifest.files)} files, every digest holds")


@release_app.command("rollback")
def rollback_command(
    to: Annotated[str | None, typer.Option(help="The release to go to; the one before by default.")] = None,
    root: Root = "releases",
) -> None:
    """Points `current` at an earlier release, once that one is verified."""
    manifest = releases.rollback(root, to)
    console.print(f"current is now {manifest.id}")


@app.command("recommend")
def recommend_command(
    user: Annotated[str | None, typer.Option(help="A user of the training run.")] = None,
    history: Annotated[str | None, typer.Option(help="Items instead of a user, oldest first: 50,181,258.")] = None,
    k: Annotated[int, typer.Option(min=1, max=1000)] = 10,
    novel: Annotated[int | None, typer.Option(min=0, help="Slots for new interests; by appetite if absent.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same slate.")] = 0,
    release: Annotated[str | None, typer.Option(help="The current one by default.")] = None,
    root: Root = "releases",
    histories: Annotated[Path, typer.Option(help="Histories of the training run.")] = Path("runs/local/histories"),
) -> None:
    """Recommends items, some of them from interests that the user never had, each with its reason."""
    from newfound.recommend import Recommender, history_of_items, history_of_user

    loaded = releases.load(root, release)
    recommender = Recommender.open(loaded.path)
    if (user is None) == (history is None):
        raise typer.BadParameter("give either --user or --history")
    if user is not None:
        past = history_of_user(histories, user)
    else:
        past = history_of_items([item.strip() for item in (history or "").split(",") if item.strip()])
    slate = recommender.recommend(past, k=k, novel=novel, seed=seed)
    table = Table("item", "title", "slot", "interest", "why", title=f"release {loaded.id}")
    for entry in slate.items:
        style = "bold green" if entry.slot == "novel" else None
        because = f"because {' and '.join(entry.because)}" if entry.because else entry.reason
        table.add_row(
            escape(entry.item), escape(entry.title), entry.slot, escape(entry.interest), escape(because), style=style
        )
    console.print(table)


def main() -> None:
    """Runs the command line; an error that newfound raised on purpose becomes one line and exit status 1."""
    try:
        app()
    except NewfoundError as error:
        Console(stderr=True).print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
