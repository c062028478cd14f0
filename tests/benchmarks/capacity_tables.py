"""The tables of docs/capacity.md: measured unit costs, and what they come to at the size of the largest shops.

Units come from `make bench-capacity`, `bench-serving` and `bench-joint`, or follow from a type's width. All else is
arithmetic, shown with its numbers, under the assumptions that are named here and listed in the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

Record = Mapping[str, Any]

USERS, ITEMS, RATE = 1_000_000_000, 100_000_000, 100_000
INTERESTS, MANY_INTERESTS, PARTIAL = 800, 5_000, 2_000_000
UTILISATION, COPIES, FILL, MACHINE_GB = 0.6, 2, 0.75, 64
PEAK_FLOPS, MFU_TRAINING, MFU_READING, MFU_RANKER = 989e12, 0.40, 0.35, 0.05
TOKENS, EPOCHS = 40, 3
MODELS: Final = {"SmolLM2-135M": 134_515_008, "a model of 8 billion": 8_030_000_000}
LONG_HISTORY, STATE_COPIES = 1000, 5

ASSUMPTIONS: Final = (
    ("users, items, requests a second", f"{USERS:,}, {ITEMS:,}, {RATE:,}"),
    ("busy share of a core at the peak", f"{UTILISATION:.0%}"),
    ("copies of everything that serves, in two zones", f"{COPIES}"),
    ("a machine's memory, and how much of it may be taken", f"{MACHINE_GB} GB, {FILL:.0%}"),
    ("GPU: H100 SXM, dense bfloat16 as published", f"{PEAK_FLOPS / 1e12:.0f} TFLOP/s"),
    ("share of that in training, in reading prompts", f"{MFU_TRAINING:.0%}, {MFU_READING:.0%}"),
    ("share of that in the ranker's training, which waits for memory", f"{MFU_RANKER:.0%}"),
    ("tokens of a context: the sentence, and two descriptions of about 14", f"{TOKENS}"),
    ("passes over the contexts, were all weights of the model trained", f"{EPOCHS}"),
)


def assumptions(record: Record) -> str:
    """What is assumed rather than measured."""
    return _table(["assumption", "value"], [list(row) for row in ASSUMPTIONS])


def sizes(record: Record) -> list[int]:
    """Sizes of the catalogue that the record holds, ascending."""
    return sorted(int(key.partition("@")[2]) for key in record if key.startswith("explorer.resident_mb@"))


def services(record: Record) -> str:
    """What was measured, size by size."""
    columns = {
        "ranker: GB resident": ("ranker.resident_mb", 1e-3, 2),
        "at most": ("ranker.peak_mb", 1e-3, 2),
        "s to ready": ("ranker.ready_s", 1, 1),
        "requests a s": ("ranker.requests_per_s", 1, 0),
        "core ms": ("ranker.cpu_ms", 1, 2),
        "p50, p99 ms alone": ("ranker.p50_ms.alone,ranker.p99_ms.alone", 1, 2),
        "at half load": ("ranker.p50_ms.half_load,ranker.p99_ms.half_load", 1, 2),
        "explorer: GB resident": ("explorer.resident_mb", 1e-3, 2),
        "of it mapped": ("explorer.mapped_mb", 1e-3, 2),
        "s to ready ": ("explorer.ready_s", 1, 1),
    }
    rows = []
    for items in sizes(record):
        cells = [
            ", ".join(f"{record[f'{name}@{items}'] * scale:.{digits}f}" for name in names.split(","))
            for names, scale, digits in columns.values()
        ]
        rows.append([f"{items:,}", *cells])
    return _table(["items", *(name.strip() for name in columns)], rows) if rows else ""


def bytes_an_item(record: Record, service: str) -> float:
    """What an item more costs a service in memory: from the second largest size to the largest."""
    below, above = sizes(record)[-2:]
    grown = record[f"{service}.resident_mb@{above}"] - record[f"{service}.resident_mb@{below}"]
    return float(grown * 1e6 / (above - below))


def units(record: Record) -> str:
    """Unit costs."""
    if len(sizes(record)) < 2:
        return ""
    largest = sizes(record)[-1]
    rows = [[f"memory of an item in the {name}", f"{bytes_an_item(record, name):,.0f} B", "capacity.json"]
            for name in ("ranker", "explorer")]  # fmt: skip
    rows.append(
        [f"a ranker's call, {largest:,} items", f"{record[f'ranker.cpu_ms@{largest}']:.2f} core ms", "capacity.json"]
    )
    together = [items for items in sizes(record) if f"explorer.cpu_ms@{items}" in record]
    if together:
        cost = record[f"explorer.cpu_ms@{together[-1]}"]
        rows.append(["the explorer's part of a request", f"{cost:.2f} core ms", "capacity.json"])
    path, joint = record.get("serving", {}), record.get("joint", {})
    if "cpu_ms_per_request.ours@32" in path:
        name = f"a request's whole path, {path['items']:,} items, 120 interests, 32 at a time"
        rows.append([name, f"{path['cpu_ms_per_request.ours@32']:.2f} core ms", "serving.json"])
    if f"visiting_ms@{largest}" in joint:
        name = f"the joint decision's best items of {largest:,}, in process"
        rows.append([name, f"{joint[f'visiting_ms@{largest}']:.2f} ms", "joint.json"])
    if "redis.users" in record:
        events = record["redis.events_a_user"]
        rows.append(
            [f"a user of {events:.0f} events in Redis", f"{record['redis.bytes_a_user']:,.0f} B", "capacity.json"]
        )
        rows.append(["an event more", f"{record['redis.bytes_an_event']:.1f} B", "capacity.json"])
    rows.append(["a log-probability in the table", "2 B", "float16"])
    return _table(["unit", "cost", "from"], rows)


def serving(record: Record) -> str:
    """Memory, cores and machines of the online side."""
    if len(sizes(record)) < 2 or "redis.users" not in record:
        return ""
    largest, usable = sizes(record)[-1], MACHINE_GB * FILL
    ranker, explorer = (bytes_an_item(record, name) for name in ("ranker", "explorer"))
    shards, call = math.ceil(ITEMS / largest), float(record[f"ranker.cpu_ms@{largest}"])
    cores = RATE * shards * call / 1e3 / UTILISATION
    rows = [
        ["items in a ranker that holds them all", f"{ITEMS:,} × {ranker:,.0f} B", f"{ITEMS * ranker / 1e9:,.0f} GB"],
        ["shards, none larger than was measured", f"{ITEMS:,} / {largest:,}", f"{shards}"],
        ["a shard's memory", f"{largest:,} × {ranker:,.0f} B", f"{largest * ranker / 1e9:,.1f} GB"],
        ["memory of all shards", f"{COPIES} × {shards} × {largest * ranker / 1e9:,.1f} GB",
         f"{COPIES * shards * largest * ranker / 1e9:,.0f} GB"],
        ["cores, every shard asked for every request",
         f"{RATE:,} × {shards} × {call:.2f} ms / {UTILISATION}", f"{cores:,.0f}"],
        ["cores, one shard asked: the least that a choice of shards could come to",
         f"{RATE:,} × {call:.2f} ms / {UTILISATION}", f"{cores / shards:,.0f}"],
        ["items in an explorer, each process", f"{ITEMS:,} × {explorer:,.0f} B", f"{ITEMS * explorer / 1e9:,.0f} GB"],
    ]  # fmt: skip
    together = [items for items in sizes(record) if f"explorer.cpu_ms@{items}" in record]
    if together:
        cost = float(record[f"explorer.cpu_ms@{together[-1]}"])
        found = RATE * cost / 1e3 / UTILISATION
        rows.append(["cores of the explorers", f"{RATE:,} × {cost:.2f} ms / {UTILISATION}", f"{found:,.0f}"])
    long = record["redis.bytes_a_user_beside_events"] + LONG_HISTORY * record["redis.bytes_an_event"]
    for name, size in (("as measured", record["redis.bytes_a_user"]), (f"of {LONG_HISTORY:,} events", long)):
        total = USERS * size * COPIES
        machines = math.ceil(total / 1e9 / usable)
        rows.append(
            [f"Redis, users {name}", f"{USERS:,} × {size:,.0f} B × {COPIES}",
             f"{total / 1e12:,.1f} TB: {machines:,} machines of {MACHINE_GB} GB"]
        )  # fmt: skip
    return _table(["what", "arithmetic", "result"], rows)


def table(record: Record) -> str:
    """The transition table's size, whole and partial."""
    rows = []
    for interests, contexts in (
        (INTERESTS, INTERESTS * (INTERESTS - 1)),
        (MANY_INTERESTS, MANY_INTERESTS * (MANY_INTERESTS - 1)),
        (MANY_INTERESTS, PARTIAL),
    ):
        size = contexts * interests * 2
        rows.append([f"{interests:,}", f"{contexts:,}", f"{contexts:,} × {interests:,} × 2 B", f"{size / 1e9:,.1f} GB"])
    return _table(["interests", "pairs", "arithmetic", "table"], rows)


