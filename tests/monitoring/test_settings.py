"""The configurations, and the key of the users' hashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitoring.settings import MonitoringConfig, secret_key
from newfound.config import load_settings
from newfound.errors import ConfigError
from tests.monitoring.servers import ROOT


def test_configuration(tmp_path: Path) -> None:
    files = sorted((ROOT / "monitoring/configs").glob("*.yaml"))
    assert [file.stem for file in files] == ["local", "production"]
    for file in files:
        load_settings(MonitoringConfig, file)
    complete = files[0].read_text()
    assert [name for name in MonitoringConfig.model_fields if f"{name}:" not in complete] == []
    local = load_settings(MonitoringConfig, ROOT / "monitoring/configs/local.yaml")
    assert load_settings(MonitoringConfig, None) == MonitoringConfig() == local
    for text, message in (("nope: 1", "nope"), ("breaches: 0", "breaches"), ("a: [", "YAML")):
        bad = tmp_path / "bad.yaml"
        bad.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_settings(MonitoringConfig, bad)
    with pytest.raises(ConfigError, match="absent.yaml"):
        load_settings(MonitoringConfig, tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="NEWFOUND_USER_KEY"):
        secret_key({"NEWFOUND_USER_KEY": "short"})
