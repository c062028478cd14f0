"""Speed of filling a table: the planner, transformers with a trie, vLLM's offline engine with choices.

Fixed descriptions and prompts at several N, one model, whole rows of the table, each engine the same prompts in the
same order and in the same precision, the one that the machine is fast at. Ours answers exactly, which is checked
against scoring every description in full; the others decode greedily along the trie. vLLM runs in its own environment
under each setting of a small sweep, and at every N its best counts.

Each part (an engine's setting, one N) is saved when it is measured, so an interrupted run goes on; a finished one
starts anew.

    python -m tests.benchmarks.bench_planner [--pairs 1500] [--no-vllm] [--sizes 60 120 400 800]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from newfound.compute.allocator import keep_freed_memory
from newfound.compute.distributed import on_accelerator
from newfound.compute.precision import product_dtype
from newfound.planner.planner import Planner
from tests.benchmarks.planner_workload import PRECISION, SEED, bench_model, planner_for, rows_of_table
from tests.benchmarks.record import machine, write_record

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "runs" / "bench"
MODEL = OUT / "planner-model"
PARTS = OUT / ".planner-parts"
HEADLINE = 120  # its figures stand without "@N" as well
Pairs = list[tuple[str, str]]
Part = dict[str, Any]

SHARED = {"gpu_memory_utilization": 0.15, "max_model_len": 256}
SWEEP: dict[str, dict[str, Any]] = {
    "64 sequences, eager": {"max_num_seqs": 64, "enforce_eager": True, "block_size": 32},
    "256 sequences, eager": {"max_num_seqs": 256, "enforce_eager": True, "block_size": 32},
    "256 sequences, compiled": {"max_num_seqs": 256, "enforce_eager": False, "block_size": 32},
}
# What newfound.compute.allocator sets by call: freed memory stays with the process.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647", "MALLOC_TOP_PAD_": "67108864"}


def product_rate() -> float:
    """FLOP/s of matrix products of the model's widest layer in its precision, best of several."""
    gpu, dtype = torch.get_default_device().type == "cuda", product_dtype(PRECISION)
    x, w = torch.randn(1 << 16 if gpu else 1024, 576).to(dtype), torch.randn(3072, 576).to(dtype)
    best = 0.0
    with torch.inference_mode():
        for _ in range(12):
            started = time.perf_counter()
            for _ in range(10):
                torch.nn.functional.linear(x, w)
            if gpu:
                torch.cuda.synchronize()
            best = max(best, 10 * 2 * x.shape[0] * w.numel() / (time.perf_counter() - started))
    return best


def device_name() -> str:
    """Where all engines but vLLM compute."""
    device = torch.get_default_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def precision_name() -> str:
    """Of the products of every engine."""
    return str(product_dtype(PRECISION)).removeprefix("torch.")


def flops_of_bound(planner: Planner, pairs: Pairs) -> float:
    """A pair's FLOPs that no sharing saves: its last segment through the body, and one product with the head."""
    shape = planner.backbone.model.shape  # type: ignore[attr-defined]
    width = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
    body = 2 * shape.layers * shape.dim * (width + 3 * shape.hidden)
    own = np.mean([len(prompt[-1]) for prompt in planner.prompts(pairs)])
    return float(own * body + 2 * shape.vocabulary * shape.dim)


