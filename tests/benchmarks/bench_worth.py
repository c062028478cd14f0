"""The worth of the language model, and the served slate beside every simple rival, on four data sets.

    make bench-worth

Every set is run by the main job with the defaults (`python -m pipelines local training`), whose steps are cached, so a
bench that was stopped goes on where it stood. What follows is measured on the fit before the gates: learned from the
past, chosen on users who are no test users, judged on test users. On the two small sets planner, teacher and decision
are fitted anew in four folds, so that every user is a test user once. A term's worth is what is lost in log-likelihood,
in nats a choice, when the term is left out and the rest is fitted anew (its interval is paired, over users).
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from newfound.clusters import Clusters
from newfound.clusters.embed import sentences
from newfound.config import TrainingConfig, load_config
from newfound.datasets import Dataset
from newfound.evaluation import moments as protocols
from newfound.evaluation.bootstrap import Bootstrap
from newfound.evaluation.decision_fit import LEARNERS, Source, kept
from newfound.evaluation.methods import put
from newfound.evaluation.served import coverage
from newfound.measures import gains, hits
from newfound.planner.base_model import base_model
from newfound.ranker import Ranker
from newfound.recommend.cluster_terms import ClusterTerms
from newfound.recommend.fit import Moments, fit_nested_logit, log_likelihoods
from newfound.recommend.item_terms import FADE, ItemTerms, leading_components
from newfound.recommend.nested_logit import Coefficients, joint_utilities
from newfound.table import TransitionTable
from newfound.types import Floats, Ints
from tests.benchmarks.folds import fold_parts, outcomes
from tests.benchmarks.new_shelves import new_shelves
from tests.benchmarks.record import machine, write_record

ROOT: Final = Path(__file__).resolve().parents[2]
DATA: Final = ROOT.parent / "shared" / "data"
RUNS: Final = ROOT / "runs" / "bench" / "worth"
LAYER: Final = 10  # whose states are read as what an item's words mean
TOKENS: Final = 40
CELLS: Final = 1 << 26  # scores of test moments that are held
METHODS: Final = ("served", "ranker_direct", "table", "planner", "ranker_novel", "choice_model", "pair_frequency",
                  "cluster_sequence", "nearest_embedding", "most_popular", "random_novel")  # fmt: skip

ITEMS_OF_A_RANDOM_MODEL: Final = 5000  # reading more items with a model that knows nothing says nothing more
ENDS: Final = ("", ".lower", ".upper")
PER_MOMENT: Final = ("served_hits", "served_gains", "direct_hits", "direct_gains", "planner", "teacher")

log = logging.getLogger("newfound.bench")


@dataclass(frozen=True)
class Set:
    """A data set, as the main job is told of it."""

    name: str
    config: str
    options: tuple[str, ...]
    folds: int = 1
    """of the users; more than one where a quarter of them are too few"""


SETS: Final = (
    Set("movielens", "local", (), folds=4),
    Set("movietweetings", "movietweetings", ("--folder", str(DATA / "movietweetings-100k")), folds=4),
    Set(
        "toys",
        "local",
        (
            "--interactions",
            str(DATA / "amazon-toys/Toys_and_Games.txt"),
            "--items",
            str(DATA / "amazon-toys/items.csv"),
        ),
    ),
    Set(
        "microlens",
        "local",
        (
            *("--interactions", str(DATA / "microlens-50k/interactions.parquet")),
            *("--items", str(DATA / "microlens-50k/items.csv")),
        ),
    ),
)


def run(one: Set) -> Path:
    """The main job on a set; its runs' folder."""
    runs = RUNS / one.name
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "local",
        "training",
        "--config",
        f"pipelines/configs/{one.config}.yaml",
    ]
    done = subprocess.run([*command, *one.options, "--runs", str(runs), "--releases", str(runs / "releases")], cwd=ROOT)
    if done.returncode:
        log.warning("%s: the main job ended with %d; what it measured before is used", one.name, done.returncode)
    return runs


def source_of(parts: Mapping[str, Path], config: TrainingConfig) -> Source:
    """What a fold's decision reads."""
    clusters = Clusters.load(parts["clusters"])
    ranker = Ranker.load(parts["ranker"])
    return Source(
        ranker=ranker,
        table=TransitionTable.load(parts["table"], clusters),
        items=ItemTerms.load(parts["decision"], len(ranker.items)),
        clusters=ClusterTerms.load(parts["decision"], len(clusters.interface)),
        interest=clusters,
        policy=config.policy,
        timed=config.split.cut == "global",
    )


