"""The real services, once a session, over a made-up release and a real Feast store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
import yaml

from newfound.recommend.catalogue import UserHistory
from serving.local.processes import Service, free_port
from tests.serving import store
from tests.serving.synthetic import World, histories, history_table, publish_world

WORLD = World(holes=40)
LENGTH = 40  # events that a stored history holds at most
KEY = "a key of the tests alone"


@dataclass
class Stack:
    """Explorer and ranker, and where they read from."""

    root: Path
    features: Path
    explorer: Service
    ranker: Service
    url: str
    ranker_url: str
    grpc: str
    rows: list[dict[str, Any]]

    def predict(self, *instances: dict[str, Any], **arguments: Any) -> httpx.Response:
        """Asks over v1."""
        return httpx.post(f"{self.url}/v1/models/newfound:predict", json={"instances": list(instances)}, **arguments)

    def slate(self, **instance: Any) -> dict[str, Any]:
        """The slate of one request."""
        response = self.predict(instance)
        assert response.status_code == 200, response.text
        return response.json()["predictions"][0]

    def history(self, user: int) -> UserHistory:
        """What is stored of a user."""
        row = self.rows[user]
        return UserHistory(row["item_ids"], row["engagements"], row["positives"], row["times"][-1])

    def metric(self, name: str, **labels: str) -> float:
        """A value of `/metrics`, 0 where it is not there."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            head, _, value = line.rpartition(" ")
            if head.split("{")[0] == name and wanted <= set(head.partition("{")[2].rstrip("}").split(",")):
                return float(value)
        return 0.0


def write_features(folder: Path, world: World, users: int = 30, length: int = LENGTH) -> list[dict[str, Any]]:
    """Source files of made-up users; what user 0 saw before the stored history is in `user_interests`."""
    rows = histories(world, users, length * 2)
    for row in rows:
        for name in ("item_ids", "times", "engagements", "positives"):
            row[name] = row[name][-length:]
    return rows


@pytest.fixture(scope="session")
def world() -> World:
    return WORLD


@pytest.fixture(scope="session")
def release_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of releases with one in it; for tests that only read."""
    folder = tmp_path_factory.mktemp("release")
    publish_world(WORLD, folder / "releases", folder / "parts")
    return folder / "releases"


@pytest.fixture(scope="session")
def release_folder(release_root: Path) -> Path:
    """The one release."""
    return next(folder for folder in release_root.iterdir() if folder.is_dir())


def launch(
    folder: Path,
    world: World,
    *,
    settings: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    feast: bool = True,
) -> Stack:
    """Starts a ranker and an explorer over a new release; the caller stops them."""
    root, features = folder / "releases", folder / "features"
    publish_world(world, root, folder / "parts")
    rows = write_features(features, world)
    if feast:
        from newfound.clusters import Clusters

        digest = Clusters.load(folder / "parts" / "clusters").digest
        before = [
            {
                "user_id": "u0",
                "event_timestamp": rows[0]["event_timestamp"],
                "seen_leaves": ["l20.0", "l21.1"],
                "clusters_digest": digest,
            },
            {
                "user_id": "u1",
                "event_timestamp": rows[1]["event_timestamp"],
                "seen_leaves": ["of another tree"],
                "clusters_digest": "stale",
            },
        ]
        store.write_sources(features, history_table(rows), before)
        store.fill(features, (environment or {}).get("NEWFOUND_REDIS"))
        arguments += ("--feast", str(store.ROOT / "feature_repo"), "--history_length", str(LENGTH))
    told = {**store.environment(features), **(environment or {})}
    running = serve(folder, root, settings=settings, environment=told, arguments=arguments)
    running.features, running.rows = features, rows
    return running


def serve(
    folder: Path,
    root: Path,
    *,
    settings: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    arguments: tuple[str, ...] = (),
) -> Stack:
    """Starts a ranker and an explorer over some releases; the caller stops them."""
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings or {}))
    shared = ["--releases", str(root), "--host", "127.0.0.1", "--model_name", "newfound"]
    shared += ["--settings", str(folder / "settings.yaml")]
    ports = {name: free_port() for name in ("explorer", "grpc", "ranker", "ranker_grpc")}
    ranker = Service.module(
        "ranker",
        "serving.ranker",
        [*shared, "--http_port", str(ports["ranker"]), "--grpc_port", str(ports["ranker_grpc"])],
        folder,
        f"http://127.0.0.1:{ports['ranker']}/v2/models/newfound/ready",
    ).start()
    explorer = Service.module(
        "explorer",
        "serving.explorer",
        [
            *shared,
            *("--http_port", str(ports["explorer"]), "--grpc_port", str(ports["grpc"])),
            *("--predictor_host", f"127.0.0.1:{ports['ranker']}", "--spool", str(folder / "spool")),
            *arguments,
        ],
        folder,
        f"http://127.0.0.1:{ports['explorer']}/v2/models/newfound/ready",
        {"NEWFOUND_USER_KEY": KEY, **(environment or {})},
    ).start()
    url, ranker_url = (f"http://127.0.0.1:{ports[name]}" for name in ("explorer", "ranker"))
    return Stack(root, folder, explorer, ranker, url, ranker_url, f"127.0.0.1:{ports['grpc']}", [])


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Explorer with page, ranker, Feast on sqlite."""
    folder = tmp_path_factory.mktemp("stack")
    running = launch(
        folder,
        WORLD,
        settings={"watch_ms": 200, "deadline_ms": 3000, "ranker_ms": 2000, "features_ms": 1000},
        arguments=("--page", "--page_users", str(folder / "features" / "user_history.parquet")),
    )
    try:
        running.ranker.wait()
        running.explorer.wait()
        yield running
    finally:
        running.explorer.stop()
        running.ranker.stop()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1," + os.environ.get("NO_PROXY", ""))


@pytest.fixture
def table_of() -> Callable[[list[dict[str, Any]]], pa.Table]:
    return history_table
