"""The tables of README and docs, written from the records of finished benchmarks.

    make tables

A table stands between `<!-- table NAME -->` and `<!-- end -->`; what stands there is replaced. Nothing is measured
here: figures come from runs/bench/{worth,experiment,world,scale,capacity,serving,joint}.json, and from the runs on
the four data sets behind the first. A table whose record is not there stays as it is.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from newfound.clusters import Clusters
from newfound.files import write_text
from tests.benchmarks import capacity_tables, experiment_tables, scale_tables
from tests.benchmarks.bench_scale import seconds_of
from tests.benchmarks.scale_plot import plot

ROOT: Final = Path(__file__).resolve().parents[2]
RECORD: Final = ROOT / "runs" / "bench" / "worth.json"
EXPERIMENT: Final = ROOT / "runs" / "bench" / "experiment.json"
WORLD: Final = ROOT / "runs" / "bench" / "world.json"
CAPACITY: Final = ROOT / "runs" / "bench" / "capacity.json"
BESIDE: Final = ("serving", "joint")  # records whose figures stand in the tables of capacity, by their names
OTHERS: Final = ("experiment-", "capacity-", "scale-")  # tables that do not come from the record of `make bench-worth`
SCALE: Final = ROOT / "runs" / "bench" / "scale.json"
RUNS: Final = ROOT / "runs" / "bench" / "worth"
SETS: Final = {
    "movielens": "MovieLens-100K",
    "movietweetings": "MovieTweetings",
    "toys": "Amazon Toys",
    "microlens": "MicroLens-50K",
}
METHODS: Final = {
    "served": "**served: planner and ranker decide together**",
    "rival.ranker_direct": "ranker alone, its best items of never-consumed clusters",
    "rival.ranker_novel": "ranker, summed to clusters, then restricted to them",
    "rival.choice_model": "choice model, the planner's teacher",
    "planner": "planner",
    "table": "its table",
    "rival.cluster_sequence": "sequence model over clusters",
    "rival.pair_frequency": "pair frequency with back-off",
    "rival.nearest_embedding": "nearest cluster by embedding",
    "rival.most_popular": "most popular clusters",
    "rival.random_novel": "random",
}
MAIN: Final = (
    "served",
    "rival.ranker_direct",
    "rival.ranker_novel",
    "rival.choice_model",
    "planner",
    "rival.pair_frequency",
    "rival.most_popular",
)
WORTHS: Final = {
    "llm.worth": "planner's term, beside ranker, text, teacher, demand",
    "teacher.worth": "teacher's term, beside ranker, text, planner, demand",
    "text.worth": "text of items (sentence encoder), beside all",
    "counts.worth": "popularity, approval and the like, beside all",
    "llm_states.worth": "states of the language model over titles, beside ranker and teacher",
    "sentence_encoder.worth": "the same term from the sentence encoder",
    "llm_states_permuted.worth": "falsifier: the states given to other items",
    "llm_states_random.worth": "falsifier: states of a model of the same size with random weights",
    "llm_states_beside_encoder.worth": "states of the language model, beside the sentence encoder as well",
}

SHELVES: Final = {
    "planner": "planner",
    "teacher": "its teacher",
    "nearest_embedding": "nearest by the sentence encoder",
    "encoder": "a bilinear form on the sentence encoder's vectors",
    "language": "the same on states of the language model",
    "language_random": "the same on states of a model with random weights",
    "chance": "chance",
}
ENDS: Final = {
    "planner.recall_over_chance.lower": "planner, first, over chance: lower bound",
    "planner.match_rate": "match rate",
}

log = logging.getLogger("newfound.bench")
Record = Mapping[str, Any]


def metrics_of(name: str) -> dict[str, float]:
    """metrics.json of a set's run; nothing where there is none."""
    file = RUNS / name / "evaluation" / "metrics.json"
    found: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def _range(found: Record, key: str, digits: int = 3, sign: str = "") -> str:
    if key not in found:
        return ""
    value, low, high = (f"{found[key + end]:{sign}.{digits}f}" for end in ("", ".lower", ".upper"))
    return f"{_short(value)} [{_short(low)}, {_short(high)}]"


def _short(number: str) -> str:
    return re.sub(r"^([+-]?)0\.", r"\1.", number)


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _known() -> dict[str, dict[str, float]]:
    return {name: found for name in SETS if (found := metrics_of(name))}