class Language:
    """Means of a language model's states over the words of each item, as a term like the sentence encoder's texts.

    Args:
        runs: of the set; states are kept beside them.
        random: whether the model's weights are random ones of the same size.
    """

    def __init__(self, runs: Path, clusters: Clusters, *, random: bool = False) -> None:
        file = runs / ("states-random.npy" if random else "states.npy")
        if not file.exists():
            np.save(file, self._states(runs, clusters, random))
        self.vectors = leading_components(np.load(file), 64)

    @staticmethod
    def _states(runs: Path, clusters: Clusters, random: bool) -> Floats:
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        folder = base_model(None, RUNS / "base")
        config = AutoConfig.from_pretrained(folder, num_hidden_layers=LAYER)
        torch.manual_seed(0)
        model = AutoModel.from_config(config) if random else AutoModel.from_pretrained(folder, config=config)
        model = model.float().eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        items = Dataset(runs / "dataset").frame("items")
        words = dict(zip(items["item_id"], sentences(items), strict=True))
        ids = [tokenizer(words[item][:160])["input_ids"][:TOKENS] for item in clusters.item_order]
        found = np.zeros((len(ids), config.hidden_size), dtype=np.float32)
        order = np.argsort([len(one) for one in ids], kind="stable")
        with torch.inference_mode():
            for start in range(0, len(order), 64):
                rows = order[start : start + 64]
                width = max(max(len(ids[row]) for row in rows), 1)
                tokens, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
                for at, row in enumerate(rows):
                    tokens[at, : len(ids[row])] = torch.tensor(ids[row], dtype=torch.long)
                    mask[at, : len(ids[row])] = 1
                states = model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
                if width > 1:  # the first state is a sink of attention and says nothing of the words
                    mask[:, 0] = 0
                mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
                found[rows] = mean.numpy()
                log.info("states of %d of %d items", start + len(rows), len(order))
        return found

    def term(self, histories: Sequence[Ints]) -> Floats:
        """[B, items], the dot product of every item with the faded mean of each history."""
        profiles = np.zeros((len(histories), self.vectors.shape[1]), dtype=np.float32)
        for row, history in enumerate(histories):
            if len(history):
                weights = FADE ** np.arange(len(history) - 1, -1, -1.0)
                profiles[row] = (weights / weights.sum()) @ self.vectors[history]
        return profiles @ self.vectors.T

    def permuted(self) -> Language:
        """The same states, given to other items."""
        other = object.__new__(Language)
        other.vectors = self.vectors[np.random.default_rng(0).permutation(len(self.vectors))]
        return other


def stored(source: Source, events: protocols.Events, more: Mapping[str, Language]) -> list[Moments]:
    """The terms of some moments, with further ones of items."""
    found = []
    length = source.ranker.encoder.length
    for start, batch in zip(range(0, len(events), 128), source.moments(events), strict=True):
        histories = [source.ranker.positions(h[-length:]) for h in events.histories[start : start + 128]]
        extra = {name: language.term(histories) for name, language in more.items()}
        found.append(replace(batch, items={**batch.items, **extra}))
    return found


def slates(moments: Sequence[Moments], bounds: Ints, coefficients: Coefficients) -> Ints:
    """Rank of every chosen item by joint utility; a huge one where it could not be shown."""
    ranks = []
    for batch in moments:
        utility = np.zeros(batch.allowed.shape, dtype=np.float32)
        for name, weight in coefficients.items.items():
            utility += np.float32(weight) * batch.items[name]
        utility[~batch.allowed] = -np.inf
        for row, target in enumerate(batch.targets):
            offsets = np.zeros(len(bounds) - 1, dtype=np.float32)
            for name, weight in coefficients.clusters.items():
                offsets += np.float32(weight) * batch.clusters[name][row]
            joint = joint_utilities(utility[row], bounds, offsets, coefficients.dissimilarity)
            ranks.append(int((joint > joint[target]).sum()) if batch.allowed[row, target] else 1 << 30)
    return np.array(ranks)


def measure(one: Set, runs: Path) -> Iterator[dict[str, float]]:
    """Figures of one set, by flat keys that begin with its name, stage by stage."""
    config = load_config(ROOT / "pipelines" / "configs" / f"{one.config}.yaml", {})
    stages: list[Callable[[], dict[str, float]]] = [lambda: of_run(runs)]
    folds = [fold_parts(runs, config, fold) for fold in range(one.folds)]
    if one.folds > 1:
        stages.append(lambda: shown(runs, folds, config))
    stages += [lambda: worth(runs, folds, config), lambda: shelves(runs, config)]
    for stage in stages:
        yield {f"{one.name}.{key}": value for key, value in stage().items()}


