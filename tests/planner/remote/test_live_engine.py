"""A live vLLM server behind the planner's interface: the same prompt, the same log-probabilities of all interests.

`make engines` runs this; it needs `.vllm` (`make vllm`) and fits a planner to made-up behaviour.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from newfound.clusters import Clusters
from newfound.config import FinetuneConfig, PlannerConfig
from newfound.planner.planner import Planner
from newfound.planner.remote.planner import RemotePlanner
from newfound.planner.training.finetune import finetune_planner
from tests.benchmarks.record import machine, write_record
from tests.planner.tiny_planner import write_world

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".vllm" / "bin" / "python"
READY_SECONDS = 600

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason="no .vllm: `make vllm` sets it up"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight interests, and the packaged model fitted to them."""
    folder = write_world(tmp_path_factory.mktemp("world"))
    config = PlannerConfig(precision="float32", finetune=FinetuneConfig(teacher_penalty=0.2))
    finetune_planner(folder / "transitions", folder / "clusters", config, 3, folder / "planner")
    return folder


@pytest.fixture(scope="module")
def engine(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("engine") / "log"
    options = {
        "--model": world / "planner", "--served-model-name": "planner", "--host": "127.0.0.1", "--port": port,
        "--dtype": "float32", "--max-model-len": 256, "--max-num-seqs": 64, "--block-size": 32,
        "--gpu-memory-utilization": 0.15, "--max-logprobs": 8, "--logprobs-mode": "processed_logprobs",
    }  # fmt: skip
    flat = [str(word) for pair in options.items() for word in pair]
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", *flat, "--enforce-eager"]
    threads = f"0-{(os.cpu_count() or 1) - 1}"
    env = {**os.environ, "VLLM_CPU_OMP_THREADS_BIND": threads, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out) as server:
        try:
            stop = time.monotonic() + READY_SECONDS
            while not _ready(url):
                assert server.poll() is None and time.monotonic() < stop, log.read_text()[-2000:]
                time.sleep(1)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=60)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def test_both_engines_give_the_same_log_probabilities(engine: str, world: Path) -> None:
    clusters = Clusters.load(world / "clusters")
    planner = Planner.load(world / "planner", clusters, precision="float32")
    contexts = [(a, b) for a in clusters.interface for b in clusters.interface if a != b]
    ours = planner.log_probs(contexts, anew=True)
    theirs = RemotePlanner(planner.codec, planner.nodes, engine, "planner", timeout=300).log_probs(contexts)
    there = np.isfinite(ours)
    off = np.abs(ours[there] - theirs[there])
    record = {
        "pairs": len(contexts),
        "top1_agreement": round(float((ours.argmax(1) == theirs.argmax(1)).mean()), 4),
        "difference_median": round(float(np.median(off)), 5),
        "difference_largest": round(float(off.max()), 4),
        "version.vllm": httpx.get(f"{engine}/version", timeout=5).json()["version"],
    }
    print(json.dumps(record))
    write_record(ROOT / "runs" / "bench" / "planner-engines.json", {**record, **machine()})
    assert (there == np.isfinite(theirs)).all() and record["difference_largest"] < 0.02
