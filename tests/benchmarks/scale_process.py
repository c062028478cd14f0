"""A command of its own, its answer and its memory: what `bench_scale` runs every step with."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

EVERY: Final = 0.1  # seconds between two looks at the memory


@dataclass(frozen=True)
class Finished:
    """What a command left behind.

    Attributes:
        answer: the JSON of its last line.
        peak_gb: the most that its process and all below it had resident at a time.
    """

    answer: dict[str, Any]
    peak_gb: float


def run(command: Sequence[str], environment: Mapping[str, str]) -> Finished:
    """Runs a command to its end; its errors are shown as they come.

    Raises:
        SystemExit: it failed.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **environment}, text=True)
    assert process.stdout is not None
    peak = 0
    while True:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid:
            break
        # What lay between two looks is known of the process itself.
        peak = max(peak, resident(process.pid), highest(process.pid))
        time.sleep(EVERY)
    process.returncode = os.waitstatus_to_exitcode(status)
    printed = process.stdout.read()
    process.stdout.close()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
    return Finished(json.loads(printed.splitlines()[-1]), peak / 1e9)


def resident(pid: int) -> int:
    """Bytes that a process and all below it have resident; 0 for one that is gone."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        below = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text(encoding="ascii").split()
        ]
        return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident, below))
    return 0


def highest(pid: int) -> int:
    """The most bytes that a process had resident since it began its program; 0 for one that is gone.

    Not `ru_maxrss`, which a process takes over from the one that started it.
    """
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    return 0
