"""How fast the planner fills a table: ours, transformers with a trie, vLLM's offline engine with choices.

Fixed descriptions and prompts at several N. The model is SmolLM2-135M after a short fine-tuning on made-up behaviour:
it writes descriptions, as a planner does, and is unsure which. Whole rows of the table are timed (all second
interests of some first ones), since a table shares the first interest; each engine gets the same prompts in the same
order. Exact answers are checked against scoring every description in full.

    python tests/benchmarks/bench_planner.py [--pairs 1500] [--no-vllm] [--sizes 60 120 400 800]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from newfound.choice import ChoiceModel, Choices
from newfound.config import FinetuneConfig
from newfound.planner.backbone import LeanBackbone, end_token, load_backbone
from newfound.planner.finetune import Course, first_tokens
from newfound.planner.lessons import Lessons
from newfound.planner.planner import Planner
from newfound.planner.pretrained import base_model
from newfound.planner.prompt import PromptCodec, load_tokenizer
from newfound.planner.students import LeanStudent

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "runs" / "bench"
SEED = 7
WORDS = """harbour desert orchid thunder marble velvet copper winter jungle canyon comet lantern falcon mirror
castle river engine garden tiger signal shadow ocean bridge forest diamond rocket violin island market silver temple
painter wolf pilot train storm letter dancer bishop doctor lawyer soldier sailor hunter farmer queen king prince ghost
robot alien vampire zombie dragon wizard knight pirate cowboy gangster detective spy thief killer lover mother father
sister brother teacher student writer singer actor boxer runner rider diver miner baker butcher tailor barber banker
priest judge captain general colonel nurse clown poet monk nun hermit beggar giant elf mermaid gambler jester"""
SUBJECTS = WORDS.split()
KINDS = ("mystery", "comedy", "drama", "romance", "thriller", "western", "musical", "horror")


def descriptions(n: int) -> list[str]:
    """The first n of 800 fixed descriptions; from the 101st on first words repeat."""
    return [f"{SUBJECTS[i % 100]}, {KINDS[(i + i // 100) % 8]}" for i in range(n)]


def bench_model(folder: Path) -> Path:
    """A planner over all 800 descriptions, tuned once for made-up behaviour."""
    if (folder / "prompt.json").is_file():
        return folder
    base = base_model(None, OUT / "base-model")
    backbone = load_backbone(base, "bfloat16")
    assert isinstance(backbone, LeanBackbone)
    texts = descriptions(800)
    codec = PromptCodec(load_tokenizer(base), texts, end_token(base))
    draw = np.random.default_rng(SEED)
    pull = draw.normal(0, 0.9, (2, 800, 800)).astype(np.float32)
    contexts = draw.integers(0, 800, (4000, 2))
    contexts = np.unique(contexts[contexts[:, 0] != contexts[:, 1]], axis=0)
    targets = ChoiceModel(np.zeros(800, dtype=np.float32), pull).distribution(contexts)
    lessons = Lessons(contexts, np.ones(len(contexts), dtype=np.float32), targets)
    config = FinetuneConfig(steps=60, batch_size=16, share_first=1, answers_each=4, probe_contexts=1500)
    none = Choices(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), np.zeros((0, 800), bool))
    student = LeanStudent(backbone.model, config, SEED, first_tokens(codec))
    Course(student, codec, texts, lessons, none, config, SEED).run()
    folder.mkdir(parents=True, exist_ok=True)
    student.save(base, folder)
    codec.save(folder)
    return folder


def planner_for(folder: Path, n: int, lean: bool = True) -> Planner:
    """The model over the first n descriptions."""
    codec = PromptCodec(load_tokenizer(folder), descriptions(n), end_token(folder))
    return Planner(load_backbone(folder, "bfloat16", lean), codec, descriptions(n))


def rows_of_table(n: int, pairs: int) -> list[tuple[str, str]]:
    """Whole rows: some first interests with every second one."""
    texts = descriptions(n)
    firsts = np.random.default_rng(SEED).permutation(n)[: max(1, round(pairs / n))]
    return [(texts[a], texts[b]) for a in sorted(firsts.tolist()) for b in range(n) if a != b]


def product_rate() -> float:
    """FLOP/s of bfloat16 matrix products of the model's shapes, best of several."""
    x, w = torch.randn(1024, 576).bfloat16(), torch.randn(3072, 576).bfloat16()
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        for _ in range(10):
            torch.nn.functional.linear(x, w)
        best = max(best, 10 * 2 * x.shape[0] * w.numel() / (time.perf_counter() - started))
    return best


