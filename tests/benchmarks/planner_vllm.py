"""vLLM's offline generation with structured choices, timed; runs under vLLM's own environment.

    .vllm/bin/python tests/benchmarks/planner_vllm.py JOB.json OUT.json

The job names the model folder, its precision, the engine's settings, and workloads by name, each with prompts as token
ids and the choices as text. One process measures one setting, since an engine holds its memory until it ends. It
imports nothing of newfound.
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
    engine = LLM(model=task["model"], dtype=task["dtype"], enable_prefix_caching=True, seed=0, **task["engine"])
    record = {"vllm": version, "ready_seconds": time.monotonic() - started, "workloads": {}}
    for name, work in task["workloads"].items():
        params = SamplingParams(
            temperature=0.0,
            max_tokens=task["max_tokens"],
            structured_outputs=StructuredOutputsParams(choice=work["choices"]),
        )
        prompts = [{"prompt_token_ids": ids} for ids in work["prompts"]]
        # Compiles the choices' grammar; the prompts differ from those timed, so that no answer's cache is warm.
        engine.generate([{"prompt_token_ids": ids} for ids in work["warm_up"]], params, use_tqdm=False)
        started = time.monotonic()
        answers = engine.generate(prompts, params, use_tqdm=False)
        seconds = time.monotonic() - started
        record["workloads"][name] = {
            "seconds": seconds,
            "pairs_per_second": len(prompts) / seconds,
            "answers": [answer.outputs[0].text for answer in answers],
        }
        print(f"{name}: {len(prompts) / seconds:.1f} pairs/s", file=sys.stderr, flush=True)
    out.write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
