"""KServe's own chain with nothing in it: a transformer that passes on, and a predictor that gives back.

``python -m tests.benchmarks.noop_chain predictor --http_port 8081`` and ``... transformer --predictor_host ...``; both
with logs as quiet as ours and everything else as KServe has it.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from kserve import Model, ModelServer
from kserve import logging as kserve_logging


class Passing(Model):
    """Hands requests and answers through."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True


class Giving(Passing):
    """Answers at once."""

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        return {"predictions": payload["instances"]}


def main() -> None:
    kserve_logging.configure_logging()
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.access", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    model = Giving("newfound") if sys.argv[1] == "predictor" else Passing("newfound")
    ModelServer(enable_grpc=False, workers=1, enable_latency_logging=False).start([model])


if __name__ == "__main__":
    main()
