"""Feast's home: what Feast takes for definitions, and what importing the home costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from feature_repo import store as home

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
    assert [service.name for service in store.list_feature_services()] == [home.SERVICE]
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


def test_a_users_rows_in_redis_expire_as_events_do() -> None:
    store, monitoring = (
        yaml.safe_load((home.REPOSITORY.parent / name).read_text(encoding="utf-8").replace("${", "$"))
        for name in ("feature_repo/feature_store.production.yaml", "monitoring/configs/production.yaml")
    )
    assert store["online_store"]["key_ttl_seconds"] == monitoring["retention_days"] * 86_400
