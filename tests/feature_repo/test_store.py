"""Feast's home: what Feast takes for definitions, and what importing the home costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from feature_repo import store as home
from monitoring.settings import MonitoringConfig
from newfound.config import load_settings
from newfound.errors import ConfigError

pytest.importorskip("feast")


def test_feast_takes_the_definitions_alone_for_its_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from feast.repo_operations import get_repo_files

    assert [file.name for file in get_repo_files(home.REPOSITORY)] == ["definitions.py"]


def test_the_views_are_those_of_the_definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(home.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.delenv(home.YAML_VARIABLE, raising=False)
    store = home.open_store()
    home.apply(store)
    assert {view.name for view in store.list_feature_views()} == set(home.VIEWS)
    assert [service.name for service in store.list_feature_services()] == ["explorer"]
    assert {view.batch_source.path for view in store.list_feature_views()} == {home.source_of(v) for v in home.VIEWS}


def test_importing_the_home_imports_neither_feast_nor_what_feast_would_bring() -> None:
    heavy = ("feast", "torch", "pandas", "ibis")
    probe = f"import sys, feature_repo.store; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_store_is_opened_without_torch() -> None:
    probe = "import sys; from feature_repo.store import _import_feast; _import_feast(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def _poison(store: Any, body: str) -> None:
    """A registry with a view whose transformation is this code, as whoever may write the registry can make it."""
    import pandas as pd
    from feast import Field, RequestSource
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.protos.feast.core.Registry_pb2 import Registry
    from feast.types import Float64

    given = RequestSource(name="given", schema=[Field(name="x", dtype=Float64)])

    @on_demand_feature_view(sources=[given], schema=[Field(name="y", dtype=Float64)], mode="pandas")
    def poisoned(inputs):
        return pd.DataFrame({"y": inputs["x"]})

    store.apply([poisoned])
    registry, proto = Path(store.config.registry.path), Registry()
    proto.ParseFromString(registry.read_bytes())
    (view,) = proto.on_demand_feature_views
    view.spec.feature_transformation.user_defined_function.body_text = body
    view.spec.user_defined_function.body_text = body
    registry.write_bytes(proto.SerializeToString())


def test_a_transformation_in_the_registry_runs_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write the registry must not run code in those who read it."""
    monkeypatch.setenv(home.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.delenv(home.YAML_VARIABLE, raising=False)
    registry, ran = tmp_path / "registry.db", tmp_path / "ran"
    store = home.open_store()
    home.apply(store)
    _poison(store, f"open({str(ran)!r}, 'w'); poisoned = lambda frame: frame")

    store = home.open_store()
    with pytest.raises(ConfigError, match="transformation"):
        store.list_on_demand_feature_views()
    assert not ran.exists()

    registry.write_bytes(b"not a registry at all")
    assert home.OnlineReader().read(home.USER_HISTORY, ["item_ids"], "nobody") is None


def test_a_users_rows_in_redis_expire_as_events_do() -> None:
    text = (home.REPOSITORY / "feature_store.production.yaml").read_text(encoding="utf-8")
    store = yaml.safe_load(text.replace("${", "$"))
    monitoring = load_settings(MonitoringConfig, home.REPOSITORY.parent / "monitoring/configs/production.yaml")
    assert store["online_store"]["key_ttl_seconds"] == monitoring.retention_days * 86_400
