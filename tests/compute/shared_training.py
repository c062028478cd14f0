"""What torchrun starts in `test_distributed.py`: the ranker's training, then the planner's, with a death in each.

    python -m torch.distributed.run ... -m tests.compute.shared_training ORDER

The order is JSON: folders by name, and in which trainings the last process dies, one at each start.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from newfound.planner import states
from newfound.planner.training.finetune import finetune_planner
from newfound.ranker import train, train_ranker
from tests.planner.tiny_planner import tiny_planner_config
from tests.ranker.conftest import SMALL

# Without dropout, whose masks no two numbers of processes draw alike. All else that is random is in it: shuffled
# batches, windows, shared negatives, averages.
RANKER = SMALL.model_copy(
    update={"dropout": 0.0, "id_dropout": 0.0, "negatives": 64, "use_memory": False, "epochs": 2, "refit": False}
)
ROUND = 8  # contexts that are read between two saves: seven rounds
STEP, READING = 40, 4  # of the ranker, in its second epoch, and of the planner: where the process dies


def dying(work: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The same work, whose caller is killed as it begins it for the so-and-so-many-th time."""
    calls = 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*arguments)

    return counted


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    order = json.loads(sys.argv[1])
    folders = {name: Path(path) for name, path in order["folders"].items()}
    last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    states.ROUND = ROUND  # type: ignore[misc]
    # What lies on one machine's disk is not there for another: processes but the first look for their work elsewhere.
    out = folders["out"] / ("first" if os.environ["RANK"] == "0" else "others")
    where = order["deaths"][attempt : attempt + 1] if last else []
    if where == ["ranker"]:
        train.sum_gradients = dying(train.sum_gradients, STEP)
    if where == ["planner"]:
        states._read_round = dying(states._read_round, READING)
    world = folders["planner"]
    if not (folders["out"] / "first" / "ranker").exists():
        train_ranker(folders["dataset"], folders["histories"], folders["clusters"], RANKER, 7, 1, out / "ranker")
    finetune_planner(
        world / "transitions", world / "clusters", tiny_planner_config(world), 3, out / "planner", threads=1
    )


if __name__ == "__main__":
    main()
