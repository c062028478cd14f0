"""The command line over a made-up release."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from newfound.cli import app
from tests.serving.synthetic import World, publish_world


def test_interests_are_listed_of_a_release_or_of_a_folder(tmp_path: Path) -> None:
    release = publish_world(World(), tmp_path / "releases", tmp_path / "parts").id
    told = CliRunner().invoke(app, ["clusters", "--releases", str(tmp_path / "releases")], env={"COLUMNS": "100"})
    assert told.exit_code == 0 and "24 interests" in told.output
    assert "interest 7" in told.output and told.output.count(" 30 ") == 24
    folder = tmp_path / "releases" / release / "clusters"
    again = CliRunner().invoke(app, ["clusters", "--folder", str(folder)], env={"COLUMNS": "100"})
    assert again.output == told.output
