"""Every committed configuration: it loads, names every setting, and says what the pipeline needs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from newfound.config import TrainingConfig, load_config
from newfound.errors import ConfigError
from newfound.settings import Settings
from pipelines.options import LOCAL, PRODUCTION, configured

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "pipelines" / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))


def _keys(model: type[Settings], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield above + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from _keys(field.annotation, f"{above}{name}.")


def _named(raw: dict[str, Any], keys: set[str], above: str = "") -> Iterator[str]:
    for name, value in raw.items():
        yield above + name
        if isinstance(value, dict) and any(key.startswith(f"{above}{name}.") for key in keys):
            yield from _named(value, keys, f"{above}{name}.")


def test_one_configuration_names_every_setting() -> None:
    keys = set(_keys(TrainingConfig))
    raw = yaml.safe_load((FOLDER / "local.yaml").read_text(encoding="utf-8"))
    assert set(_named(raw, keys)) == keys


@pytest.mark.parametrize("file", [file for file in FILES if file.stem != "local"], ids=lambda file: file.stem)
def test_the_others_name_what_differs(file: Path) -> None:
    """A value that is the default's already would go unheeded when the default changes."""
    keys, model = set(_keys(TrainingConfig)), TrainingConfig().model_dump(mode="json")
    named = set(_named(yaml.safe_load(file.read_text(encoding="utf-8")), keys))
    given = load_config(file).model_dump(mode="json")
    settings = {key for key in named if not isinstance(_value(model, key), dict)}
    same = {key for key in settings if _value(model, key) == _value(given, key)}
    assert same <= {"planner.model"}, "named, and the default"


def _value(settings: dict[str, Any], key: str) -> Any:
    return functools.reduce(lambda inner, name: inner[name], key.split("."), settings)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_configuration_explains_itself(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    sections = [at for at, line in enumerate(lines) if line.endswith(":") and not line.startswith((" ", "#"))]
    assert all(lines[at - 1].startswith("# ") for at in sections)
    assert max(map(len, lines)) <= 120


def test_there_is_one_for_every_environment() -> None:
    assert [file.stem for file in FILES] == ["local", "movietweetings", "production"]
    assert load_config(FOLDER / "movietweetings.yaml").split.cut == "global"


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    raw = yaml.safe_load((FOLDER / "local.yaml").read_text(encoding="utf-8"))
    raw["planner"]["finetune"]["stepz"] = 3
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError, match=r"wrong\.yaml: unknown key 'planner\.finetune\.stepz'"):
        load_config(tmp_path / "wrong.yaml")


def test_a_folder_is_what_is_read(tmp_path: Path) -> None:
    """It used to be passed over where the configuration's loader reads none, and the embedded data was trained on."""
    assert configured(ROOT / LOCAL, folder="ml-1m").data.loader == "movielens"
    tweets = tmp_path / "tweets.yaml"
    tweets.write_text("data: {loader: movietweetings, folder: elsewhere}", encoding="utf-8")
    assert (found := configured(tweets, folder="tweets").data).loader == "movietweetings" and found.folder == "tweets"
    with pytest.raises(ConfigError, match="'files' reads no `folder`"):
        configured(ROOT / LOCAL, "mine.csv", folder="ml-1m")


def test_other_interactions_leave_the_items_as_they_are_configured() -> None:
    """What people did lately is named anew by whoever starts a due training; the catalogue is not."""
    configured_items = load_config(ROOT / PRODUCTION).data.items
    settings = configured(ROOT / PRODUCTION, "s3://your-bucket/features/interactions.parquet")
    assert configured_items and settings.data.items == configured_items
    assert settings.data.interactions == "s3://your-bucket/features/interactions.parquet"
    own = configured(ROOT / LOCAL, "mine.csv")
    assert (own.data.loader, own.data.items) == ("files", None)
    assert configured(ROOT / LOCAL, "mine.csv", "items.csv").data.items == "items.csv"
