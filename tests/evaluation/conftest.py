"""A small fit of every part but the language model, and made-up findings with hostile texts for the page."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import RankerConfig, TrainingConfig, TransitionsConfig
from newfound.features.histories import Histories

HOSTILE = '<script>alert("x")</script> & \'quoted\' \x07 "title"'
METHODS = [
    ("planner", "Planner", "ours", 0.12, 0.52),
    ("rival.most_popular", "Most popular novel", "rival", 0.088, 0.40),
    ("rival.pair_frequency", "Pair frequency, backed off", "rival", 0.104, 0.53),
    ("rival.nearest_embedding", "Nearest by embedding", "rival", 0.03, 0.22),
    ("rival.sequence", "Sequence model over clusters", "rival", 0.11, 0.55),
    ("rival.ranker_novel", "Ranker, never-consumed clusters", "rival", 0.115, 0.54),
    ("rival.random_novel", "Random novel", "rival", 0.013, 0.13),
]


def rough_clusters(dataset: Path, histories: Path, n: int, out: Path) -> Path:
    """n interests under n // 6 branches, of items that the same people consume: k-means on a truncated SVD."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD

    items = pd.read_parquet(dataset / "items.parquet")["item_id"].tolist()
    past = Histories.load(histories)
    place = {item: at for at, item in enumerate(items)}
    matrix = np.zeros((len(items), len(past)))
    rows = np.repeat(np.arange(len(past)), np.diff(past.offsets))
    matrix[[place[item] for item in past.item_ids], rows] = 1
    matrix /= np.maximum(matrix.sum(1, keepdims=True), 1) ** 0.5
    vectors = TruncatedSVD(16, random_state=0).fit_transform(matrix).astype(np.float32)
    found = KMeans(n, n_init=1, random_state=0).fit(vectors)
    centres = found.cluster_centers_.astype(np.float32)
    branch_of = KMeans(max(2, n // 6), n_init=1, random_state=0).fit(centres).labels_
    tree, paths, nodes = [], [], []
    counts = np.bincount(found.labels_, minlength=n)
    traffic = np.array([matrix[found.labels_ == c].sum() for c in range(n)])
    traffic = traffic / traffic.sum()
    for branch in np.unique(branch_of):
        inside = [c for c in np.flatnonzero(branch_of == branch) if counts[c]]
        tree.append(
            (f"b{branch}", None, 1, f"branch {branch}", int(counts[inside].sum()), float(traffic[inside].sum()))
        )
        nodes.append(centres[inside].mean(0))
        for c in inside:
            tree.append((f"c{c}", f"b{branch}", 2, f"interest {c}, of {counts[c]}", int(counts[c]), float(traffic[c])))
            nodes.append(centres[c])
            paths += [(items[i], [f"b{branch}", f"c{c}"]) for i in np.flatnonzero(found.labels_ == c)]
    columns = list(zip(*tree, strict=True))
    interface = [row[0] for row in tree if row[2] == 2]
    at = np.array([centres[int(node[1:]), :2] for node in interface])
    at = at / np.abs(at).max()
    Clusters(
        pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.TREE, strict=True)], schema=schema.TREE),
        pa.table({"item_id": [p[0] for p in paths], "path": [p[1] for p in paths]}, schema=schema.ITEM_PATHS),
        {"interface_level": 2, "source": "learned"},
        {"nodes": np.array(nodes), "items": vectors[[place[p[0]] for p in paths]]},
        pa.table({"node": interface, "x": at[:, 0], "y": at[:, 1]}, schema=schema.LAYOUT),
    ).save(out)
    return out