def measure_ours(n: int, args: argparse.Namespace) -> Part:
    """Exact top-1 of whole rows, three times; the median, and what it read."""
    planner = planner_for(MODEL, n)
    pairs = rows_of_table(planner.nodes, args.pairs)
    planner.top_k(pairs[:64], 1)
    planner.decoder.work = type(planner.decoder.work)()
    seconds = []
    best = np.zeros(0)
    for _ in range(args.repeats):
        started = time.monotonic()
        best = planner.top_k(pairs, 1)[0][:, 0]
        seconds.append(time.monotonic() - started)
    work = planner.decoder.work
    chosen = np.random.default_rng(SEED).permutation(len(pairs))[: max(4, args.checked * args.sizes[0] // n)]
    full = planner.scores([pairs[i] for i in chosen], exhaustive=True)
    speed = len(pairs) / float(np.median(seconds))
    return {
        "pairs": len(pairs),
        "pairs_per_second": round(speed, 2),
        "pairs_per_second_slowest": round(len(pairs) / max(seconds), 2),
        "fraction_of_bound": round(speed * flops_of_bound(planner, pairs) / product_rate(), 4),
        "top1_agreement_with_exhaustive": round(agreement(full, best[chosen]), 4),
        "largest_shortfall_nats": round(
            float((full.max(axis=1) - full[np.arange(len(chosen)), best[chosen]]).max()), 4
        ),
        "exhaustively_scored": len(chosen),
        "answer_tokens_per_pair": round(work.answer_tokens / work.contexts, 2),
        "prompt_tokens_per_pair": round(work.prompt_tokens / work.contexts, 2),
        "tokens_per_description": round(float(np.mean([len(a) for a in planner.codec.answers])), 2),
    }


def agreement(full: np.ndarray[Any, Any], best: np.ndarray[Any, Any]) -> float:
    """Share of answers that have the highest score of all."""
    return float((full.argmax(axis=1) == best).mean())


def measure_transformers(n: int, args: argparse.Namespace) -> Part:
    """Pairs a second of `generate`, held to the trie."""
    from transformers import AutoModelForCausalLM

    planner = planner_for(MODEL, n)
    module = (
        AutoModelForCausalLM.from_pretrained(MODEL, dtype=product_dtype(PRECISION)).to(planner.backbone.device).eval()
    )
    end, batch = planner.codec.end, args.transformers_batch
    trie: dict[tuple[int, ...], set[int]] = {}
    for answer in planner.codec.answers:
        whole = (*answer, end)
        for place, token in enumerate(whole):
            trie.setdefault(whole[:place], set()).add(token)
    pairs = rows_of_table(planner.nodes, args.pairs)[: args.others]
    prompts = [sum(prompt, ()) for prompt in planner.prompts(pairs)]
    longest = max(map(len, prompts))

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        return sorted(trie.get(tuple(ids[longest:].tolist()), {end}))

    def generate(part: list[tuple[int, ...]]) -> None:
        ids = torch.tensor([[end] * (longest - len(p)) + list(p) for p in part])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in part])
        module.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=1 + max(map(len, planner.codec.answers)),
            do_sample=False, pad_token_id=end, eos_token_id=end, prefix_allowed_tokens_fn=allowed,
        )  # fmt: skip

    with torch.inference_mode():
        generate(prompts[:batch])
        started = time.monotonic()
        for start in range(0, len(prompts), batch):
            generate(prompts[start : start + batch])
    return {"pairs_per_second": len(prompts) / (time.monotonic() - started)}


def measure_vllm(name: str, args: argparse.Namespace) -> Part:
    """vLLM's speed and answers at every N under one setting; empty where it does not run."""
    job, out = OUT / "vllm-job.json", OUT / "vllm-out.json"
    out.unlink(missing_ok=True)
    workloads, longest = {}, 0
    for n in args.sizes:
        planner = planner_for(MODEL, n)
        pairs = rows_of_table(planner.nodes, args.pairs)
        prompts = [list(sum(prompt, ())) for prompt in planner.prompts([*pairs[: args.others], *pairs[-16:]])]
        workloads[str(n)] = {"prompts": prompts[:-16], "warm_up": prompts[-16:], "choices": planner.codec.choices()}
        longest = max(longest, *map(len, planner.codec.answers))
    task = {"model": str(MODEL), "dtype": precision_name(), "engine": {**SHARED, **SWEEP[name]}}
    task |= {"max_tokens": longest + 1, "workloads": workloads}
    job.write_text(json.dumps(task))
    env = {
        **os.environ,
        **ALLOCATOR,
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{args.threads - 1}",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    command = [str(ROOT / ".vllm/bin/python"), str(ROOT / "tests/benchmarks/planner_vllm.py"), str(job), str(out)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800)
    if done.returncode or not out.is_file():
        print("vLLM failed:", done.stderr[-1500:])
        return {}
    return dict(json.loads(out.read_text()))


def compare(n: int, runs: dict[str, Part], ours: float, args: argparse.Namespace) -> Part:
    """Ours against vLLM's best setting at one N: speed, and how often greedy finds the exact best answer."""
    speeds = {name: run["workloads"][str(n)]["pairs_per_second"] for name, run in runs.items() if run}
    if not speeds:
        return {}
    best = max(speeds, key=lambda name: speeds[name])
    answers = [text.strip() for text in runs[best]["workloads"][str(n)]["answers"]]
    planner = planner_for(MODEL, n)
    top, values = planner.top_k(rows_of_table(planner.nodes, args.pairs)[: args.others], 2)
    clear = values[:, 0] - values[:, 1] > 0.1
    same = np.array([planner.codec.texts[i] == answer for i, answer in zip(top[:, 0], answers, strict=True)])
    return {
        "vllm_choice_pairs_per_second": round(speeds[best], 2),
        "ratio_vs_vllm_choice": round(ours / speeds[best], 2),
        "vllm_setting": best,
        "vllm_sweep": json.dumps({name: round(speed, 2) for name, speed in speeds.items()}),
        "vllm_top1_agreement": round(float(same.mean()), 4),
        "vllm_top1_agreement_clear": round(float(same[clear].mean()), 4),
        "vllm_clear_share": round(float(clear.mean()), 4),
    }


class Progress:
    """Measures parts or takes them from an interrupted run, with a line for each."""

    def __init__(self, total: int, inputs: Part) -> None:
        self.total, self.done, self.taken, self.started = total, 0, 0, time.monotonic()
        note = PARTS / "inputs.json"
        if not (note.is_file() and json.loads(note.read_text()) == inputs):
            shutil.rmtree(PARTS, ignore_errors=True)
        PARTS.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(inputs))

    def part(self, name: str, measure: Callable[[], Part]) -> Part:
        """The part's figures."""
        file = PARTS / f"{name.replace(' ', '-').replace(',', '')}.json"
        self.done += 1
        if file.is_file():
            self.taken += 1
            found: Part = json.loads(file.read_text())
        else:
            found = measure()
            file.write_text(json.dumps(found))
        speed = found.get("pairs_per_second") or [w["pairs_per_second"] for w in found.get("workloads", {}).values()]
        at = time.monotonic() - self.started
        print(f"[{self.done}/{self.total}, {at:.0f} s] {name}: {np.round(speed, 1)} pairs/s", flush=True)
        return found