def four_sets(record: Record) -> str:
    """A liked new item among ten, for the methods that matter most."""
    return _found_among_ten(record, MAIN)


def all_methods(record: Record) -> str:
    """The same for every method."""
    return _found_among_ten(record, tuple(METHODS))


def _found_among_ten(record: Record, methods: tuple[str, ...]) -> str:
    known = _known()
    rows = [[METHODS[key], *(_range(found, f"{key}.novel_hr@10") for found in known.values())] for key in methods]
    for name, digits in (("novel_hr@10", 3), ("novel_ndcg@10", 4)):
        label = f"served minus ranker alone, {'hits' if 'hr' in name else 'NDCG'}"
        rows.append([label, *(_range(record, f"{s}.served.minus.ranker_direct.{name}", digits, "+") for s in known)])
    rows.append(["moments, users of the difference", *(_moments(record, s) for s in known)])
    return _rows(["a liked new item among ten", *(SETS[name] for name in known)], rows)


def _moments(record: Record, name: str) -> str:
    if f"{name}.test_moments" not in record:
        return ""
    return f"{record[f'{name}.test_moments']:,}, {record[f'{name}.test_users']:,}"


def clusters_first(record: Record) -> str:
    """The right interest first and among ten."""
    known = _known()
    keys = [key for key in METHODS if any(f"{key}.novel_recall@1" in found for found in known.values())]
    rows = []
    for key in [*keys, "chance"]:
        cells = []
        for found in known.values():
            one, ten = found.get(f"{key}.novel_recall@1"), found.get(f"{key}.novel_recall@10")
            cells.append("" if one is None or ten is None else f"{_short(f'{one:.3f}')}, {_short(f'{ten:.3f}')}")
        rows.append([METHODS.get(key, "chance"), *cells])
    minus = "planner.minus.teacher.novel_recall@10"
    rows.append(["planner minus teacher, among ten", *(_range(record, f"{name}.{minus}", 3, "+") for name in known)])
    for key, label in ENDS.items():
        rows.append([label, *(f"{found[key]:.2f}" if key in found else "" for found in known.values())])
    return _rows(["the right interest: first, among ten", *(SETS[name] for name in known)], rows)


def worth(record: Record) -> str:
    """What each term is worth, in nats a choice."""
    known = [name for name in SETS if f"{name}.moments" in record]
    rows = [[label, *(_range(record, f"{name}.{key}", 3, "+") for name in known)] for key, label in WORTHS.items()]
    rows.append(["moments judged", *(f"{record[f'{name}.moments']:,}" for name in known)])
    return _rows(["nats a choice", *(SETS[name] for name in known)], rows)


def shelves(record: Record) -> str:
    """New interests that are known by their words alone: the right one first, among three, among ten."""
    known = [name for name in SETS if f"{name}.new_shelves.moments" in record]
    rows = []
    for key, label in SHELVES.items():
        cells = []
        for name in known:
            found = [record.get(f"{name}.new_shelves.{key}.recall@{k}") for k in (1, 3, 10)]
            cells.append(", ".join(_short(f"{one:.3f}") for one in found if one is not None))
        rows.append([label, *cells])
    for other in ("nearest_embedding", "teacher"):
        key = f"new_shelves.planner.minus.{other}.recall@10"
        label = f"planner minus {SHELVES[other]}, among ten"
        rows.append([label, *(_range(record, f"{name}.{key}", 3, "+") for name in known)])
    names = ("interests", "moments", "users")
    counts = ([f"{record[f'{name}.new_shelves.{one}']:,}" for one in names] for name in known)
    rows.append([", ".join(names), *(", ".join(count) for count in counts)])
    return _rows(["first, among three, among ten", *(SETS[name] for name in known)], rows)


def costs(record: Record) -> str:
    """Time and memory of the main job."""
    rows = []
    for name, label in SETS.items():
        file = RUNS / name / "profile.json"
        if not file.exists():
            continue
        steps = json.loads(file.read_text(encoding="utf-8"))
        wall, cpu = (sum(step[key] for step in steps) / 60 for key in ("wall_seconds", "cpu_seconds"))
        top = max(steps, key=lambda step: float(step["peak_megabytes"]))
        slow = max(steps, key=lambda step: float(step["wall_seconds"]))
        rows.append([label, f"{wall:.1f}", f"{cpu:.1f}", f"{top['peak_megabytes'] / 1000:.1f}", str(top["task"]),
                     f"{slow['task']}, {slow['wall_seconds'] / 60:.1f}"])  # fmt: skip
    return _rows(["", "minutes", "processor minutes", "peak GB", "of the step", "longest step, minutes"], rows)


