"""Base models: a file that is none, or is damaged, is refused by its name, and nothing is left behind."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from newfound.errors import DataError
from newfound.planner.base_model import unpack
from tests.fuzz.gguf_model import SEEDS


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(100), b"no model at all", b"GGUF" + b"\xff" * 4096])
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.gguf: cannot be read"):
        unpack(file, tmp_path / "base")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_an_array_that_claims_more_than_the_file_holds_keeps_nobody_busy(tmp_path: Path) -> None:
    """The reader would count to 2^60."""
    file = tmp_path / "model.gguf"
    file.write_bytes(SEEDS[-1])
    began = time.process_time()
    with pytest.raises(DataError, match=r"model\.gguf: .*more than are left"):
        unpack(file, tmp_path / "base")
    assert time.process_time() - began < 10


def test_a_model_with_parts_missing_or_damaged_is_refused_by_name(tmp_path: Path) -> None:
    file, whole, draw = tmp_path / "model.gguf", SEEDS[0], random.Random(0)
    for turn in range(60):
        content = bytearray(whole)
        for _ in range(turn):  # the first is as it was made
            content[draw.randrange(len(content))] = draw.randrange(256)
        file.write_bytes(bytes(content[: draw.choice((len(content), draw.randrange(len(content))))]))
        with pytest.raises(DataError, match=r"model\.gguf: cannot be read"):
            unpack(file, tmp_path / "base")
        assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
