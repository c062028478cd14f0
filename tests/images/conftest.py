"""Docker, the images that `make images` built, and a release that was trained in containers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from newfound.config import DataConfig
from tests.tiny_pipeline import TinyPipeline, tiny_language_model

TAG = "0.1.0"
TARGETS = ("train", "serve", "monitor")


@pytest.fixture(scope="session")
def docker_client() -> Iterator[Any]:
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"Docker does not answer ({error}): make image-daemon, or set DOCKER_HOST")
    for target in TARGETS:
        try:
            client.images.get(f"newfound-{target}:{TAG}")
        except docker.errors.ImageNotFound:
            pytest.skip(f"newfound-{target}:{TAG} is not built: make images")
    yield client
    client.close()


@dataclass
class Trained:
    """A whole run of the training pipeline in containers."""

    pipeline: TinyPipeline
    output: str
    seconds: float


@pytest.fixture(scope="session")
def trained(docker_client: Any, movielens_source: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder: Path = tmp_path_factory.mktemp("containers")
    tiny_language_model(folder / "model")
    for file in (folder / "model").iterdir():
        file.chmod(0o644)  # safetensors lets the owner alone read, and the containers' user is another one
    pipeline = TinyPipeline(folder, movielens_source)
    began = time.monotonic()
    done = pipeline.run("--containers")
    assert done.returncode == 0, done.stdout + done.stderr
    return Trained(pipeline, done.stdout, time.monotonic() - began)
