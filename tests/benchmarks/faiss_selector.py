"""Times faiss' flat search with an id selector; prints milliseconds a batch. Runs in the rivals' own environment."""

from __future__ import annotations

import sys
import time

import faiss
import numpy as np


def main() -> None:
    items, dim, cluster, clusters, k, batch, repeats, seed, threads = map(int, sys.argv[1:])
    faiss.omp_set_num_threads(threads)
    random = np.random.default_rng(seed)
    flat = faiss.IndexFlatIP(dim)
    for start in range(0, items, 1 << 18):
        part = random.standard_normal((min(1 << 18, items - start), dim), dtype=np.float32)
        flat.add(part / np.linalg.norm(part, axis=1, keepdims=True))
    queries = random.standard_normal((batch, dim), dtype=np.float32)
    times = []
    for _ in range(repeats + 1):
        allowed = [
            (random.choice(items // cluster, clusters, replace=False)[:, None] * cluster + np.arange(cluster)).ravel()
            for _ in range(batch)
        ]
        started = time.perf_counter()
        for query, ids in zip(queries, allowed, strict=True):
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorBatch(ids))
            flat.search(query[None], k, params=chosen)
        times.append(time.perf_counter() - started)
    print(1e3 * float(np.median(times[1:])))  # the first one warms up


if __name__ == "__main__":
    main()
