"""Two processes train what one does, also where one of them is killed.

The tolerance. One process and two see the same batches, negatives and contexts, and add up the same gradients; what
differs is the order in which floats are added, so their last bits. Losses agree to LOSS of themselves. The ranker's
optimiser divides each gradient by its own size, which makes whole steps of what is rounding alone: a few items that
have next to no gradient move, so the root mean square of the scores' differences is held to SCORES of their spread.
The planner's fit is convex, and L-BFGS ends near the one solution, on any side of it: probabilities agree to
PROBABILITIES.

One of the two is killed on the way, so that both are tested at once. That nothing differs, not a bit, from two that
were not killed, is a test of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from newfound.clusters import Clusters
from newfound.compute.distributed import alone, rank, share, size
from newfound.planner.planner import Planner
from newfound.planner.training.finetune import finetune_planner
from newfound.ranker import Ranker, train_ranker
from tests.compute.shared_training import RANKER
from tests.planner.tiny_planner import tiny_planner_config
from tests.ranker.conftest import World

ROOT = Path(__file__).parents[2]
LOSS, SCORES, PROBABILITIES = 1e-4, 1e-2, 1e-2


def _torchrun(out: Path, world: World, planner_world: Path, *deaths: str) -> tuple[Path, str]:
    """Both trainings by two processes; the first one's folder, and what was said."""
    folders = {"out": out, "planner": planner_world, **world._asdict()}
    order = {"folders": {name: str(path) for name, path in folders.items()}, "deaths": deaths}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(len(deaths)), "-m", "tests.compute.shared_training", json.dumps(order)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return out / "first", done.stderr + done.stdout


@pytest.fixture(scope="module")
def one(world: World, planner_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    out = tmp_path_factory.mktemp("one")
    train_ranker(*world, RANKER, 7, 1, out / "ranker")
    places = (planner_world / "transitions", planner_world / "clusters")
    finetune_planner(*places, tiny_planner_config(planner_world), 3, out / "planner", threads=1)
    return out


@pytest.fixture(scope="module")
def killed(world: World, planner_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made, the second killed in the ranker's second epoch: the first is not done again."""
    out, said = _torchrun(tmp_path_factory.mktemp("killed"), world, planner_world, "ranker")
    assert "going on after epoch 1" in said, said
    return out


def test_two_processes_train_the_ranker_of_one(one: Path, killed: Path) -> None:
    curves = [json.loads((made / "ranker" / "training.json").read_text())["curve"] for made in (one, killed)]
    for alone_, shared in zip(*curves, strict=True):
        assert shared["targets"] == alone_["targets"]  # the batch is the same, whoever shares it
        assert shared["loss"] == pytest.approx(alone_["loss"], rel=LOSS)
        assert shared["ndcg@10"] == pytest.approx(alone_["ndcg@10"], abs=SCORES)
    first, second = (Ranker.load(made / "ranker") for made in (one, killed))
    random = np.random.default_rng(0)
    histories = [random.choice(first.items, 12, replace=False).tolist() for _ in range(50)]
    scores = first.score_all(histories)
    differences = second.score_all(histories) - scores
    assert float(np.sqrt(np.square(differences).mean())) < SCORES * float(scores.std())


def test_two_processes_fine_tune_the_planner_of_one(one: Path, killed: Path, planner_world: Path) -> None:
    records = [json.loads((made / "planner" / "training.json").read_text()) for made in (one, killed)]
    assert records[0]["contexts"] == records[1]["contexts"] == 56
    assert (records[0]["penalty"], records[0]["prior"]) == (records[1]["penalty"], records[1]["prior"])
    clusters = Clusters.load(planner_world / "clusters")
    contexts = [(a, b) for a in clusters.interface for b in clusters.interface if a != b]
    planners = [Planner.load(made / "planner", clusters, precision="float32") for made in (one, killed)]
    first, second = (np.exp(planner.log_probs(contexts)) for planner in planners)
    np.testing.assert_allclose(second, first, atol=PROBABILITIES)


@pytest.mark.slow
def test_a_killed_process_comes_back_and_nothing_differs(
    killed: Path, world: World, planner_world: Path, tmp_path: Path
) -> None:
    two, _ = _torchrun(tmp_path / "two", world, planner_world)
    other, said = _torchrun(tmp_path / "other", world, planner_world, "planner")
    assert "24 contexts were read before" in said, said
    for resumed, name in ((killed, "ranker/ranker.safetensors"), (other, "planner/model.safetensors")):
        expected, found = load_file(two / name), load_file(resumed / name)
        assert expected.keys() == found.keys()
        for tensor, value in expected.items():
            np.testing.assert_array_equal(found[tensor], value, err_msg=tensor)


def test_what_was_kept_for_coming_back_is_removed(killed: Path) -> None:
    assert sorted(path.name for path in killed.iterdir()) == ["planner", "ranker"]


def test_a_process_that_is_alone_shares_with_itself() -> None:
    tensors = {"a": torch.arange(3)}
    note, found = share("note", tensors)
    assert note == "note" and found["a"] is tensors["a"]
    with alone():
        assert (rank(), size()) == (0, 1)
