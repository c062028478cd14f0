"""Commands on the transition tables of releases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from newfound.cli.shared import Root, cache, console
from newfound.errors import NewfoundError
from newfound.files import write_text
from newfound.release import store as releases

if TYPE_CHECKING:
    from newfound.clusters import Clusters

table_app = typer.Typer(no_args_is_help=True, help="The transition table of a release: show, diff, drift.")


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

    loaded = releases.load(root, release, cache())
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

    old, new = (releases.load(root, name, cache()) for name in (before, after))
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
    folders = [releases.load(root, manifest.id, cache()).path / "table" for manifest in made]
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
