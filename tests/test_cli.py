"""The command line over a made-up release."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from newfound.cli import app
from newfound.release.store import current, publish
from tests.release.gates import HELD
from tests.serving.synthetic import World, publish_world


def test_interests_are_listed_of_a_release_or_of_a_folder(tmp_path: Path) -> None:
    release = publish_world(World(), tmp_path / "releases", tmp_path / "parts").id
    told = CliRunner().invoke(app, ["clusters", "--releases", str(tmp_path / "releases")], env={"COLUMNS": "100"})
    assert told.exit_code == 0 and "24 interests" in told.output
    assert "interest 7" in told.output and told.output.count(" 30 ") == 24
    folder = tmp_path / "releases" / release / "clusters"
    again = CliRunner().invoke(app, ["clusters", "--folder", str(folder)], env={"COLUMNS": "100"})
    assert again.output == told.output


def test_releases_of_a_bucket_are_looked_at_and_rolled_back(tmp_path: Path) -> None:
    """Every command on a root that is no folder: docs/operations.md gives them s3:// URLs."""
    root = f"memory://{tmp_path.name}/releases"
    (tmp_path / "planner").mkdir()
    made = []
    for text in ("one", "two"):
        (tmp_path / "planner" / "model").write_text(text)
        parts = {"planner": tmp_path / "planner"}
        made.append(publish(parts, root, lineage={}, measures={}, fits={}, gates=HELD))

    def told(*words: str) -> str:
        done = CliRunner().invoke(app, ["release", *words, "--releases", root], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    assert f"planner: {made[1].planner_name}" in told("show")
    assert f"planner: {made[0].planner_name}" in told("show", made[0].id)
    assert "every digest holds" in told("verify")
    assert made[0].id in told("rollback") and current(root) == made[0].id
    assert made[1].id in told("promote", made[1].id) and current(root) == made[1].id
    name = str(made[0].planner_name)
    told("fetch-planner", str(tmp_path / "release"), "--planner", name)
    assert (tmp_path / "release" / name / "planner" / "model").read_text() == "one"