def fit_without_planner(
    dataset: Path, histories: Path, n: int, folder: Path, config: TrainingConfig
) -> dict[str, Path]:
    """Clusters, transitions, a table of pair frequencies and a ranker, each by its own entry point."""
    from newfound.evaluation.decision_fit import fit_decision
    from newfound.ranker import train_ranker
    from newfound.simulation.small_experiment import run_experiment
    from newfound.table import frequency_table
    from newfound.transitions.mine import mine_transitions

    clusters = rough_clusters(dataset, histories, n, folder / "clusters")
    transitions, table, ranker = folder / "transitions", folder / "table", folder / "ranker"
    mine_transitions(histories, dataset, clusters, config.transitions, config.seed, transitions)
    frequency_table(transitions, clusters, config.table, table)
    train_ranker(dataset, histories, clusters, config.ranker, config.seed, config.threads, ranker)
    decision = folder / "decision"
    fit_decision(dataset, histories, clusters, transitions, table, ranker, config, decision)
    told = {"size": config.transitions.context, "policy": config.policy, "limits": config.evaluation}
    run_experiment(dataset, clusters, transitions, table, folder / "experiment", **told, seed=config.seed)
    return {"dataset": dataset, "histories": histories, "clusters": clusters, "transitions": transitions,
            "planner": folder / "planner", "table": table, "ranker": ranker, "decision": decision,
            "experiment": folder / "experiment"}  # fmt: skip


@pytest.fixture(scope="session")
def settings() -> TrainingConfig:
    """Small and quick."""
    return TrainingConfig(
        transitions=TransitionsConfig(held_out_pairs=0.3),
        ranker=RankerConfig(dim=16, blocks=1, epochs=2, max_length=50, use_text=False, refit=False),
        evaluation={"bootstrap": 200, "sequence_epochs": 2, "liked_items": 3, "users_at_most": 80},  # type: ignore
    )


