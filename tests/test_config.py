"""Configuration: complete files, unknown keys refused, errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from newfound.config import DataConfig, SplitConfig, TrainingConfig, load_config, parse_config
from newfound.errors import ConfigError


def test_defaults_are_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "empty.yaml") == TrainingConfig()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = TrainingConfig(data=DataConfig(loader="files", interactions="x.csv", rating_scale=(1, 5)))
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(tmp_path / "all.yaml") == config


def test_overrides(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("seed: 3\nsplit: {future: 0.1}\n")
    overrides = {"data.loader": "files", "data.interactions": "mine.csv", "split.cut": "global"}
    config = load_config(tmp_path / "some.yaml", overrides)
    assert (config.seed, config.split.future, config.split.cut) == (3, 0.1, "global")
    assert config.data.interactions == "mine.csv"
    with pytest.raises(ConfigError, match="'seed' holds no mapping; 'seed.more' cannot be set"):
        load_config(tmp_path / "some.yaml", {"seed.more": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede: 1", "unknown key 'sede'"),
        ("data: {lodaer: files}", "unknown key 'data.lodaer'"),
        ("a: 1\nb: 2", r"unknown key 'a' \(1 more\)"),
        ("split: {future: 1.5}", "key 'split.future': .* less than 1"),
        ("split: {test_users: 0.6, validation_users: 0.4}", "key 'split': .* leave no users to learn from"),
        ("data: {loader: movielens}", "key 'data': .*'movielens' needs `folder`"),
        ("data: {loader: files}", "key 'data': .*'files' needs `interactions`"),
        ("data: {rating_scale: [5, 1]}", "key 'data': .* lower end first"),
        ("data: {loader: netflix}", "key 'data.loader'"),
        ("data: {min_user_events: 0}", "key 'data.min_user_events'"),
        ("transitions: {context: 4}", "key 'transitions.context'"),
        ("- seed", "holds a list; expected a mapping"),
        ("seed: [", "not valid YAML"),
    ],
)
def test_bad_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(file)
    assert str(file) in str(caught.value)


def test_unreadable_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes("seed: 1 # é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: not valid YAML"):
        load_config(tmp_path / "latin.yaml")


def test_source_is_named() -> None:
    with pytest.raises(ConfigError, match="the request: unknown key 'x'"):
        parse_config({"x": 1}, "the request")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SplitConfig().future = 0.5  # type: ignore[misc]
