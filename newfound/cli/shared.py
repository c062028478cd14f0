"""Console, common options, and a folder for what comes from afar: the parts that commands share."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from newfound.errors import ReleaseError
from newfound.release import store as releases

Root = Annotated[str, typer.Option("--releases", help="Folder or URL of all releases.")]
console: Final = Console()


def cache() -> Path:
    """A folder for releases of a remote root, gone when the command has ended."""
    folder = Path(tempfile.mkdtemp(prefix="newfound-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def current_release(root: str) -> str:
    """Id of the current release.

    Raises:
        ReleaseError: there is none.
    """
    release = releases.current(root)
    if release is None:
        raise ReleaseError(f"{root}: no release was published yet")
    return release