@pytest.fixture(scope="session")
def fitted(
    movielens: Path, movielens_histories: Path, settings: TrainingConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A fit of the small slice, without a language model."""
    return fit_without_planner(movielens, movielens_histories, 40, tmp_path_factory.mktemp("fit"), settings)


@pytest.fixture
def hostile() -> str:
    return HOSTILE


@pytest.fixture
def findings() -> dict:
    return made_up()


def made_up() -> dict:
    rng = np.random.default_rng(0)
    metrics: dict[str, float] = {
        "chance.novel_recall@1": 0.0135,
        "chance.novel_recall@10": 0.135,
        "planner.match_rate": 0.98,
        "planner.recall_over_chance": 8.9,
        "planner.recall_over_chance.lower": 7.1,
        "planner.recall_over_chance.upper": 10.6,
        "ranker.ndcg@10": 0.071,
        "ranker.hr@10": 0.139,
        "baseline.popular.hr@10": 0.061,
        "baseline.popular.ndcg@10": 0.03,
        "baseline.markov.hr@10": 0.1,
        "baseline.markov.ndcg@10": 0.052,
        "ranker.given_cluster.hr@10": 0.62,
        "ranker.given_cluster.hr@1": 0.14,
        "chance.given_cluster.hr@10": 0.55,
        "chance.given_cluster.hr@1": 0.07,
    }
    for middle, shift in (("", 0.0), ("held_out.", -0.02), ("sampled.", -0.01), ("light.", 0.03), ("heavy.", -0.03)):
        metrics[f"chance.{middle}novel_recall@1"], metrics[f"chance.{middle}novel_recall@10"] = 0.0135, 0.135
        for key, _, _, one, ten in METHODS:
            for measure, value in (("novel_recall@1", one), ("novel_recall@10", ten), ("novel_hr@10", one / 2)):
                value = max(value + shift, 0.005)
                metrics[f"{key}.{middle}{measure}"] = value
                metrics[f"{key}.{middle}{measure}.lower"] = value * 0.85
                metrics[f"{key}.{middle}{measure}.upper"] = value * 1.15
    for key, _, _, one, ten in METHODS:
        metrics |= {f"{key}.mrr": one * 2, f"{key}.macro_recall@10": ten * 0.8, f"{key}.label_coverage": 0.4}
        metrics |= {f"{key}.gini": 0.7, f"{key}.normalised_entropy": 0.8, f"{key}.leak": 0.45}
        metrics[f"{key}.novel_ndcg@10"] = one / 4
    arms = (("planner", 0.161), ("pair_frequency", 0.146), ("chance", 0.047), ("planner.minus.pair_frequency", 0.0144))
    for half, times in (("found", 1.0), ("liked", 3.7)):
        metrics |= {f"experiment.choices.{half}": 4454.0, f"experiment.people.{half}": 892.0}
        for arm, value in arms:
            metrics |= {
                f"experiment.{arm}.{half}": value * times,
                f"experiment.{arm}.{half}.lower": value * times * 0.9,
            }
            metrics[f"experiment.{arm}.{half}.upper"] = value * times * 1.1
    words = ["war, drama, thirties", "noir, crime, detectives", "musicals, dance", "space, aliens, robots", HOSTILE]
    words += [f"interest {i}, more of {i}, and {i}" for i in range(5, 120)]
    traffic = rng.dirichlet(np.full(120, 1.5))
    return {
        "dataset": {"name": "MovieLens-100K"},
        "facts": [["users", "943"], ["items", "1,682"], ["interactions", "100,000"], ["interests", "120"]],
        "confidence": 0.95,
        "gates": [
            {"name": "match_rate", "label": "Match rate, free decoding", "value": 0.98, "bound": 0.9, "passed": True},
            {"name": "recall_over_chance", "label": "NovelRecall@1 over chance, lower", "value": 7.1, "bound": 3.0,
             "passed": True},
        ],
        "metrics": metrics,
        "methods": [
            {"key": key, "label": label, "kind": kind, "sees": "training transitions", "chosen": {"pair": 3.0}}
            for key, label, kind, _, _ in METHODS
        ],
        "slices": [
            {"key": key, "events": 1043, "users": 231, "note": ""}
            for key in ("all", "held_out", "sampled", "light", "heavy")
        ],
        "deciles": {"planner": [None, *np.linspace(0.1, 0.7, 9).tolist()],
                    "rival.most_popular": [0.0] * 6 + [0.1, 0.4, 0.7, 1.0]},
        "map": [
            {"label": word, "x": float(x), "y": float(y), "share": float(share), "group": int(at // 15),
             "detail": f"{at + 3} items, {100 * share:.1f} % of the traffic"}
            for at, (word, x, y, share) in enumerate(
                zip(words, rng.uniform(0.05, 0.95, 120), rng.uniform(0.05, 0.95, 120), traffic, strict=True))
        ],
        "map_groups": [f"branch {i}, words" for i in range(7)] + [HOSTILE],
        "interests": [
            {"description": word, "parent": f"branch {at // 15}", "size": at + 3, "traffic": float(share)}
            for at, (word, share) in enumerate(zip(words, traffic, strict=True))
        ],
        "transitions": [
            {"context": [words[i], words[i + 1]], "observed": 3, "held_out": i == 2,
             "answers": [{"cluster": words[i + j + 2], "probability": 0.3, "observed": j == 1} for j in range(5)]}
            for i in range(6)
        ],
        "training": [
            {"title": "Planner", "x": "step", "note": "Step 240 was kept.",
             "curve": [{"step": s, "loss": 3 / (1 + s / 60), "recall": s} for s in range(0, 301, 60)],
             "charts": [{"title": "Training loss", "unit": "nats a token", "series": {"loss": "loss"}},
                        {"title": "Held-out recall", "unit": "NovelRecall@10, validation users",
                         "series": {"recall": "recall"}}]},
        ],
        "tuning": [
            {"number": i, "value": v, "state": s, "params": {"learning_rate": 0.001 * (i + 1), "dim": 64},
             "curve": [0.03, 0.05, v or 0.04]}
            for i, (v, s) in enumerate([(0.061, "complete"), (0.058, "pruned"), (None, "failed"), (0.066, "complete")])
        ],
        "quota": {"hr": [0.14 - 0.004 * q for q in range(11)], "novel": [0.006 * q for q in range(11)],
                  "familiar": [0.19 - 0.017 * q for q in range(11)], "events": 2011, "novel_share": 0.21},
        "slates": [
            {"user": f"A test user with {n} past events", "interests": [words[1], words[4]],
             "slots": [{"title": HOSTILE if s == 3 else f"Some Film, The ({1950 + s})", "cluster": words[s + n % 5],
                        "kind": "novel" if s in (1, 5, 8) else "familiar",
                        "because": [words[0], words[1]] if s in (1, 5, 8) else []} for s in range(10)]}
            for n in (24, 83, 310)
        ],
        "notes": ["Per-user cut: other users' later events leak into what is learned.", HOSTILE],
        "lineage": ["data 2f8a09, clusters 99ab12, planner 77fe01"],
    }  # fmt: skip
