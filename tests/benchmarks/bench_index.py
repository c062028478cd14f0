"""How long the best items of a few clusters take, as the catalogue grows: `make bench-index`.

Five clusters of 2,000 items each are drawn at random for every request, the k best asked for, 50 items excluded. Beside
the index: scoring everything and masking (torch, the same float32), faiss' flat search with an id selector, and how
long merely reading the slices' bytes would take at the machine's measured memory bandwidth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from newfound.config import RankerConfig
from newfound.ranker.index import ItemIndex
from newfound.ranker.model import Encoder
from tests.benchmarks.record import machine, write_record

CLUSTER, CLUSTERS, DIM, K, EXCLUDED, HISTORY = 2000, 5, 64, 10, 50, 50
COLUMNS = ("index", "index_mapped", "index_with_encoder", "masked_full", "faiss_selector", "bytes_bound")


def medians_ms(calls: dict[int, Callable[[int], object]], repeats: int, rounds: int = 10) -> dict[int, float]:
    """Median of one call each, for several catalogues.

    They take turns by blocks, so that whatever else the machine does meets all of them; each block begins with a few
    calls that warm up, so that a catalogue which fits the cache is found there.
    """
    block = -(-repeats // rounds)
    times: dict[int, list[float]] = {items: [] for items in calls}
    for turn in range(-(-repeats // block)):
        for items, call in calls.items():
            for repeat in range(turn * block - min(3, block), (turn + 1) * block):
                started = time.perf_counter()
                call(repeat)
                if repeat >= turn * block:
                    times[items].append(time.perf_counter() - started)
    return {items: 1e3 * float(np.median(took)) for items, took in times.items()}


def bandwidth(repeats: int = 5) -> float:
    """Bytes a second of reading a large array once, by its sum."""
    data = np.ones(1 << 28, dtype=np.float32)  # 1 GB, far beyond any cache
    best = min(_seconds(lambda: float(torch.from_numpy(data).sum())) for _ in range(repeats))
    return data.nbytes / best


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def catalogue(items: int, seed: int) -> npt.NDArray[np.float32]:
    """Random unit vectors [items, DIM]."""
    random = np.random.default_rng(seed)
    vectors = np.empty((items, DIM), dtype=np.float32)
    for start in range(0, items, 1 << 18):
        part = random.standard_normal((min(1 << 18, items - start), DIM), dtype=np.float32)
        vectors[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def mapped(vectors: npt.NDArray[np.float32], folder: Path) -> npt.NDArray[np.float32]:
    """The same vectors as a map of a file, read once so that it lies in memory."""
    file = folder / f"{len(vectors)}.bin"
    vectors.tofile(file)
    found = np.memmap(file, dtype=np.float32, mode="r", shape=vectors.shape)
    float(found.sum())
    return found


class Case:
    """What is asked of one catalogue in batches of one size: the same for everything that is compared."""

    def __init__(self, vectors: npt.NDArray[np.float32], on_disk: npt.NDArray[np.float32], batch: int, seed: int):
        items = len(vectors)
        random = np.random.default_rng((seed, batch))
        self.everything, self.batch = torch.from_numpy(vectors), batch
        self.in_memory, self.on_disk = ItemIndex(vectors), ItemIndex(on_disk)
        noise = random.standard_normal((batch, DIM), dtype=np.float32)
        self.queries = 12 * vectors[random.integers(0, items, batch)] + noise
        # New clusters for every repeat, so that none is warm in the cache because it was just asked for.
        self.draws = [
            [np.sort(random.choice(items // CLUSTER, CLUSTERS, replace=False)) * CLUSTER for _ in range(batch)]
            for _ in range(200 if batch == 1 else 20)
        ]
        self.spans = [[[(int(at), int(at) + CLUSTER) for at in row] for row in draw] for draw in self.draws]
        self.exclude = [random.choice(items, EXCLUDED, replace=False) for _ in range(batch)]
        torch.manual_seed(seed)
        self.encoder = Encoder(RankerConfig(dim=DIM)).eval()
        self.history = torch.from_numpy(random.integers(0, items, (batch, HISTORY)))

    def index(self, repeat: int) -> object:
        return self.in_memory.top_k(self.queries, self.spans[repeat % len(self.spans)], K, self.exclude)

    def index_mapped(self, repeat: int) -> object:
        return self.on_disk.top_k(self.queries, self.spans[repeat % len(self.spans)], K, self.exclude)

    def index_with_encoder(self, repeat: int) -> object:
        return self.in_memory.top_k(self.encode(), self.spans[repeat % len(self.spans)], K, self.exclude)

    def encode(self, repeat: int = 0) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return self.encoder.last_query(self.everything, self.history).numpy()

    def masked_full(self, repeat: int) -> object:
        found = []
        for row in range(self.batch):  # a [batch, items] matrix of 5 million items would not fit
            scores = self.everything @ torch.from_numpy(self.queries[row])
            mask = torch.ones(len(scores), dtype=torch.bool)
            for start in self.draws[repeat % len(self.draws)][row]:
                mask[start : start + CLUSTER] = False
            mask[torch.from_numpy(self.exclude[row])] = True
            found.append(torch.topk(scores.masked_fill_(mask, -torch.inf), K))
        return found


def huge_page_share() -> float:
    """Share of this process' memory that lies in huge pages, which spares it address translation; NaN if unknown."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return float("nan")
    sizes = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    return sizes["AnonHugePages"] / sizes["Anonymous"]


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
    parser.add_argument("--repeats", type=int, default=1000, help="with batch 1; a tenth of it otherwise")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rivals", type=Path, default=Path(".rectools/bin/python"), help="Python that has faiss")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/index.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    read = bandwidth()
    record: dict[str, object] = {**machine(), "seed": options.seed, "threads": options.threads}
    record["memory_bandwidth_gb_s"] = read / 1e9
    print(f"memory bandwidth {read / 1e9:.1f} GB/s; times in ms a batch, medians")
    print(f"{'items':>10} {'batch':>5} " + " ".join(f"{name[:9]:>9}" for name in COLUMNS), flush=True)
    catalogues = {items: catalogue(items, options.seed) for items in options.sizes}
    record["huge_page_share"] = huge_page_share()
    times: dict[tuple[int, int], dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=options.out.parent) as folder:
        files = {items: mapped(vectors, Path(folder)) for items, vectors in catalogues.items()}
        for batch in options.batches:
            repeats = options.repeats if batch == 1 else max(20, options.repeats // 10)
            cases = {items: Case(catalogues[items], files[items], batch, options.seed) for items in options.sizes}
            found: dict[str, dict[int, float]] = {}
            for name in ("index", "index_mapped", "index_with_encoder", "encode"):
                found[name] = medians_ms({items: getattr(case, name) for items, case in cases.items()}, repeats)
            found["masked_full"] = {
                items: medians_ms({items: case.masked_full}, _few(items, batch, repeats), 1)[items]
                for items, case in cases.items()
            }
            found["faiss_selector"] = {
                items: faiss_selector(
                    items, batch, _few(items, batch, repeats), options.seed, options.rivals, options.threads
                )
                for items in cases
            }
            for items in options.sizes:
                row = {f"{name}_ms": values[items] for name, values in found.items()}
                row["bytes_bound_ms"] = 1e3 * batch * CLUSTERS * CLUSTER * DIM * 4 / read
                times[items, batch] = row
                record |= {f"{items}.batch{batch}.{name}": value for name, value in row.items()}
                print(
                    f"{items:>10} {batch:>5} " + " ".join(f"{row[f'{name}_ms']:>9.2f}" for name in COLUMNS), flush=True
                )
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
