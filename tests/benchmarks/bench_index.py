"""How long the best items of a few clusters take, as the catalogue grows: `make bench-index`.

Five clusters of 2,000 items each are drawn at random for every request, the k best asked for, 50 items excluded. Beside
the index: scoring everything and masking (torch, the same float32), faiss' flat search with an id selector, and how
long merely reading the slices' bytes would take at the machine's measured memory bandwidth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from newfound.config import RankerConfig
from newfound.ranker.index import ItemIndex
from newfound.ranker.model import Encoder
from tests.benchmarks.record import machine, write_record

CLUSTER, CLUSTERS, DIM, K, EXCLUDED, HISTORY = 2000, 5, 64, 10, 50, 50


def median_ms(call: Callable[[int], object], repeats: int) -> float:
    """Median over repeats of one call each, after a few that warm up."""
    for repeat in range(3):
        call(repeat)
    times = []
    for repeat in range(repeats):
        started = time.perf_counter()
        call(repeat)
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def bandwidth(repeats: int = 5) -> float:
    """Bytes a second of reading a large array once, by its sum."""
    data = np.ones(1 << 28, dtype=np.float32)  # 1 GB, far beyond any cache
    best = min(_seconds(lambda: float(torch.from_numpy(data).sum())) for _ in range(repeats))
    return data.nbytes / best


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(items: int, batch: int, repeats: int, seed: int) -> dict[str, float]:
    """Milliseconds a batch of everything that is compared, for one catalogue size."""
    random = np.random.default_rng(seed)
    vectors = np.empty((items, DIM), dtype=np.float32)
    for start in range(0, items, 1 << 18):
        part = random.standard_normal((min(1 << 18, items - start), DIM), dtype=np.float32)
        vectors[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    index = ItemIndex(vectors)
    queries = 12 * vectors[random.integers(0, items, batch)] + random.standard_normal((batch, DIM), dtype=np.float32)
    # New clusters for every repeat, so that none is warm in the cache because it was just asked for.
    draws = [
        [np.sort(random.choice(items // CLUSTER, CLUSTERS, replace=False)) * CLUSTER for _ in range(batch)]
        for _ in range(repeats)
    ]
    spans = [[[(int(start), int(start) + CLUSTER) for start in starts] for starts in draw] for draw in draws]
    exclude = [random.choice(items, EXCLUDED, replace=False) for _ in range(batch)]
    torch.manual_seed(seed)
    encoder = Encoder(RankerConfig(dim=DIM)).eval()
    history = torch.from_numpy(random.integers(0, items, (batch, HISTORY)))
    everything = torch.from_numpy(vectors)

    def encode() -> np.ndarray:
        with torch.inference_mode():
            return encoder.last_query(everything, history).numpy()

    def masked(repeat: int) -> object:
        found = []
        for row in range(batch):  # a [batch, items] matrix of 5 million items would not fit
            scores = everything @ torch.from_numpy(queries[row])
            mask = torch.ones(items, dtype=torch.bool)
            for start in draws[repeat % repeats][row]:
                mask[start : start + CLUSTER] = False
            mask[torch.from_numpy(exclude[row])] = True
            found.append(torch.topk(scores.masked_fill_(mask, -torch.inf), K))
        return found

    found = {
        "index_ms": median_ms(lambda repeat: index.top_k(queries, spans[repeat % repeats], K, exclude), repeats),
        "index_with_encoder_ms": median_ms(
            lambda repeat: index.top_k(encode(), spans[repeat % repeats], K, exclude), repeats
        ),
        "encoder_ms": median_ms(lambda repeat: encode(), repeats),
    }
    found["masked_full_ms"] = median_ms(masked, _few(items, batch, repeats))
    return found


def _few(items: int, batch: int, repeats: int) -> int:
    """Repeats for what reads the whole catalogue."""
    return max(3, min(repeats, int(3e8 / items / batch)))


def faiss_selector(items: int, batch: int, repeats: int, seed: int, python: Path, threads: int) -> float:
    """The same by faiss, in the rivals' own environment; NaN where that is absent."""
    if not python.exists():
        return float("nan")
    script = Path(__file__).with_name("faiss_selector.py")
    numbers = [str(number) for number in (items, DIM, CLUSTER, CLUSTERS, K, batch, repeats, seed, threads)]
    done = subprocess.run([str(python), str(script), *numbers], check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=[100_000, 1_000_000, 5_000_000])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rivals", type=Path, default=Path(".rectools/bin/python"), help="Python that has faiss")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/index.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    read = bandwidth()
    record: dict[str, object] = {**machine(), "seed": options.seed, "threads": options.threads}
    record["memory_bandwidth_gb_s"] = read / 1e9
    print(f"memory bandwidth {read / 1e9:.1f} GB/s; times in ms a batch, medians of {options.repeats}")
    print(
        f"{'items':>10} {'batch':>5} {'index':>9} {'+encoder':>9} {'masked':>9} {'faiss sel.':>10} {'bytes bound':>11}"
    )
    times: dict[tuple[int, int], dict[str, float]] = {}
    for batch in options.batches:
        for items in options.sizes:
            repeats = options.repeats if batch == 1 else max(5, options.repeats // 10)
            found = measure(items, batch, repeats, options.seed)
            found["faiss_selector_ms"] = faiss_selector(
                items, batch, _few(items, batch, repeats), options.seed, options.rivals, options.threads
            )
            found["bytes_bound_ms"] = 1e3 * batch * CLUSTERS * CLUSTER * DIM * 4 / read
            times[items, batch] = found
            record |= {f"{items}.batch{batch}.{name}": value for name, value in found.items()}
            columns = ("index_ms", "index_with_encoder_ms", "masked_full_ms", "faiss_selector_ms", "bytes_bound_ms")
            print(f"{items:>10} {batch:>5} " + " ".join(f"{found[name]:>9.2f}" for name in columns), flush=True)
    small, large, million = min(options.sizes), max(options.sizes), sorted(options.sizes)[len(options.sizes) // 2]
    for batch in options.batches:
        tail = "" if batch == 1 else f".batch{batch}"
        flat = times[large, batch]["index_ms"] / times[small, batch]["index_ms"]
        record[f"flatness_100k_to_5m{tail}"] = flat
        with_encoder = times[large, batch]["index_with_encoder_ms"] / times[small, batch]["index_with_encoder_ms"]
        record[f"flatness_100k_to_5m_with_encoder{tail}"] = with_encoder
        own = times[million, batch]["index_ms"]
        record[f"ratio_vs_masked_full_1m{tail}"] = times[million, batch]["masked_full_ms"] / own
        record[f"ratio_vs_faiss_selector_1m{tail}"] = times[million, batch]["faiss_selector_ms"] / own
        print(
            f"batch {batch}: from {small:,} to {large:,} items {flat:.2f} times the time ({with_encoder:.2f} with the"
            f" encoder); at {million:,} {record[f'ratio_vs_masked_full_1m{tail}']:.0f} times faster than masking,"
            f" {record[f'ratio_vs_faiss_selector_1m{tail}']:.0f} times than faiss with a selector"
        )
    write_record(options.out, record)


if __name__ == "__main__":
    main()
