"""What every benchmark's record says of the machine, and how it is written."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine(*packages: str) -> dict[str, object]:
    """Processor, its cores, Python and package versions, as flat keys."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor that has no name there
    versions = {f"version.{name}": version(name) for name in ("newfound", "torch", "numpy", *packages)}
    return {"processor": processor, "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def write_record(out: Path, record: dict[str, object]) -> None:
    """Writes flat, sorted keys as JSON, whole or not at all, and says where."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    part.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, out)
    print(f"written to {out}")
