"""Command line of vLLM on one machine without a GPU; in the cluster, KServe's vLLM runtime starts it."""

from __future__ import annotations

from pathlib import Path


def command(python: Path, folder: Path, name: str, port: int) -> list[str]:
    """The engine on loopback, serving a planner under its own name."""
    options = {
        "--model": str(folder.resolve()),
        "--served-model-name": name,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--gpu-memory-utilization": "0.25",
        "--block-size": "32",  # the default block size finds no shared prefixes on a CPU
        "--max-model-len": "512",
        "--max-logprobs": "-1",  # of all interests
        "--logprobs-mode": "processed_logprobs",  # among them alone
    }
    return [
        str(python),
        "-m",
        "vllm.entrypoints.openai.api_server",
        *(part for pair in options.items() for part in pair),
    ]


def environment() -> dict[str, str]:
    """Environment variables of a CPU engine."""
    return {"VLLM_CPU_OMP_THREADS_BIND": "0-1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