def of_run(runs: Path) -> dict[str, float]:
    """What the run itself has measured."""
    metrics = json.loads((runs / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    wanted = {"planner.match_rate": "planner.match_rate"}
    figures = [f"{figure}{end}" for figure in ("novel_hr@10", "novel_ndcg@10") for end in ENDS]
    for method in METHODS:
        for key in (method, f"rival.{method}"):
            wanted |= {f"{key}.{figure}": f"{method}.{figure}" for figure in figures}
            wanted |= {f"{key}.{name}": f"{method}.coverage" for name in ("label_coverage", "slate_coverage")}
    wanted |= {f"served.minus.ranker_direct.{figure}": f"served.minus.ranker_direct.{figure}" for figure in figures}
    ours = "novel_recall@10"
    wanted |= {f"planner.minus.choice_model.{ours}{end}": f"planner.minus.teacher.{ours}{end}" for end in ENDS}
    record = {name: metrics[key] for key, name in wanted.items() if key in metrics}
    return record | {"folds": 1, "test_moments": int(metrics["events"]), "test_users": int(metrics["users"])}


def shown(runs: Path, folds: Sequence[Mapping[str, Path]], config: TrainingConfig) -> dict[str, float]:
    """Slates as served beside the ranker with a filter, and planner beside teacher, over all folds."""
    found = [outcomes(parts, config, runs / "folds" / f"{fold}.npz") for fold, parts in enumerate(folds)]
    users = np.concatenate([one.users for one in found])
    boot = Bootstrap(users, resamples=config.evaluation.bootstrap, confidence=0.95, seed=config.seed)
    record: dict[str, float] = {"test_moments": len(users), "test_users": len(np.unique(users))}
    values = {name: np.concatenate([getattr(one, name) for one in found]) for name in PER_MOMENT}
    for of, name in (("hits", "novel_hr@10"), ("gains", "novel_ndcg@10")):
        put(record, f"folds.served.{name}", boot.mean(values[f"served_{of}"]))
        put(record, f"folds.ranker_direct.{name}", boot.mean(values[f"direct_{of}"]))
        difference = boot.difference(values[f"served_{of}"], values[f"direct_{of}"])
        put(record, f"served.minus.ranker_direct.{name}", difference)
    record["folds.served.coverage"] = coverage(sum(one.served_shown for one in found))
    record["folds.ranker_direct.coverage"] = coverage(sum(one.direct_shown for one in found))
    record["folds"] = len(folds)
    for name in ("planner", "teacher"):
        put(record, f"folds.{name}.novel_recall@10", boot.mean(values[name]))
    put(record, "planner.minus.teacher.novel_recall@10", boot.difference(values["planner"], values["teacher"]))
    return record


def shelves(runs: Path, config: TrainingConfig) -> dict[str, float]:
    """Interests that opened today, found by their words."""
    clusters = Clusters.load(runs / "clusters")
    texts = {"encoder": leading_components(clusters.vectors["text"], 64), "language": Language(runs, clusters).vectors}
    if len(clusters.item_order) <= ITEMS_OF_A_RANDOM_MODEL:
        texts["language_random"] = Language(runs, clusters, random=True).vectors
    return new_shelves(runs, config, texts, config.evaluation.confidence)


def worth(runs: Path, folds: Sequence[Mapping[str, Path]], config: TrainingConfig) -> dict[str, float]:
    """What each term is worth on test users, and slates of rivals that pool what they know."""
    interest = Clusters.load(runs / "clusters")
    more = {"states": Language(runs, interest)}
    more["states_permuted"] = more["states"].permuted()
    if len(interest.item_order) <= ITEMS_OF_A_RANDOM_MODEL:
        more["states_random"] = Language(runs, interest, random=True)
    parts = [_judged(source_of(fold, config), fold["dataset"], config, more) for fold in folds]
    users, held = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    likely = {name: np.concatenate([part[2][name] for part in parts]) for name in parts[0][2]}
    ranks = {name: np.concatenate([part[3][name] for part in parts]) for name in parts[0][3]}
    boot = Bootstrap(users[held], resamples=1000, confidence=0.95, seed=config.seed)
    whole = Bootstrap(users, resamples=1000, confidence=0.95, seed=config.seed)
    record: dict[str, float] = {"moments": len(users), "moments_fitted": sum(part[4] for part in parts)}
    for key, (ours, theirs) in WORTHS.items():
        if ours not in likely:
            continue
        put(record, key, boot.difference(likely[ours], likely[theirs]))
    for name in ("full", "ranker_and_teacher"):
        put(record, f"coldest_{name}.novel_hr@10", whole.mean(hits(ranks[name], 10)))
        put(record, f"coldest_{name}.novel_ndcg@10", whole.mean(gains(ranks[name], 10)))
    return record


def _judged(
    source: Source, dataset: Path, config: TrainingConfig, more: Mapping[str, Language]
) -> tuple[Any, Any, dict[str, Floats], dict[str, Ints], int]:
    """Users and held moments of a fold, log-likelihoods and ranks by variant, and the moments fitted to."""
    size, items, limits = config.transitions.context, len(source.ranker.items), config.evaluation
    learn, test = (
        protocols.novel_events(
            protocols.read_journeys(dataset, source.interest, groups, limits.users_at_most, config.seed), size
        )
        for groups in (LEARNERS, ["test"])
    )
    learn = kept(learn, items, config.seed)
    if len(test) * items > CELLS:
        test = test.take(np.sort(np.random.default_rng(config.seed).choice(len(test), CELLS // items, replace=False)))
    fitting, judging = stored(source, learn, more), stored(source, test, more)
    likely, ranks = {}, {}
    for name, (of_items, of_clusters) in variants(source.item_names).items():
        if name == "states_random" and name not in more:
            continue
        of_items = [term for term in of_items if term in fitting[0].items]
        found = fit_nested_logit(lambda: fitting, source.bounds, of_items, of_clusters)
        likely[name] = log_likelihoods(judging, source.bounds, found.coefficients)
        ranks[name] = slates(judging, source.bounds, found.coefficients)
        log.info("%s: log-likelihood %.4f", name, likely[name].mean())
    users = np.concatenate([batch.users for batch in judging])
    held = np.concatenate([b.allowed[np.arange(len(b.targets)), b.targets] for b in judging])
    return users, held, likely, ranks, len(learn)


def variants(every: list[str]) -> dict[str, tuple[list[str], tuple[str, ...]]]:
    """Terms of items and of clusters of each fit that is compared."""
    clusters = ("planner", "choice", "demand")
    plain = [name for name in every if name != "text"]
    behind = ("choice", "demand")
    return {
        "full": (every, clusters),
        "without_planner": (every, behind),
        "without_teacher": (every, ("planner", "demand")),
        "without_text": (plain, clusters),
        "without_counts": (["ranker", "cooccurrence", *(["text"] if "text" in every else [])], clusters),
        "ranker_and_teacher": (plain, behind),
        "states": ([*plain, "states"], behind),
        "states_permuted": ([*plain, "states_permuted"], behind),
        "states_random": ([*plain, "states_random"], behind),
        "text": (every, behind),
        "text_and_states": ([*every, "states"], behind),
    }


WORTHS: Final = {
    "llm.worth": ("full", "without_planner"),
    "teacher.worth": ("full", "without_teacher"),
    "text.worth": ("full", "without_text"),
    "counts.worth": ("full", "without_counts"),
    "llm_states.worth": ("states", "ranker_and_teacher"),
    "llm_states_permuted.worth": ("states_permuted", "ranker_and_teacher"),
    "llm_states_random.worth": ("states_random", "ranker_and_teacher"),
    "sentence_encoder.worth": ("text", "ranker_and_teacher"),
    "llm_states_beside_encoder.worth": ("text_and_states", "text"),
}
"""By figure: the fit with the term and the fit without it."""


def show_tables(record: Mapping[str, Any]) -> None:
    """The record as tables."""
    console = Console()
    for one in SETS:
        if f"{one.name}.moments" not in record:
            continue
        table = Table("method", "NovelHR@10", "NovelNDCG@10", "coverage", title=one.name)
        for method in METHODS:
            if f"{one.name}.{method}.novel_hr@10" in record:
                cells = (_range(record, f"{one.name}.{method}.{name}") for name in ("novel_hr@10", "novel_ndcg@10"))
                table.add_row(method, *cells, f"{record.get(f'{one.name}.{method}.coverage', float('nan')):.3f}")
        for name in ("novel_hr@10", "novel_ndcg@10"):
            table.add_row(
                f"served minus ranker_direct, {name}", _range(record, f"{one.name}.served.minus.ranker_direct.{name}")
            )
        for key in sorted(record):
            if key.startswith(f"{one.name}.") and key.endswith(".worth"):
                table.add_row(key.removeprefix(f"{one.name}."), _range(record, key))
        console.print(table)


def _range(record: Mapping[str, Any], key: str) -> str:
    return f"{record[key]:.4f} [{record[f'{key}.lower']:.4f}, {record[f'{key}.upper']:.4f}]"


def main() -> None:
    """Runs, measures, writes `runs/bench/worth.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=[one.name for one in SETS], default=[one.name for one in SETS])
    parser.add_argument("--measure-only", action="store_true", help="what the last runs left, without running anew")
    options = parser.parse_args()
    chosen = options.sets
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out = ROOT / "runs" / "bench" / "worth.json"
    record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    for one in SETS:
        if one.name in chosen:
            record = {key: value for key, value in record.items() if not key.startswith(f"{one.name}.")}
            for found in measure(one, RUNS / one.name if options.measure_only else run(one)):
                record |= found
                write_record(out, {**record, **machine("transformers", "sentence-transformers")})
    show_tables(record)


if __name__ == "__main__":
    main()
