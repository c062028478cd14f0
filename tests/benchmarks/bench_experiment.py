"""The experiment on the project's claim: closed loop, random exposure, dense replay, off-policy; one record, one page.

    python -m tests.benchmarks.bench_experiment --size full

It goes on where it was stopped. Real data that are not there are left out, and the record says so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from newfound.simulation.calibration import calibrate
from newfound.simulation.closed_loop import LoopConfig
from newfound.simulation.experiment import BASELINE, MAKERS, ExperimentConfig, Lift, lifts, run
from newfound.simulation.language import read_descriptions
from newfound.simulation.page import write_page
from newfound.simulation.real_evidence import dense_replay, off_policy, random_exposure
from newfound.simulation.tastes import descriptions
from newfound.simulation.world_config import WorldConfig
from newfound.types import Floats
from tests.benchmarks.record import machine, write_record

HERE: Final = Path(__file__).parent
SHARED: Final = HERE.parents[2] / "shared" / "data"
RIVALS: Final = tuple(name for name in MAKERS if name != "newfound")


def configurations(size: str) -> dict[str, ExperimentConfig]:
    """The stages of `experiment.yaml` in one size."""
    told = yaml.safe_load((HERE / "experiment.yaml").read_text(encoding="utf-8"))
    sizes = told.pop("sizes")[size]
    found = {}
    for stage, raw in told.items():
        worlds = {
            name: WorldConfig(**{**world, "people": sizes["people"], "items": sizes["items"]})
            for name, world in raw.pop("worlds").items()
        }
        seeds = raw.pop("seeds")[: sizes["seeds"]]
        found[stage] = ExperimentConfig(worlds=worlds, seeds=seeds, loop=LoopConfig(days=sizes["days"]), **raw)
    return found


class StateReader:
    """Descriptions' states of the language model, kept in a folder so that each set is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, texts: Iterable[str]) -> Floats:
        names = list(texts)
        file = self._folder / f"states-{abs(hash_of(names)):x}.npy"
        if not file.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            np.save(file, read_descriptions(names, self._folder / "base"))
        found: Floats = np.load(file)
        return found


def hash_of(names: list[str]) -> int:
    """A number that names the same texts in every process."""
    import zlib

    return zlib.crc32("\n".join(names).encode())


def real_evidence(read: StateReader, orders: int) -> dict[str, Any]:
    """What real data say; what is not there is left out."""
    found: dict[str, Any] = {}
    if (SHARED / "coat").is_dir():
        found["random_exposure"] = random_exposure(SHARED / "coat", read, list(range(orders)))
    try:
        films = importlib.metadata.distribution("recbole").locate_file("recbole/dataset_example/ml-100k")
    except importlib.metadata.PackageNotFoundError:
        films = None
    if films is not None:
        folder = Path(str(films))
        found["dense_replay"] = dense_replay(
            folder / "ml-100k.inter", folder / "ml-100k.item", read, list(range(orders))
        )
    if (SHARED / "obd").is_dir():
        found["off_policy"] = {name: off_policy(SHARED / "obd", name) for name in ("men", "women")}
    return found


def record_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Flat keys: per evidence, world, arm and measure the lift over the ranker alone with its interval."""
    flat: dict[str, Any] = {}

    def put(key: str, lift: Lift) -> None:
        flat[key] = round(lift.value, 5)
        for end in ("lower", "upper"):
            bound = getattr(lift, end)
            flat[f"{key}.{end}"] = None if math.isnan(bound) else round(bound, 5)

    for stage, rows in results["closed_loop"].items():
        for over in RIVALS:
            name = "lift" if over == BASELINE else f"over_{over}"
            for (world, arm, measure), lift in lifts(rows, over).items():
                if over == BASELINE or arm == "newfound":
                    put(f"closed_loop.{stage}.{world}.{arm}.{measure}.{name}", lift)
    for evidence in ("random_exposure", "dense_replay"):
        for (arm, measure), (value, lift) in results.get(evidence, {}).items():
            flat[f"{evidence}.{arm}.{measure}"] = round(value, 5)
            put(f"{evidence}.{arm}.{measure}.lift", lift)
    for campaign, targets in results.get("off_policy", {}).items():
        for target, estimates in targets.items():
            for name, (value, error) in estimates.items():
                flat[f"off_policy.{campaign}.{target}.{name}"] = round(value, 6)
                flat[f"off_policy.{campaign}.{target}.{name}.standard_error"] = round(error, 6)
    return flat


def main() -> None:
    """Runs the stages, then writes the record and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="full", choices=["full", "small", "quick"])
    parser.add_argument("--stages", nargs="*", default=None, help="of experiment.yaml; all where none is named")
    parser.add_argument("--out", type=Path, default=Path("runs/experiment"))
    parser.add_argument("--record", type=Path, default=Path("runs/bench/experiment.json"))
    options = parser.parse_args()
    began = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - began:7.0f} s  {text}", flush=True)

    read = StateReader(options.out / "language")
    stages = configurations(options.size)
    chosen = options.stages if options.stages is not None else list(stages)
    results: dict[str, Any] = {"closed_loop": {}, "size": options.size}
    results |= real_evidence(read, 3 if options.size == "full" else 1)
    say("real evidence done")
    states = read(descriptions(WorldConfig()))
    results["calibration"] = {
        name: calibrate(world, stages["sealed"].seeds[0]) for name, world in stages["sealed"].worlds.items()
    }
    for stage in chosen:
        log = options.out / f"{stage}.jsonl"
        say(f"{stage}: {len(stages[stage].worlds)} worlds, {len(stages[stage].seeds)} seeds")
        results["closed_loop"][stage] = run(stages[stage], states, log, say)
    results["expected_to_win"] = stages["sealed"].expected_to_win
    flat = record_of(results)
    flat["arms"] = list(MAKERS)
    flat["worlds"] = [f"{stage}.{world}" for stage in chosen for world in stages[stage].worlds]
    flat["size"] = options.size
    for world, (facts, passed) in results["calibration"].items():
        flat |= {f"calibration.{world}.{name}": round(value, 4) for name, value in facts.items()}
        flat[f"calibration.{world}.passed"] = not passed
    flat["seconds"] = round(time.perf_counter() - began, 1)
    write_record(options.record, flat | machine())
    write_page(results, options.out / "experiment.html")
    say(f"page: {options.out / 'experiment.html'}")


if __name__ == "__main__":
    main()
