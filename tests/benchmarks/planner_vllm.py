"""Runs under vLLM's own environment: offline generation with structured choices, timed.

    .vllm/bin/python tests/benchmarks/planner_vllm.py JOB.json OUT.json

The job names the model folder, prompts as token ids, the choices as text, and engine settings; one process measures one
setting, since an engine holds its memory until it ends. It imports nothing of newfound.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(job: Path, out: Path) -> None:
    """Measures one job."""
    task = json.loads(job.read_text())
    from vllm import LLM, SamplingParams
    from vllm import __version__ as version
    from vllm.sampling_params import StructuredOutputsParams

    started = time.monotonic()
    engine = LLM(model=task["model"], dtype="bfloat16", enable_prefix_caching=True, seed=0, **task["engine"])
    ready = time.monotonic() - started
    params = SamplingParams(
        temperature=0.0,
        max_tokens=task["max_tokens"],
        structured_outputs=StructuredOutputsParams(choice=task["choices"]),
    )
    prompts = [{"prompt_token_ids": ids} for ids in task["prompts"]]
    warm = task["warm_up"]
    engine.generate(prompts[:warm], params, use_tqdm=False)
    started, cpu = time.monotonic(), time.process_time()
    answers = engine.generate(prompts[warm:], params, use_tqdm=False)
    seconds = time.monotonic() - started
    record = {
        "vllm": version,
        "ready_seconds": ready,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "pairs": len(prompts) - warm,
        "pairs_per_second": (len(prompts) - warm) / seconds,
        "answers": [answer.outputs[0].text for answer in answers],
    }
    out.write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
