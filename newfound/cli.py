"""The command line: look at releases, tables and recommendations. Errors are one line; tracebacks are for bugs."""

from __future__ import annotations

import atexit
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from newfound.errors import NewfoundError, ReleaseError
from newfound.files import write_text
from newfound.release import store as releases
from newfound.release.storage import Storage
from newfound.release.takedown import Takedown, change_takedown, read_takedown, start_takedown

if TYPE_CHECKING:
    from newfound.clusters import Clusters

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Recommendations of interests that are new.")
release_app = typer.Typer(no_args_is_help=True, help="Releases: list, show, verify, fetch, promote, roll back.")
app.add_typer(release_app, name="release")
takedown_app = typer.Typer(no_args_is_help=True, help="The takedown list: start, show, add, remove.")
app.add_typer(takedown_app, name="takedown")
table_app = typer.Typer(no_args_is_help=True, help="The transition table of a release: show, diff, drift.")
app.add_typer(table_app, name="table")

Root = Annotated[str, typer.Option("--releases", help="Folder or URL of all releases.")]
ItemIds = Annotated[list[str] | None, typer.Option(help="An item's id; may be repeated.")]
ClusterIds = Annotated[list[str] | None, typer.Option(help="A cluster's id; may be repeated.")]
console = Console()


def _cache() -> Path:
    """A folder for releases of a remote root, gone when the command has ended."""
    folder = Path(tempfile.mkdtemp(prefix="newfound-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _current(root: str) -> str:
    """Id of the current release.

    Raises:
        ReleaseError: there is none.
    """
    release = releases.current(root)
    if release is None:
        raise ReleaseError(f"{root}: no release was published yet")
    return release


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
    manifest = releases.manifest_of(root, release or _current(root))
    console.print(f"[bold]{manifest.id}[/bold], created {manifest.created}, in {escape(root)}")
    console.print(f"planner: {manifest.planner_name or 'none'}")
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
    manifest = releases.verify(root, release, _cache())
    console.print(f"{manifest.id}: {len(manifest.files)} files, every digest holds")


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
    manifest = releases.promote(root, release, _cache())
    console.print(f"current is now {manifest.id}")


@release_app.command("rollback")
def rollback_command(
    to: Annotated[str | None, typer.Option(help="The release to go to; the one before by default.")] = None,
    root: Root = "releases",
) -> None:
    """Points `current` at an earlier release, once that one is verified, and holds it there until one is promoted."""
    manifest = releases.rollback(root, to, _cache())
    console.print(f"current is now {manifest.id}, and held: later releases serve once one is promoted")


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


@table_app.command("show")
def table_show_command(
    interests: Annotated[
        list[str] | None, typer.Argument(help="Interests by description or id, oldest first; none: a summary.")
    ] = None,
    release: Annotated[str | None, typer.Option(help="The current one by default.")] = None,
    root: Root = "releases",
) -> None:
    """Answers of the table after two interests; without any, the spread of its best answers."""
    from newfound.clusters import Clusters
    from newfound.table import TransitionTable
    from newfound.table.compare import spread_of

    loaded = releases.load(root, release, _cache())
    clusters = Clusters.load(loaded.path / "clusters")
    table = TransitionTable.load(loaded.path / "table", clusters)
    if interests:
        context = tuple(_interest(clusters, name) for name in interests)
        successors = table.successors(context)
        if successors is None:
            raise NewfoundError(f"release {loaded.id}: the table does not hold this context")
        shown = Table("", "interest", "log-probability", "source", title=" then ".join(map(escape, interests)))
        for rank, (cluster, score, source) in enumerate(successors, 1):
            shown.add_row(str(rank), escape(clusters.description_of(cluster)), f"{score:.3f}", source)
        console.print(shown)
        return
    best = Counter(answers[0].cluster for context in table.contexts() if (answers := table.successors(context)))
    counts = [best[cluster] for cluster in clusters.interface]
    shown = Table("most answered", "contexts", title=f"{len(table)} contexts, {len(counts)} interests")
    for cluster, count in best.most_common(10):
        shown.add_row(escape(clusters.description_of(cluster)), str(count))
    console.print(shown)
    for name, value in spread_of(counts).items():
        console.print(f"{name.replace('_', ' ')}: {value:.3f}")


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

    clusters = Clusters.load(folder or releases.load(root, release, _cache()).path / "clusters")
    shown = Table("", "interest", "items", "share", title=f"{len(clusters.interface)} interests")
    for cluster, description, share in zip(clusters.interface, clusters.descriptions, clusters.traffic, strict=True):
        start, stop = clusters.slice_of(cluster)
        shown.add_row(cluster, escape(description), str(stop - start), f"{share:.4f}")
    console.print(shown)


@table_app.command("diff")
def table_diff_command(
    before: str,
    after: str,
    page: Annotated[Path | None, typer.Option(help="Write it as an HTML page as well, pair by pair.")] = None,
    root: Root = "releases",
) -> None:
    """Changes from one release's table to another's."""
    from newfound.clusters import Clusters
    from newfound.table import compare_tables

    old, new = (releases.load(root, name, _cache()) for name in (before, after))
    diff = compare_tables(old.path / "table", new.path / "table")
    shown = Table("measure", "value", title=f"{old.id} to {new.id}")
    for name, value in diff.measures().items():
        shown.add_row(name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else str(value))
    console.print(shown)
    clusters = Clusters.load(new.path / "clusters")
    for title, labels in (("gained", diff.labels_gained), ("lost", diff.labels_lost)):
        names = [clusters.description_of(label) if label in clusters.index else label for label in labels]
        if names:
            console.print(f"{title}: {escape('; '.join(names))}")
    if page is not None:
        from newfound.evaluation.report.table_changes import render_changes

        write_text(page, render_changes(diff, clusters))
        console.print(f"{escape(str(page))} written")


@table_app.command("drift")
def table_drift_command(root: Root = "releases") -> None:
    """Each release's table against the one before it."""
    from newfound.table.compare import drift

    made = releases.list_releases(root)
    folders = [releases.load(root, manifest.id, _cache()).path / "table" for manifest in made]
    shown = Table("release", "pairs changed", "successor Jaccard", "labels gained", "labels lost", "Gini", "head share")
    for manifest, diff in zip(made[1:], drift(folders), strict=True):
        shown.add_row(
            manifest.id,
            f"{diff.pairs_changed:.3f}",
            f"{diff.successor_jaccard:.3f}",
            str(len(diff.labels_gained)),
            str(len(diff.labels_lost)),
            f"{diff.gini_after:.3f}",
            f"{diff.head_share_after:.3f}",
        )
    if shown.row_count:
        console.print(shown)
    else:
        console.print("drift needs at least two releases")


def _interest(clusters: Clusters, name: str) -> str:
    """The interface cluster of an id or a description."""
    if name in clusters.index:
        return name
    by_description = {
        text.casefold(): node for node, text in zip(clusters.interface, clusters.descriptions, strict=True)
    }
    if name.casefold() not in by_description:
        raise NewfoundError(
            f"no interest is called {name!r}; expected a description or an id of the release's clusters"
        )
    return by_description[name.casefold()]


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

    loaded = releases.load(root, release, _cache())
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
