"""A fit evaluated from its artifacts."""

import json
import math
import re

import pytest

from newfound.errors import DataError
from newfound.evaluation import evaluate

PARTS = ("dataset", "histories", "clusters", "transitions", "planner", "table", "ranker", "decision", "experiment")


@pytest.fixture(scope="module")
def evaluated(fitted, settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "evaluation"
    return evaluate(*(fitted[part] for part in PARTS), None, settings, out), out


def test_metrics_are_flat_and_named_as_agreed(evaluated):
    metrics, out = evaluated
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    rivals = ("random_novel", "most_popular", "pair_frequency", "nearest_embedding", "choice_model", "cluster_sequence",
              "ranker_novel")  # fmt: skip
    for who in ("table", *(f"rival.{name}" for name in rivals)):
        for key in ("novel_recall@1", "novel_recall@10", "mrr", "novel_hr@10", "novel_ndcg@10"):
            assert metrics[f"{who}.{key}.lower"] <= metrics[f"{who}.{key}"] <= metrics[f"{who}.{key}.upper"]
        for key in ("macro_recall@10", "label_coverage", "gini", "normalised_entropy", "leak", "recall_over_chance"):
            assert f"{who}.{key}" in metrics
        for part in ("held_out", "sampled", "light", "heavy"):
            assert f"{who}.{part}.novel_recall@10" in metrics
    for key in ("chance.novel_recall@1", "chance.novel_recall@10", "chance.held_out.novel_recall@10", "ranker.hr@10",
                "ranker.ndcg@10", "baseline.popular.ndcg@10", "baseline.markov.hr@10", "ranker.given_cluster.hr@10",
                "rival.ranker_direct.novel_hr@10", "quota.0.hr@10", "quota.10.hr@10", "novel_hr@10",
                "served.novel_hr@10", "served.slate_coverage", "served.minus.ranker_direct.novel_ndcg@10.lower",
                "table.minus.most_popular.novel_recall@10"):  # fmt: skip
        assert key in metrics, key
    assert metrics["ranker.grounding_precision"] == 1.0 and metrics["ranker.grounding_recall"] == 1.0
    assert metrics["planner.present"] == 0 and "planner.match_rate" not in metrics


def test_random_is_about_chance(evaluated):
    metrics, _ = evaluated
    low, high = metrics["rival.random_novel.novel_recall@10.lower"], metrics["rival.random_novel.novel_recall@10.upper"]
    assert low - 0.05 <= metrics["chance.novel_recall@10"] <= high + 0.05


def test_the_same_again_is_the_same(evaluated, fitted, settings, tmp_path):
    again = evaluate(*(fitted[part] for part in PARTS), None, settings, tmp_path / "again")
    assert again == evaluated[0]
    for name in ("findings.json", "rivals.json", "report.html"):
        assert (tmp_path / "again" / name).read_bytes() == (evaluated[1] / name).read_bytes()


def test_slates_have_reasons_and_name_no_user(evaluated):
    slates = json.loads((evaluated[1] / "findings.json").read_text())["slates"]
    assert slates
    for slate in slates:
        assert re.fullmatch(r"A test user with [\d,]+ events", slate["user"])
        assert any(slot["kind"] == "novel" for slot in slate["slots"])
        assert all(len(slot["because"]) in (0, 2) for slot in slate["slots"])
        assert all(slot["because"] == [] for slot in slate["slots"] if slot["kind"] == "familiar")


def test_nothing_to_measure_is_an_error_that_says_so(fitted, settings, tmp_path):
    import shutil

    import pyarrow as pa
    import pyarrow.parquet as pq

    empty = tmp_path / "dataset"
    shutil.copytree(fitted["dataset"], empty)
    users = pq.read_table(empty / "users.parquet")
    train = pa.array(["train"] * len(users))
    pq.write_table(users.set_column(users.schema.get_field_index("group"), users.schema.field("group"), train),
                   empty / "users.parquet")  # fmt: skip
    with pytest.raises(DataError, match="no test user"):
        evaluate(empty, *(fitted[part] for part in PARTS[1:]), None, settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()