def gpu(record: Record) -> str:
    """GPU hours by operations: 2·N·D to read, 6·N·D to train."""
    rows = []
    for interests, contexts in ((INTERESTS, INTERESTS * (INTERESTS - 1)), (MANY_INTERESTS, PARTIAL)):
        for name, parameters in MODELS.items():
            tokens = contexts * TOKENS
            read = _hours(2 * parameters * tokens, MFU_READING)
            train = _hours(6 * parameters * tokens * EPOCHS, MFU_TRAINING)
            rows.append(
                [f"{contexts:,} pairs of {interests:,} interests", name, f"{tokens:.2e}",
                 f"2 × {parameters:.3g} × {tokens:.2e}", f"{read:,.2f}",
                 f"6 × {parameters:.3g} × {tokens:.2e} × {EPOCHS}", f"{train:,.2f}"]
            )  # fmt: skip
    head = ["contexts", "model", "D, tokens", "to read", "GPU hours", "to train all weights", "GPU hours "]
    return _table([name.strip() for name in head], rows)


def ranker_training(record: Record) -> str:
    """Operations and memory of the ranker's training."""
    from newfound.config import RankerConfig
    from newfound.ranker.model import Encoder
    from newfound.ranker.train import SHARED_NEGATIVES

    if "redis.users" not in record:
        return ""
    config = RankerConfig()
    encoder, events = sum(p.numel() for p in Encoder(config).parameters()), record["redis.events_a_user"]
    tokens, each = USERS * events, 6 * (encoder + config.dim * SHARED_NEGATIVES)
    vectors = ITEMS * config.dim * 4
    rows = [
        ["events of an epoch", f"{USERS:,} × {events:.0f}", f"{tokens:.2e}"],
        ["operations an event", f"6 × ({encoder:,} + {config.dim} × {SHARED_NEGATIVES:,})", f"{each:,}"],
        ["GPU hours an epoch", f"{tokens:.2e} × {each:,} / ({PEAK_FLOPS:.3g} × {MFU_RANKER})",
         f"{_hours(tokens * each, MFU_RANKER):,.1f}"],
        ["item vectors in training: weights, two moments, average, best",
         f"{ITEMS:,} × {config.dim} × 4 B × {STATE_COPIES}", f"{vectors * STATE_COPIES / 1e9:,.0f} GB a process"],
        ["gradients that are added up at every step", f"{ITEMS:,} × {config.dim} × 4 B", f"{vectors / 1e9:,.1f} GB"],
    ]  # fmt: skip
    return _table(["what", "arithmetic", "result"], rows)


def _hours(operations: float, utilisation: float) -> float:
    return operations / (PEAK_FLOPS * utilisation) / 3600


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


TABLES: Final[dict[str, Callable[[Record], str]]] = {
    "assumptions": assumptions,
    "services": services,
    "units": units,
    "serving": serving,
    "table": table,
    "gpu": gpu,
    "ranker": ranker_training,
}