def main() -> None:
    """Reads the options; where there is a GPU, it measures there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=3, help="of ours")
    parser.add_argument("--others", type=int, default=256, help="pairs for the slower engines")
    parser.add_argument("--transformers-batch", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs="+", default=[60, 120, 400, 800])
    parser.add_argument("--checked", type=int, default=48, help="pairs scored in full at the smallest N")
    parser.add_argument("--no-vllm", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    with on_accelerator():
        run(args)


def run(args: argparse.Namespace) -> None:
    """Runs everything, prints a table, writes runs/bench/planner.json."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    OUT.mkdir(parents=True, exist_ok=True)
    print(f"model: {MODEL.relative_to(ROOT)}, tuned once" if not MODEL.is_dir() else "model: as it was", flush=True)
    bench_model(MODEL)
    settings = [] if args.no_vllm else list(SWEEP)
    inputs = {"sweep": SWEEP, "shared": SHARED, "device": device_name(), "precision": precision_name()}
    progress = Progress(2 * len(args.sizes) + len(settings), {**vars(args), **inputs})
    record: Part = {
        "seed": SEED, "threads": args.threads, "device": device_name(),
        "precision": precision_name(),
        "product_tflops": round(product_rate() / 1e12, 3), **machine("transformers"),
    }  # fmt: skip
    ours = {n: progress.part(f"newfound {n}", lambda n=n: measure_ours(n, args)) for n in args.sizes}
    theirs = {n: progress.part(f"transformers {n}", lambda n=n: measure_transformers(n, args)) for n in args.sizes}
    runs = {name: progress.part(f"vllm {name}", lambda name=name: measure_vllm(name, args)) for name in settings}
    print(f"{'N':>5} {'ours':>8} {'transformers':>13} {'vLLM':>7} {'x vLLM':>7} {'of bound':>9} {'exact':>7}")
    for n in args.sizes:
        speed, other = ours[n]["pairs_per_second"], theirs[n]["pairs_per_second"]
        found = {
            **ours[n],
            "transformers_trie_pairs_per_second": round(other, 2),
            "ratio_vs_transformers_trie": round(speed / other, 2),
            **compare(n, runs, speed, args),
        }
        slow = found.get("vllm_choice_pairs_per_second", float("nan"))
        print(
            f"{n:>5} {speed:>8.1f} {other:>13.1f} {slow:>7.1f} {speed / slow:>7.1f} {found['fraction_of_bound']:>9.3f}"
            f" {found['top1_agreement_with_exhaustive']:>7.3f}",
            flush=True,
        )
        record |= {f"{name}@{n}": value for name, value in found.items()}
        if n == HEADLINE or len(args.sizes) == 1:
            record |= found
    versions = {run["vllm"] for run in runs.values() if run}
    record |= {"version.vllm": ", ".join(versions), "vllm_engine": json.dumps(SHARED)}
    record["parts_of_earlier_run"] = progress.taken
    write_record(OUT / "planner.json", record)
    shutil.rmtree(PARTS)


if __name__ == "__main__":
    main()
