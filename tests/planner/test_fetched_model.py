"""A base model at a URL: fetched, and held against the digests that the configuration vouches for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from newfound.config import PlannerConfig
from newfound.errors import ConfigError, DataError
from newfound.planner.base_model import base_model
from newfound.planner.fetched_model import SUMS
from pipelines.settings import settings_of
from pipelines.training import STEPS

URL = "memory://models/base"


@pytest.fixture
def stored(planner_world: Path) -> Iterator[str]:
    """The tiny model in an object store, with what `sha256sum * > SHA256SUMS` writes; gives that file's digest."""
    fs = fsspec.filesystem("memory")
    lines = []
    for file in sorted((planner_world / "base").iterdir()):
        content = file.read_bytes()
        fs.pipe_file(f"/models/base/{file.name}", content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {file.name}\n")
    sums = "".join(lines).encode()
    fs.pipe_file(f"/models/base/{SUMS}", sums)
    yield hashlib.sha256(sums).hexdigest()
    fs.rm("/models", recursive=True)


def _put(name: str, content: bytes) -> str:
    fsspec.filesystem("memory").pipe_file(f"/models/base/{name}", content)
    return hashlib.sha256(content).hexdigest()


def test_it_is_the_folder_that_was_put_there(stored: str, planner_world: Path, tmp_path: Path) -> None:
    found = base_model(URL, tmp_path / "model", stored)
    before = {file.name: file.read_bytes() for file in (planner_world / "base").iterdir()}
    assert {file.name: file.read_bytes() for file in found.iterdir() if file.name != SUMS} == before
    assert base_model(URL, tmp_path / "model", stored) == found, "fetched once"


def test_another_ones_list_is_refused_before_anything_is_fetched(stored: str, tmp_path: Path) -> None:
    _put("config.json", b"{}")
    with pytest.raises(DataError, match=rf"{SUMS}.*sha256"):
        base_model(URL, tmp_path / "model", "0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", [b"{}", b""])
def test_a_changed_file_is_refused(stored: str, tmp_path: Path, harm: bytes) -> None:
    _put("config.json", harm)
    with pytest.raises(DataError, match=r"config\.json.*sha256"):
        base_model(URL, tmp_path / "model", stored)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a/b", "..", ""])
def test_a_name_that_leads_out_is_refused(stored: str, tmp_path: Path, name: str) -> None:
    digest = _put(SUMS, f"{'0' * 64}  {name}\n".encode())
    with pytest.raises(DataError, match="plain names"):
        base_model(URL, tmp_path / "model", digest)


@pytest.mark.parametrize(("text", "told"), [("", "config.json"), ("x  config.json\n", "sha256sum"), ("é", "sha256sum")])
def test_a_list_that_is_none_is_refused(stored: str, tmp_path: Path, text: str, told: str) -> None:
    digest = _put(SUMS, text.encode("latin-1"))
    with pytest.raises(DataError, match=told):
        base_model(URL, tmp_path / "model", digest)


def test_what_is_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"memory://nowhere/{SUMS}: cannot be fetched"):
        base_model("memory://nowhere", tmp_path / "model", "0" * 64)


def test_a_url_without_its_digest_is_no_configuration() -> None:
    with pytest.raises(ValueError, match="planner.model at a URL needs `model_sha256`"):
        PlannerConfig(model=URL)
    with pytest.raises(ValueError, match="model_sha256"):
        PlannerConfig(model=URL, model_sha256="abc")


def test_its_digest_stands_for_it_in_caches(stored: str) -> None:
    """Whatever the store says: a folder there has no version of its own."""
    from newfound.config import TrainingConfig

    def read(digest: str) -> dict[str, str]:
        config = TrainingConfig.model_validate({"planner": {"model": URL, "model_sha256": digest}})
        return settings_of(STEPS, config, "image")

    assert read(stored) == read(stored)
    assert read(stored)["planner"] != read("0" * 64)["planner"]


def test_configurations_tell_how(tmp_path: Path) -> None:
    from newfound.config import load_config

    file = tmp_path / "mine.yaml"
    file.write_text(f"planner: {{model: '{URL}'}}")
    with pytest.raises(ConfigError, match="SHA256SUMS"):
        load_config(file)
