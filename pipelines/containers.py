"""Steps of a local run as containers of the image that a cluster runs, through kfp's DockerRunner.

They run as a cluster would have them: not as root, without capabilities, on a read-only root file system, and without
a network, as no step calls out. What they read and write has the same path inside as outside.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components import IMAGE
from newfound.config import TrainingConfig
from newfound.errors import NewfoundError
from pipelines.settings import DATA_FILES, MODEL_FILES

USER: Final = 1000  # the image's own
LABEL: Final = "newfound.run"


class ContainerError(NewfoundError):
    """Docker that does not answer, or an image that is not there."""


@dataclass(frozen=True)
class Containers:
    """Files and folders that a run's containers may see beside its own folders.

    Attributes:
        read: files and folders that they may read.
        write: folders that they may write to; made where they do not exist.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()


def absolute(config: TrainingConfig) -> tuple[TrainingConfig, tuple[Path, ...]]:
    """The configuration with absolute paths, and the files and folders of this machine that it names."""
    values = config.model_dump()
    found = []
    for key in (*DATA_FILES, *MODEL_FILES):
        section, name = key.split(".")
        if (named := values[section][name]) and (path := Path(named)).exists():
            values[section][name] = str(path.resolve())
            found.append(path.resolve())
    return TrainingConfig.model_validate(values), tuple(found)


def image_id() -> str:
    """The content of the image that the steps run in, by which their cached results go: its code is not the checkout's.

    Raises:
        ContainerError: Docker does not answer, or the image is not built.
    """
    client = _docker()
    try:
        return str(client.images.get(IMAGE).id)
    finally:
        client.close()


def _docker() -> Any:
    import docker

    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise ContainerError(f"Docker does not answer ({error}); is it running, and DOCKER_HOST right?") from error
    try:
        client.images.get(IMAGE)
    except docker.errors.ImageNotFound as error:
        raise ContainerError(f"{IMAGE}: no such image here; `make images` builds it") from error
    return client


@contextmanager
def docker_runner(containers: Containers, work: Path, environment: Mapping[str, str]) -> Iterator[Any]:
    """A kfp DockerRunner; its containers end with the context.

    Args:
        containers: what they may see.
        work: the folder of all runs' outputs: a step reads what an earlier run left in the cache.
        environment: the steps' variables.

    Raises:
        ContainerError: Docker does not answer, or the image is not built.
    """
    import docker
    from kfp import local

    client = _docker()
    user = os.getuid() or USER
    for folder in (work, *containers.write):
        folder.mkdir(parents=True, exist_ok=True)
        if user != os.getuid():
            _give(folder, user)
    run = uuid.uuid4().hex
    try:
        yield local.DockerRunner(
            user=f"{user}:{os.getgid() or USER}",
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode="none",
            environment=dict(environment),
            labels={LABEL: run},
            mounts=[
                docker.types.Mount(str(path), str(path), type="bind", read_only=path in containers.read)
                for path in (*containers.read, *containers.write, work)
            ],
        )
    finally:
        for container in client.containers.list(filters={"label": f"{LABEL}={run}"}):
            container.kill()
        client.close()


def _give(folder: Path, user: int) -> None:
    """Hands a folder and all that is in it to the containers' user, where root started the run."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)
