"""What a person sees of a table, and of what changed between two: on the command line and on a page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from components.judge_refresh import judge_refresh
from newfound.cli import app
from newfound.clusters import Clusters
from newfound.evaluation.report.table_changes import render_changes, write_changes
from newfound.release.store import Manifest, publish
from newfound.table import compare_tables
from newfound.table.artifact import FILE
from tests.evaluation.report.test_page import parse
from tests.release.gates import HELD
from tests.serving.synthetic import World, write_release

CHANGED = 20  # contexts whose two best answers change places


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Manifest]]:
    """Two releases that differ in some answers of the table."""
    folder = tmp_path_factory.mktemp("changes")
    parts = write_release(World(clusters=8, items=6), folder / "parts")
    made = [_publish(parts, folder / "releases")]
    rows = np.load(parts["table"] / FILE)
    for row in rows[:CHANGED]:
        best, second = np.argsort(-row, kind="stable")[:2]
        row[best], row[second] = row[second], row[best]
    np.save(parts["table"] / FILE, rows)
    made.append(_publish(parts, folder / "releases"))
    return folder / "releases", made


def _publish(parts: dict[str, Path], root: Path) -> Manifest:
    return publish(parts, str(root), lineage={}, measures={}, fits={"files": "made up"}, gates=HELD)


def _run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["table", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def test_show_says_how_answers_spread_and_what_follows_two_interests(releases: tuple[Path, list[Manifest]]) -> None:
    root = str(releases[0])
    assert "56 contexts, 8 interests" in _run("show", "--releases", root)
    shown = _run("show", "interest 0", "c3", "--releases", root)
    assert shown.count("planner") == 6 and "interest 0 then c3" in shown
    refused = CliRunner().invoke(app, ["table", "show", "interest 99", "c3", "--releases", root])
    assert refused.exit_code != 0 and "interest 99" in str(refused.exception)


def test_diff_and_drift_count_what_changed(releases: tuple[Path, list[Manifest]], tmp_path: Path) -> None:
    root, (old, new) = str(releases[0]), releases[1]
    page = tmp_path / "changes.html"
    shown = _run("diff", old.id, new.id, "--releases", root, "--page", str(page))
    assert f"{CHANGED / 56:.4f}" in shown and "successor jaccard" in shown
    for measure in ("gini", "head share", "coverage", "labels gained", "labels lost"):
        assert measure in shown
    words = " ".join(parse(page.read_text(encoding="utf-8")).words)
    assert f"{CHANGED} of 56 have another answer" in words and "“interest 0” and “interest 1”" in words
    assert f"{CHANGED / 56:.3f}" in _run("drift", "--releases", root)


def test_text_of_items_stays_text_on_the_page(releases: tuple[Path, list[Manifest]]) -> None:
    root, (old, new) = releases
    diff = compare_tables(root / old.id / "table", root / new.id / "table")
    clusters = Clusters.load(root / new.id / "clusters")
    hostile = '<script>alert("x")</script>'
    tree = clusters.tree.to_pydict()
    tree["description"] = [
        hostile if node == "c1" else text for node, text in zip(tree["node"], tree["description"], strict=True)
    ]
    named = Clusters(pa.table(tree, schema=clusters.tree.schema), clusters.items, {"interface_level": 2})
    page = render_changes(diff, named)
    assert 'alert("x")' not in page and hostile in "".join(parse(page).words)
    # An interest that these clusters do not know is shown by its id, and a diff without changes is a page as well.
    strange = dataclasses.replace(diff, labels_gained=["gone<b>"])
    assert "gone<b>" in "".join(parse(render_changes(strange, clusters)).words)
    same = compare_tables(root / old.id / "table", root / old.id / "table")
    assert "None." in " ".join(parse(render_changes(same, clusters)).words)


def test_the_step_writes_the_page_even_where_a_gate_fails(
    releases: tuple[Path, list[Manifest]], tmp_path: Path
) -> None:
    root, (old, new) = releases
    written = SimpleNamespace(path=str(tmp_path / "changes.html"), metadata={})
    with pytest.raises(SystemExit):
        judge_refresh.python_func(
            SimpleNamespace(path=str(root / old.id / "table")),
            SimpleNamespace(path=str(root / new.id / "table")),
            SimpleNamespace(path=str(tmp_path / "no data set")),
            SimpleNamespace(path=str(root / new.id / "clusters")),
            json.dumps({"config": {}}),
            SimpleNamespace(path=str(tmp_path / "verdict.json"), metadata={}),
            written,
            SimpleNamespace(path=str(tmp_path / "metrics.json"), log_metric=lambda *_: None),
        )
    write_changes(root / old.id / "table", root / new.id / "table", root / new.id / "clusters", tmp_path / "b.html")
    assert Path(written.path).read_text() == (tmp_path / "b.html").read_text()
