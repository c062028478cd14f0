"""The table: complete, resumable, refused where it does not belong, and comparable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import TableConfig
from newfound.errors import ConfigError, DataError, VocabularyError
from newfound.planner.alignment import Alignment
from newfound.planner.planner import Planner
from newfound.table import TransitionTable, build_shard, build_table, compare_tables, frequency_table, merge
from newfound.table.compare import drift, spread_of

Trained = tuple[Path, dict[str, object]]
CONFIG = TableConfig(top_k=4, exact=None, shards=2, precision="float32", second_build=8)


@pytest.fixture(scope="module")
def table(trained_planner: Trained, planner_world: Path) -> Path:
    build_table(
        trained_planner[0], planner_world / "clusters", planner_world / "transitions", CONFIG, planner_world / "table"
    )
    return planner_world / "table"


@pytest.fixture
def clusters(planner_world: Path) -> Clusters:
    return Clusters.load(planner_world / "clusters")


def test_it_answers_every_ordered_pair_with_the_exact_best(
    table: Path, trained_planner: Trained, planner_world: Path, clusters: Clusters
) -> None:
    loaded = TransitionTable.load(table, clusters)
    assert len(loaded) == 8 * 7
    planner = Planner.load(trained_planner[0], clusters, precision="float32")
    for context in (("c0", "c3"), ("c7", "c2")):
        found = loaded.successors(context)
        assert found is not None and len(found) == 4 and {s.source for s in found} == {"planner"}
        everything = planner.scores([context], exhaustive=True)[0]
        everything[[clusters.index[c] for c in context]] = -np.inf
        order = np.argsort(-everything, kind="stable")[:4]
        assert [s.cluster for s in found] == [clusters.interface[i] for i in order]
        np.testing.assert_allclose([s.score for s in found], everything[order], atol=1e-3)
    for context in loaded.contexts():
        assert not {s.cluster for s in loaded.successors(context) or ()} & set(context)
    assert loaded.successors(("c0", "c0")) is None and loaded.successors(("c0", "nowhere")) is None


def test_rows_are_sorted_and_the_record_tells_how_they_came(table: Path) -> None:
    rows = pq.read_table(table / "table.parquet")
    assert rows.schema.equals(schema.TABLE)
    keys = list(zip(map(tuple, rows[schema.CONTEXT].to_pylist()), rows[schema.RANK].to_pylist(), strict=True))
    assert keys == sorted(keys)
    record = json.loads((table / "table.json").read_text())
    assert record["second_build"] == {
        "contexts": 16,
        "top1_agreement": 1.0,
        "largest_difference": pytest.approx(0, abs=1e-3),
    }
    assert record["engine"]["engine"] == "lean" and record["measures"]["contexts"] == 56


def test_inexact_ranks_follow_the_exact_ones_and_never_score_above(
    trained_planner: Trained, planner_world: Path, clusters: Clusters, tmp_path: Path, table: Path
) -> None:
    config = CONFIG.model_copy(update={"exact": 1, "top_k": 6})
    build_table(trained_planner[0], planner_world / "clusters", planner_world / "transitions", config, tmp_path / "t")
    full, part = TransitionTable.load(table, clusters), TransitionTable.load(tmp_path / "t", clusters)
    for context in full.contexts():
        answers = part.successors(context) or []
        assert len(answers) == 6 and answers[0].cluster == (full.successors(context) or [])[0].cluster
        scores = [answer.score for answer in answers]
        assert scores == sorted(scores, reverse=True)


def test_a_killed_build_goes_on_where_it_stopped(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from newfound.table import build

    monkeypatch.setattr(build, "BLOCK", 8)
    whole, calls = build.answer, 0

    def dies(*args: object) -> pa.Table:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return whole(*args)  # type: ignore[arg-type]

    inputs = (trained_planner[0], planner_world / "clusters", planner_world / "transitions", CONFIG)
    monkeypatch.setattr(build, "answer", dies)
    with pytest.raises(KeyboardInterrupt):
        build_table(*inputs, tmp_path / "t")
    assert not (tmp_path / "t").exists()
    build_table(*inputs, tmp_path / "t")
    # 28 contexts a shard are 4 blocks; two were there, and each shard's second build asks once more.
    assert calls == 3 + 2 + 4 + 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t"]
    monkeypatch.setattr(build, "answer", whole)
    build_table(*inputs, tmp_path / "at once")
    assert pq.read_table(tmp_path / "t" / "table.parquet").equals(pq.read_table(tmp_path / "at once" / "table.parquet"))


def test_shards_merge_in_any_order_and_only_if_complete(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, table: Path
) -> None:
    places = (planner_world / "clusters", planner_world / "transitions")
    shards = [tmp_path / str(shard) for shard in range(2)]
    for shard, folder in enumerate(shards):
        build_shard(trained_planner[0], *places, CONFIG, shard, folder)
    merge(shards[::-1], trained_planner[0], *places, CONFIG, tmp_path / "merged")
    assert pq.read_table(tmp_path / "merged" / "table.parquet").equals(pq.read_table(table / "table.parquet"))
    with pytest.raises(DataError, match="shard 1 is missing"):
        merge(shards[:1], trained_planner[0], *places, CONFIG, tmp_path / "bad")
    with pytest.raises(DataError, match="twice"):
        merge([shards[0], shards[0]], trained_planner[0], *places, CONFIG, tmp_path / "bad")
    other = CONFIG.model_copy(update={"top_k": 3})
    with pytest.raises(VocabularyError, match="other inputs"):
        merge(shards, trained_planner[0], *places, other, tmp_path / "bad")
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        build_shard(trained_planner[0], *places, CONFIG, 2, tmp_path / "2")
    assert not (tmp_path / "bad").exists()


def test_a_partial_table_holds_the_frequent_contexts(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, clusters: Clusters
) -> None:
    from newfound.table.contexts import observed

    config = CONFIG.model_copy(update={"contexts_at_most": 5, "shards": 1})
    build_table(trained_planner[0], planner_world / "clusters", planner_world / "transitions", config, tmp_path / "t")
    counts = observed(planner_world / "transitions")
    held = set(TransitionTable.load(tmp_path / "t", clusters).contexts())
    assert len(held) == 5
    assert min(counts[context] for context in held) >= max(n for c, n in counts.items() if c not in held)


def test_recent_successors_enter_the_prompt_of_a_refresh(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, table: Path
) -> None:
    config = CONFIG.model_copy(update={"recent": 0.5})
    build_table(trained_planner[0], planner_world / "clusters", planner_world / "transitions", config, tmp_path / "t")
    assert json.loads((tmp_path / "t" / "table.json").read_text())["recent_successors"] > 0
    diff = compare_tables(table, tmp_path / "t")
    assert diff.contexts == 56 and 0 <= diff.successor_jaccard <= 1


def test_the_second_model_changes_an_order_and_nothing_else(
    trained_planner: Trained, planner_world: Path, tmp_path: Path, table: Path, clusters: Clusters
) -> None:
    shutil.copytree(trained_planner[0], tmp_path / "planner")
    model = Alignment.load(trained_planner[0], clusters)
    model.level = np.linspace(-1, 1, 8).astype(np.float32)
    model.weight = 50.0  # as strong as it can be
    model.save(tmp_path / "planner")
    config = CONFIG.model_copy(update={"align": True})
    build_table(tmp_path / "planner", planner_world / "clusters", planner_world / "transitions", config, tmp_path / "t")
    plain, aligned = TransitionTable.load(table, clusters), TransitionTable.load(tmp_path / "t", clusters)
    changed = 0
    for context in plain.contexts():
        before, after = plain.successors(context) or [], aligned.successors(context) or []
        assert len({s.cluster for s in after}) == 4 and not {s.cluster for s in after} & set(context)
        np.testing.assert_allclose([s.score for s in after], [s.score for s in before], atol=1e-4)
        changed += after[0].cluster != before[0].cluster
    assert changed > 10


def test_a_table_for_other_clusters_or_broken_files_is_refused(
    table: Path, tmp_path: Path, clusters: Clusters, planner_world: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(table, copy)
    record = json.loads((copy / "table.json").read_text())
    (copy / "table.json").write_text(json.dumps({**record, "clusters_digest": "0" * 64}))
    with pytest.raises(VocabularyError, match="made for clusters 000000000000"):
        TransitionTable.load(copy, clusters)
    (copy / "table.json").write_text(json.dumps(record))
    rows = pq.read_table(copy / "table.parquet")
    pq.write_table(rows.slice(1), copy / "table.parquet")
    with pytest.raises(DataError, match="ranks"):
        TransitionTable.load(copy, clusters)
    odd = rows.set_column(4, schema.SOURCE, pa.array(["oracle"] * len(rows)))
    pq.write_table(odd, copy / "table.parquet")
    with pytest.raises(DataError, match="'oracle'"):
        TransitionTable.load(copy, clusters)
    (copy / "table.parquet").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        TransitionTable.load(copy, clusters)


def test_frequencies_make_a_table_without_a_planner(planner_world: Path, tmp_path: Path, clusters: Clusters) -> None:
    frequency_table(planner_world / "transitions", planner_world / "clusters", CONFIG, tmp_path / "t")
    table = TransitionTable.load(tmp_path / "t", clusters)
    assert len(table) == 56
    found = table.successors(("c0", "c3")) or []
    assert {s.source for s in found} == {"frequency"} and found[0].cluster == "c4"


def test_comparison_by_hand(planner_world: Path, tmp_path: Path, clusters: Clusters) -> None:
    from newfound.table.build import rows_of, write_table

    def write(name: str, answers: list[list[int]]) -> Path:
        contexts = [("c0", "c1"), ("c1", "c0"), ("c2", "c0")]
        best = np.array(answers, dtype=np.int32)
        rows = rows_of(
            contexts, best, -np.arange(best.size, dtype=np.float32).reshape(best.shape), clusters.interface, "planner"
        )
        write_table(rows, {"clusters_digest": clusters.digest}, clusters, tmp_path / name)
        return tmp_path / name

    old, new = write("old", [[2, 3], [2, 3], [3, 4]]), write("new", [[2, 3], [4, 3], [3, 5]])
    diff = compare_tables(old, new)
    assert diff.pairs_changed == pytest.approx(1 / 3)
    assert diff.changed == [(("c1", "c0"), "c2", "c4")]
    assert diff.successor_jaccard == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert (diff.labels_gained, diff.labels_lost) == (["c4"], [])
    assert diff.measures()["labels_gained"] == 1
    assert [step.pairs_changed for step in drift([old, new, new])] == [pytest.approx(1 / 3), 0.0]
    assert spread_of([1, 1, 1, 1])["gini"] == 0.0
