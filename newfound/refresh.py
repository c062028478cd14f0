"""A refresh: the transition table anew, its planner's rows fitted to recent choices, judged against the old one.

Nothing is read again: the planner's states stay. Both tables are judged on the latest events, which neither has seen:
the new one is built from what came before the cut for that, and once more from everything when it has passed.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Final

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import RefreshConfig, TableConfig
from newfound.gates import Check, require
from newfound.planner.prompt import has_planner
from newfound.release import store as releases

log: Final = logging.getLogger("newfound.refresh")
JUDGED_AT: Final = 10


def open_parts(root: str, release: str, out: dict[str, Path], cache: Path) -> dict[str, float | int | str]:
    """Copies the parts of a verified release to where they are wanted.

    Args:
        root: folder or URL of all releases.
        release: its id.
        out: folder by name of the part; a release without a language model leaves the planner's empty.
        cache: local folder for a remote root.
    """
    found = releases.load(root, release, cache)
    for name, folder in out.items():
        source = found.path / name
        folder.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, folder, dirs_exist_ok=True)
        else:
            (folder / "absent").touch()
    return {"release": found.id, "has_planner": int(has_planner(out["planner"]))}


def refresh_table(
    planner: Path, clusters: Path, transitions: Path, config: TableConfig, recent: float, out: Path
) -> dict[str, float | int | str]:
    """Builds the table from recent choices: the planner's rows are fitted to them, or pair frequencies counted.

    Args:
        planner: the release's planner.
        clusters: the release's clusters.
        transitions: folder of the mined transitions.
        config: of the table.
        recent: share of the transitions, the latest, that count as recent.
        out: the table's folder.
    """
    from newfound.table import build_table

    return build_table(planner, clusters, transitions, config.model_copy(update={"recent": recent}), out)


def judge(
    before: Path, after: Path, dataset: Path, clusters: Path, size: int, config: RefreshConfig
) -> tuple[dict[str, float | int | str], dict[str, dict[str, Any]]]:
    """Measures two tables on the novel events after the cut, and holds the new one against the gates.

    Args:
        before: the table that serves.
        after: the new one, built from what came before the cut.
        dataset: whose cut it is.
        clusters: of both tables.
        size: interests in a context.
        config: the gates' bounds.

    Returns:
        Measures (recall of both, chance, what changed between them), and gates by name: value, bound, passed.

    Raises:
        GateError: names the gates that do not hold.
    """
    from newfound import measures
    from newfound.evaluation.moments import novel_events, read_journeys
    from newfound.evaluation.scorers import TableScorer
    from newfound.table import TransitionTable, compare_tables

    tree = Clusters.load(clusters)
    events = novel_events(read_journeys(dataset, tree, schema.GROUPS), size)
    found: dict[str, float | int | str] = {"events": len(events)}
    for name, folder in (("before", before), ("after", after)):
        scorer = TableScorer(TransitionTable.load(folder, tree), tree.interface)
        ranks = measures.ranks_of(scorer.scores(events), events.labels, events.seen)
        for k in (1, JUDGED_AT):
            found[f"{name}.novel_recall@{k}"] = measures.hit_rate(ranks, k)
    for k in (1, JUDGED_AT):
        blind = measures.chance(k, len(tree.interface), events.seen.sum(axis=1))
        found[f"chance.novel_recall@{k}"] = float(blind.mean()) if len(events) else 0.0
    diff = compare_tables(before, after)
    found.update({f"diff.{name}": value for name, value in diff.measures().items()})
    old, new = (float(found[f"{name}.novel_recall@{JUDGED_AT}"]) for name in ("before", "after"))
    gates = (
        Check("recall_ratio", new / old if old > 0 else float(new >= old), config.min_recall_ratio),
        Check("successor_jaccard", diff.successor_jaccard, config.min_successor_jaccard),
        Check("spread", 1 - diff.head_share_after, 1 - config.max_head_share),
    )
    return found, require(gates)


def publish_refreshed(
    root: str,
    release: str,
    table: Path,
    measures: dict[str, float | int | str],
    gates: dict[str, dict[str, Any]],
    cache: Path,
    *,
    promote: bool = True,
) -> releases.Manifest:
    """Publishes a release again with another table; everything else is the old release's, byte for byte.

    Args:
        root: folder or URL of all releases.
        release: whose other parts are kept.
        table: the new table.
        measures: of `judge`; they join the release's own as `refresh.<name>`.
        gates: of `judge`.
        cache: local folder for a remote root.
        promote: whether `current` moves to the new release, if the old one still serves; else it is a canary.
    """
    old = releases.load(root, release, cache)
    parts = {name: old.path / name for name in sorted({file.split("/")[0] for file in old.manifest.files})}
    refreshed = {f"refresh.{name}": value for name, value in measures.items()}
    return releases.publish(
        {**parts, "table": table},
        root,
        lineage={**old.manifest.lineage, "parents": [old.id], "kind": "refresh"},
        measures={**old.manifest.measures, **refreshed},
        fits={**old.manifest.fits, "table": "fitted to recent choices; judged on the latest events (refresh.*)"},
        gates={**old.manifest.gates, **{f"refresh.{name}": gate for name, gate in gates.items()}},
        flags=old.manifest.flags,
        promote=promote,
        expect=release,
    )
