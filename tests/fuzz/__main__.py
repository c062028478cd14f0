"""`make fuzz`: inputs that coverage leads to, against everything that reads what others wrote, in bounded memory.

Every module in `tests.fuzz` that has a `Target` is one. `Target()` makes a function of bytes, which may do anything but
raise: an exception is a crash. `SEEDS` are inputs to begin with, and `SHARE` is how many of the inputs go to it beside
the others. Each target runs in a process of its own, whose memory is limited. Inputs that have led further are kept in
`tests/fuzz/corpus/<target>`, which `tests/fuzz/test_corpus.py` goes through in every test run. Figures go to
runs/bench/fuzz.json: `inputs`, `crashes`, and the most memory that a target took.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.record import machine, write_record
from tests.fuzz.targets import CORPUS, kept, load, targets

MEMORY_MB = 4096  # of a target's process, its imports included
KEPT, KEPT_BYTES = 40, 4096  # inputs of a target that are kept, the smallest first
SECONDS = 20  # that one input may take
RUNS = Path("runs/fuzz")


def main() -> int:
    """Fuzzes every target, or those that are named; exit status 1 where one crashed."""
    names = sorted(targets())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=names, nargs="+", default=names)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # this process is a target's
    options, rest = parser.parse_known_args()
    if options.one:
        return _fuzz(options.one, rest)
    shares = {name: float(getattr(load(name), "SHARE", 1.0)) for name in options.only}
    record: dict[str, Any] = {"inputs": 0, "crashes": 0}
    for name in options.only:
        inputs = round(options.inputs * shares[name] / sum(shares.values()))
        found = _run(name, inputs, options.seed)
        print(f"{name}: {found}", flush=True)
        record |= {f"{name}.{figure}": value for figure, value in found.items()}
        record["inputs"] += found["inputs"]
        record["crashes"] += found["crashes"]
    write_record(Path("runs/bench/fuzz.json"), {**machine("atheris"), "memory_limit_mb": MEMORY_MB, **record})
    return int(record["crashes"] > 0)


def _run(name: str, inputs: int, seed: int) -> dict[str, int]:
    """One target; after a crash it goes on, for what is left, without the input that led there."""
    out = RUNS / name
    out.mkdir(parents=True, exist_ok=True)
    done = crashes = peak = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="newfound-fuzz-") as folder:
        corpus = Path(folder)
        for number, content in enumerate(kept(name)):
            (corpus / f"{number:04d}").write_bytes(content)
        while done < inputs and crashes < 5:
            command = [sys.executable, "-m", "tests.fuzz", "--one", name, f"-runs={inputs - done}"]
            command += [
                f"-seed={seed + crashes}",
                f"-timeout={SECONDS}",
                f"-rss_limit_mb={MEMORY_MB}",
                "-max_len=65536",
            ]
            command += [f"-artifact_prefix={out}/", "-print_final_stats=1", str(corpus)]
            ended = subprocess.run(command, capture_output=True, text=True, errors="replace")
            (out / "log").write_text(ended.stdout + ended.stderr)
            tried = re.findall(r"stat::number_of_executed_units:\s*(\d+)", ended.stderr)
            done += int(tried[-1]) if tried else 0
            peak = max([peak, *map(int, re.findall(r"stat::peak_rss_mb:\s*(\d+)", ended.stderr))])
            if ended.returncode == 0:
                break
            crashes += 1
            print(f"{name} crashed; see {out}/log", flush=True)
            if not tried:
                break
        _keep(name, corpus)
    return {"inputs": done, "crashes": crashes, "peak_mb": peak, "seconds": round(time.monotonic() - began)}


def _keep(name: str, corpus: Path) -> None:
    """Puts the smallest inputs that led somewhere into the repository's corpus."""
    shutil.rmtree(CORPUS / name, ignore_errors=True)
    (CORPUS / name).mkdir(parents=True)
    seeds = set(load(name).SEEDS)
    found = {content for file in corpus.iterdir() if len(content := file.read_bytes()) <= KEPT_BYTES} - seeds
    for number, content in enumerate(sorted(found, key=lambda one: (len(one), one))[:KEPT]):
        (CORPUS / name / f"{number:04d}").write_bytes(content)


def _fuzz(name: str, arguments: list[str]) -> int:
    """This process is the target's."""
    import atheris

    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    with atheris.instrument_imports(include=["newfound", "serving", "monitoring", "gguf"]):
        target = load(name).Target()

    def call(data: bytes) -> None:
        target(data)

    atheris.Setup([sys.argv[0], *arguments], call)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