def flops_of_bound(planner: Planner, pairs: list[tuple[str, str]]) -> float:
    """A pair's FLOPs that no sharing saves: its last segment through the body, and one product with the head."""
    model = planner.backbone.model  # type: ignore[attr-defined]
    body = 2 * sum(tensor.numel() for layer in model.layers for tensor in layer.values())
    own = np.mean([len(prompt[-1]) for prompt in planner.prompts(pairs)])
    return float(own * body + 2 * model.weights["head"].numel())


def time_ours(planner: Planner, pairs: list[tuple[str, str]]) -> tuple[float, np.ndarray[Any, Any]]:
    """Pairs a second and the best answers."""
    planner.top_k(pairs[:32], 1)
    started = time.monotonic()
    best, _ = planner.top_k(pairs, 1)
    return len(pairs) / (time.monotonic() - started), best[:, 0]


def time_transformers(folder: Path, planner: Planner, pairs: list[tuple[str, str]]) -> float:
    """Pairs a second of `generate`, held to the trie."""
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    trie: dict[tuple[int, ...], set[int]] = {}
    for answer in planner.codec.answers:
        whole = (*answer, planner.codec.end)
        for place, token in enumerate(whole):
            trie.setdefault(whole[:place], set()).add(token)
    prompts = [sum(prompt, ()) for prompt in planner.prompts(pairs)]
    longest, end = max(map(len, prompts)), planner.codec.end
    started = 0.0
    with torch.inference_mode():
        for start in range(0, len(prompts), 32):
            if start == 32:
                started = time.monotonic()
            part = prompts[start : start + 32]
            ids = torch.tensor([[end] * (longest - len(p)) + list(p) for p in part])
            mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in part])

            def allowed(_: int, ids: torch.Tensor) -> list[int]:
                return sorted(trie.get(tuple(ids[longest:].tolist()), {end}))

            module.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=end,
                eos_token_id=end, prefix_allowed_tokens_fn=allowed,
            )  # fmt: skip
    return (len(prompts) - 32) / (time.monotonic() - started)


