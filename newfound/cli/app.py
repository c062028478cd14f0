"""All commands together, and those that are no group's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from newfound.cli.releases import release_app
from newfound.cli.shared import Root, cache, console
from newfound.cli.tables import table_app
from newfound.cli.takedown import takedown_app
from newfound.errors import NewfoundError
from newfound.release import store as releases
from newfound.release.new_items import find_new_items
from newfound.release.takedown import read_takedown

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Recommendations of interests that are new.")
app.add_typer(release_app, name="release")
app.add_typer(takedown_app, name="takedown")
app.add_typer(table_app, name="table")


@app.command("clusters")
def clusters_command(
    folder: Annotated[
        Path | None, typer.Option(help="Of clusters, such as runs/local/clusters; none: a release's.")
    ] = None,
    release: Annotated[str | None, typer.Option(help="The current one by default.")] = None,
    root: Root = "releases",
) -> None:
    """The interests that planner and ranker share: description, items, share of what is consumed."""
    from newfound.clusters import Clusters

    clusters = Clusters.load(folder or releases.load(root, release, cache()).path / "clusters")
    shown = Table("", "interest", "items", "share", title=f"{len(clusters.interface)} interests")
    for cluster, description, share in zip(clusters.interface, clusters.descriptions, clusters.traffic, strict=True):
        start, stop = clusters.slice_of(cluster)
        shown.add_row(cluster, escape(description), str(stop - start), f"{share:.4f}")
    console.print(shown)


@app.command("generate")
def generate_command(
    out: Annotated[Path, typer.Argument(help="Folder; it holds interactions, items and interests as Parquet.")],
    interactions: Annotated[int, typer.Option(min=1)] = 1_000_000,
    users: Annotated[int, typer.Option(min=1)] = 10_000,
    items: Annotated[int, typer.Option(min=1)] = 10_000,
    clusters: Annotated[int, typer.Option(min=1, help="Latent interests.")] = 60,
    like: Annotated[str, typer.Option(help="The measured data set whose shape it takes.")] = "movielens",
    seed: Annotated[int, typer.Option(help="Same arguments, same files.")] = 0,
) -> None:
    """Generates a data set of any size, in the shape of a real one: loader `files` reads it."""
    from newfound.datasets.generated.generate import generate
    from newfound.datasets.generated.world import Size

    made = generate(Size(interactions, users, items, clusters, seed), like, out)
    console.print(f"{', '.join(f'{count:,} {name}' for name, count in made.items())} in {escape(str(out))}")


@app.command("recommend")
def recommend_command(
    user: Annotated[str | None, typer.Option(help="A user of the training run.")] = None,
    history: Annotated[str | None, typer.Option(help="Items instead of a user, oldest first: 50,181,258.")] = None,
    k: Annotated[int, typer.Option(min=1, max=1000)] = 10,
    novel: Annotated[
        int | None, typer.Option(min=0, max=1000, help="Slots for new interests; by appetite if absent.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same slate.")] = 0,
    release: Annotated[str | None, typer.Option(help="The current one by default.")] = None,
    root: Root = "releases",
    histories: Annotated[Path, typer.Option(help="Histories of the training run.")] = Path("runs/local/histories"),
) -> None:
    """Recommends items, some of them from interests that the user never had, each with its reason."""
    from newfound.recommend.recommender import Recommender, history_of_items, history_of_user

    loaded = releases.load(root, release, cache())
    takedown, new = read_takedown(root), find_new_items(root, loaded.id)
    recommender = Recommender.open(loaded.path, takedown=takedown, new=new)
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
