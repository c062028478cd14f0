"""A rehearsal empties no folder that it did not make."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitoring.rehearsal.monitor import _make_anew
from newfound.errors import ConfigError


def test_a_persons_folder_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="not a rehearsal's folder"):
        _make_anew(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_its_own_folder_is_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _make_anew(out)
    (out / "events.db").touch()
    _make_anew(out)
    assert not (out / "events.db").exists()
