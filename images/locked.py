"""Prints the locked packages that this machine installs, each with the digests that its files must have.

`locked.py LOCK [--wheels FOLDER ...] [--only FILE]`. Where a folder offers torch's CPU wheel, that wheel takes torch's
place, with the digest that it has there (who names the folder vouches for what is in it), and the CUDA libraries of the
lock are left out. `--only` is a file of requirements, as a resolver prints them: others are left out too.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

CUDA = re.compile(r"(nvidia-.*|cuda-.*|triton)")
PIN = re.compile(r"([a-z0-9][a-z0-9.-]*)==([^\s;+]+)")


def pins(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, version and whole entry of each package of a lock."""
    for entry in re.split(r"\n(?=[a-z0-9])", text):
        if found := PIN.match(entry):
            yield found[1], found[2], entry.rstrip("\n")


def cpu_wheel(folders: list[Path], version: str) -> Path | None:
    """torch's CPU wheel of a version, where a folder has one."""
    return next((wheel for one in folders for wheel in sorted(one.glob(f"torch-{version}+cpu-*.whl"))), None)


def locked(text: str, folders: list[Path], only: str | None) -> Iterator[str]:
    """Entries for this machine."""
    named = None if only is None else {name for name, _, _ in pins(only)}
    found = {name: (version, entry) for name, version, entry in pins(text)}
    if named is not None and (unknown := named - set(found)):
        raise SystemExit(f"not in the lock: {', '.join(sorted(unknown))}; `make lock` resolves it anew")
    wheel = cpu_wheel(folders, found["torch"][0]) if "torch" in found else None
    for name, (version, entry) in found.items():
        if named is not None and name not in named:
            continue
        if wheel is not None and name == "torch":
            yield f"torch=={version}+cpu --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
        elif wheel is None or not CUDA.fullmatch(name):
            yield entry


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lock", type=Path)
    parser.add_argument("--wheels", type=Path, nargs="*", default=[])
    parser.add_argument("--only", type=Path)
    given = parser.parse_args()
    only = given.only.read_text(encoding="utf-8") if given.only else None
    print("\n".join(locked(given.lock.read_text(encoding="utf-8"), given.wheels, only)))


if __name__ == "__main__":
    main()
