"""A worker that builds some shards: `python -m tests.table.shard_worker ORDER`.

The order is JSON: folders of planner, clusters and transitions, the configuration, each shard's folder in the order in
which they are taken, contexts a block, and after how many blocks of its own the worker is killed, if it is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from newfound.config import TableConfig
from newfound.table import build_shard, shards

_answer, _answered = shards._answer, 0


def main() -> None:
    order = json.loads(sys.argv[1])
    shards.BLOCK = order["block"]  # type: ignore[misc]

    def counted(*arguments: Any) -> Any:
        global _answered
        if _answered == order["dies_after"]:
            os.kill(os.getpid(), signal.SIGKILL)
        _answered += 1
        return _answer(*arguments)

    shards._answer = counted
    inputs = [Path(order[name]) for name in ("planner", "clusters", "transitions")]
    for shard, folder in order["shards"]:
        build_shard(*inputs, TableConfig.model_validate(order["config"]), shard, Path(folder))
    print(_answered)


if __name__ == "__main__":
    main()