def time_vllm(folder: Path, planner: Planner, pairs: list[tuple[str, str]], engine: dict[str, Any]) -> dict[str, Any]:
    """vLLM's record of one setting, in a process and an environment of its own."""
    job, out = OUT / "vllm-job.json", OUT / "vllm-out.json"
    out.unlink(missing_ok=True)
    prompts = [list(sum(prompt, ())) for prompt in planner.prompts(pairs)]
    task = {
        "model": str(folder), "prompts": prompts[:16] + prompts, "warm_up": 16, "choices": planner.codec.choices(),
        "engine": engine, "max_tokens": 2 + max(map(len, planner.codec.answers)),
    }  # fmt: skip
    job.write_text(json.dumps(task))
    threads = f"0-{torch.get_num_threads() - 1}" if torch.get_num_threads() > 1 else "0"
    env = {
        **os.environ,
        "VLLM_CPU_OMP_THREADS_BIND": threads,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    script = str(ROOT / "tests" / "benchmarks" / "planner_vllm.py")
    done = subprocess.run(
        [str(ROOT / ".vllm/bin/python"), script, str(job), str(out)],
        env=env,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    if done.returncode or not out.is_file():
        print("vLLM failed:", done.stderr[-1500:])
        return {}
    return dict(json.loads(out.read_text()))


SWEEP = [
    {"max_num_seqs": 64, "enforce_eager": True},
    {"max_num_seqs": 256, "enforce_eager": True},
    {"max_num_seqs": 128, "enforce_eager": False},
]
SHARED = {"block_size": 32, "gpu_memory_utilization": 0.12, "max_model_len": 256}


def main() -> None:
    """Runs everything, prints a table, writes runs/bench/planner.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=1500)
    parser.add_argument("--others", type=int, default=320, help="pairs for the slower engines")
    parser.add_argument("--sizes", type=int, nargs="+", default=[60, 120, 400, 800])
    parser.add_argument("--checked", type=int, default=24, help="pairs scored in full at the smallest N")
    parser.add_argument("--no-vllm", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    OUT.mkdir(parents=True, exist_ok=True)
    folder = bench_model(OUT / "planner-model")
    rate = product_rate()
    record: dict[str, Any] = {
        "seed": SEED, "torch": torch.__version__.split("+")[0], "processor": platform.processor() or platform.machine(),
        "threads": args.threads, "bf16_tflops": round(rate / 1e12, 3),
    }  # fmt: skip
    setting: dict[str, Any] | None = None
    print(f"{'N':>5} {'ours':>8} {'transformers':>13} {'vLLM':>7} {'x vLLM':>7} {'of bound':>9} {'exhaustive':>11}")
    for n in args.sizes:
        planner = planner_for(folder, n)
        pairs = rows_of_table(n, args.pairs)
        ours, best = time_ours(planner, pairs)
        work = planner.decoder.work
        few = pairs[:: max(1, len(pairs) // max(4, args.checked * args.sizes[0] // n))][
            : max(4, args.checked * args.sizes[0] // n)
        ]
        full = planner.scores(few, exhaustive=True)
        where = {pair: place for place, pair in enumerate(pairs)}
        exact = float(np.mean([full[i].argmax() == best[where[pair]] for i, pair in enumerate(few)]))
        others = pairs[: args.others]
        theirs = time_transformers(folder, planner, others[: 32 + min(96, args.others)])
        found = {
            "pairs": len(pairs),
            "pairs_per_second": round(ours, 2),
            "transformers_trie_pairs_per_second": round(theirs, 2),
            "ratio_vs_transformers_trie": round(ours / theirs, 2),
            "fraction_of_bound": round(ours * flops_of_bound(planner, pairs) / rate, 4),
            "top1_agreement_with_exhaustive": exact,
            "exhaustively_scored": len(few),
            "answer_tokens_per_pair": round(work.answer_tokens / work.contexts, 2),
            "prompt_tokens_per_pair": round(work.prompt_tokens / work.contexts, 2),
        }
        if not args.no_vllm:
            runs = []
            for engine in SWEEP if setting is None else [setting]:
                run = time_vllm(folder, planner, others, {**SHARED, **engine})
                if run:
                    runs.append((run["pairs_per_second"], engine, run))
                    print(f"      vLLM {run['vllm']} N={n} {engine}: {run['pairs_per_second']:.2f} pairs/s")
            if runs:
                speed, setting, run = max(runs, key=lambda r: r[0])
                top, values = planner.top_k(others, 2)
                margin = values[:, 0] - values[:, 1]
                mine = [planner.codec.texts[i] for i in top[:, 0]]
                same = np.array([a == b.strip() for a, b in zip(mine, run["answers"], strict=True)])
                found |= {
                    "vllm_choice_pairs_per_second": round(speed, 2),
                    "ratio_vs_vllm_choice": round(ours / speed, 2),
                    "vllm_top1_agreement": round(float(same.mean()), 4),
                    "vllm_top1_agreement_clear": round(float(same[margin > 0.1].mean()), 4),
                    "vllm_clear_share": round(float((margin > 0.1).mean()), 4),
                }
                record |= {"vllm": run["vllm"], "vllm_setting": json.dumps({**SHARED, **setting})}
        slow, ratio = (
            found.get(name, float("nan")) for name in ("vllm_choice_pairs_per_second", "ratio_vs_vllm_choice")
        )
        speeds = f"{n:>5} {ours:>8.1f} {theirs:>13.1f} {slow:>7.1f} {ratio:>7.1f}"
        print(f"{speeds} {found['fraction_of_bound']:>9.3f} {exact:>11.3f}", flush=True)
        record |= {f"{name}@{n}": value for name, value in found.items()}
        if n == 120 or len(args.sizes) == 1:
            record |= found
        (OUT / "planner.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