def fidelity(record: Record) -> str:
    """How well descriptions lead to their interests."""
    rows = []
    for name, label in SETS.items():
        if not (RUNS / name / "clusters").exists():
            continue
        clusters = Clusters.load(RUNS / name / "clusters")
        found = clusters.info.get("description_fidelity", {})
        keys = ("@1", "@10", ".chance@10", ".ids@1", ".ids@10")
        cells = [_short(f"{found[f'description_fidelity{key}']:.3f}") for key in keys] if found else [""] * len(keys)
        rows.append([label, str(len(clusters.interface)), *cells])
    return _rows(["", "interests", "at one", "at ten", "chance at ten", "ids at one", "ids at ten"], rows)


def _from(file: Path, make: Callable[[Record], str]) -> Callable[[Record], str]:
    """A table from a record of its own."""

    def made(record: Record) -> str:
        return make(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else ""

    return made


def _capacity(make: Callable[[Record], str]) -> Callable[[Record], str]:
    """A table from the record of capacity, beside which others lie under their names."""

    def made(record: Record) -> str:
        files = {name: CAPACITY.with_name(f"{name}.json") for name in BESIDE}
        beside = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}
        return make({**record, **beside})

    return _from(CAPACITY, made)


def _descriptions(name: str) -> Callable[[Record], str]:
    def listed(record: Record) -> str:
        if not (RUNS / name / "clusters").exists():
            return ""
        clusters = Clusters.load(RUNS / name / "clusters")
        return "\n".join(f"{at}. {text}" for at, text in enumerate(clusters.descriptions, start=1))

    return listed


TABLES: Final[dict[str, Callable[[Record], str]]] = {
    "four-sets": four_sets,
    "all-methods": all_methods,
    "clusters-first": clusters_first,
    "worth": worth,
    "new-shelves": shelves,
    "costs": costs,
    "fidelity": fidelity,
    "microlens-interests": _descriptions("microlens"),
    "toys-interests": _descriptions("toys"),
    "experiment-uci": _from(EXPERIMENT, lambda record: experiment_tables.sealed(record, "uci_at_n")),
    "experiment-retained": _from(EXPERIMENT, lambda record: experiment_tables.sealed(record, "retained_interests")),
    "experiment-satisfaction": _from(EXPERIMENT, lambda record: experiment_tables.sealed(record, "satisfaction")),
    "experiment-real": _from(EXPERIMENT, experiment_tables.real),
    "experiment-own": lambda record: experiment_tables.own({SETS[name]: found for name, found in _known().items()}),
    "experiment-world": _from(WORLD, experiment_tables.world),
    "scale-steps": _from(SCALE, scale_tables.steps),
    "scale-picture": _from(SCALE, lambda record: "![Seconds of every table step over interactions](scale.svg)"),
    "scale-rivals": _from(SCALE, scale_tables.rivals),
    **{f"capacity-{name}": _capacity(make) for name, make in capacity_tables.TABLES.items()},
}


def fill(text: str, record: Record) -> str:
    """A page with its tables written anew.

    Args:
        text: the page.
        record: of `make bench-worth`; empty where there is none.
    """

    def table(found: re.Match[str]) -> str:
        name = found["name"]
        made = TABLES[name](record) if record or name.startswith(OTHERS) else ""
        return f"{found['head']}\n{made}\n{found['end']}" if made else found[0]

    pattern = r"(?P<head><!-- table (?P<name>[a-z-]+) -->)\n.*?(?P<end><!-- end -->)"
    return re.sub(pattern, table, text, flags=re.DOTALL)


def main() -> None:
    """Fills README.md and docs/*.md, and draws docs/scale.svg."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        before = page.read_text(encoding="utf-8")
        after = fill(before, record)
        if after != before:
            write_text(page, after)
            log.info("%s", page.relative_to(ROOT))
    if SCALE.exists():
        steps = seconds_of(json.loads(SCALE.read_text(encoding="utf-8")))
        write_text(ROOT / "docs" / "scale.svg", plot(steps))


if __name__ == "__main__":
    main()
