"""One reader of mined transitions: who is learned from, what stays out, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from newfound import schema
from newfound.clusters import Clusters
from newfound.config import TransitionsConfig
from newfound.errors import DataError, VocabularyError
from newfound.transitions.artifact import Transitions
from newfound.transitions.choice_model import Choices, kinship_of
from newfound.transitions.mine import mine_transitions
from tests.reference.choices import choices as choices_step_by_step
from tests.transitions.conftest import Walk, write_groups, write_histories

Mined = Callable[..., tuple[Path, dict[str, float | int | str]]]


def named(contexts: np.ndarray, labels: np.ndarray, clusters: Clusters) -> list[tuple[str, str]]:
    names = clusters.interface
    rows = zip(contexts.tolist(), labels.tolist(), strict=True)
    return [("".join(names[c] for c in context), names[label]) for context, label in rows]


@pytest.fixture(scope="module")
def interests(letters: Path) -> Clusters:
    return Clusters.load(letters)


@pytest.fixture(scope="module")
def plain(mined: Mined, interests: Clusters) -> Transitions:
    """Nothing withheld, training users to learn from."""
    return Transitions.load(mined(held_out_pairs=0.0)[0], interests)


@pytest.fixture(scope="module")
def held(mined: Mined, interests: Clusters) -> Transitions:
    """Half of the pairs withheld."""
    return Transitions.load(mined(held_out_pairs=0.5)[0], interests)


def test_counts_are_of_training_users_and_positive(plain: Transitions, interests: Clusters) -> None:
    counts = plain.counts()
    assert sorted(named(counts.contexts, counts.labels, interests)) == [
        ("AB", "C"), ("AB", "C"), ("AB", "D"), ("AB", "D"), ("AC", "D"), ("BA", "C"), ("BC", "D"), ("BD", "C"),
    ]  # fmt: skip
    assert dict(zip(interests.interface, counts.frequency.tolist(), strict=True)) == dict(A=0, B=0, C=4, D=4, E=0)
    assert plain.learners() == {"t1", "t2", "t3", "t4", "t5"}, "t6 has no transition"


def test_balanced_is_the_file_as_indices(plain: Transitions, interests: Clusters) -> None:
    found = plain.balanced()
    rows = pq.read_table(plain.folder / "balanced.parquet").to_pylist()
    assert named(found.contexts, found.labels, interests) == [("".join(r["context"]), r["next"]) for r in rows]
    assert found.weights.tolist() == [r["weight"] for r in rows] and found.weights.dtype == np.float32


def test_choices_are_among_what_was_new(plain: Transitions, interests: Clusters) -> None:
    found = plain.choices("validation")
    assert named(found.contexts, found.labels, interests) == [("AB", "E"), ("BE", "D")]
    known = [{interests.interface[c] for c in np.flatnonzero(row)} for row in found.known]
    assert known == [{"A", "B"}, {"A", "B", "E"}]


@pytest.fixture(scope="module")
def crowd(letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Transitions of sixty people who wander about, and dislike a fifth of what they see."""
    folder, rng = tmp_path_factory.mktemp("crowd"), np.random.default_rng(0)
    walks: dict[str, Walk] = {
        f"u{user:02}": [(f"{rng.choice(list('ABCDE'))}{step % 3}", float(rng.random() < 0.8)) for step in range(9)]
        for user in range(60)
    }
    groups = {user: ("train", "validation", "test")[at % 3] for at, user in enumerate(walks)}
    histories = write_histories(folder / "histories.parquet", walks)
    dataset = write_groups(folder / "data", groups, ["A0", "B0"])
    mine_transitions(histories, dataset, letters, TransitionsConfig(held_out_pairs=0.3), 3, folder / "transitions")
    return folder / "transitions"


@pytest.mark.parametrize("split", [None, "validation", "test"])
def test_choices_agree_with_a_walk_step_by_step(crowd: Path, interests: Clusters, split: str | None) -> None:
    found = Transitions.load(crowd, interests).choices(split)
    rows = pq.read_table(crowd / "transitions.parquet").to_pylist()
    rows = [row for row in rows if row["split"] == (split or "train")]
    contexts, labels, known, liked = choices_step_by_step(rows, interests.index, withheld_too=split is not None)
    assert len(labels) > 20 and any(row["held_out"] for row in rows)
    assert found.contexts.tolist() == contexts and found.labels.tolist() == labels and found.known.tolist() == known
    assert found.kinship is not None
    np.testing.assert_array_equal(found.kinship, kinship_of(interests.interface_vectors, np.array(liked)))


def test_withheld_contexts_teach_nothing(held: Transitions, interests: Clusters) -> None:
    withheld = {"".join(context) for context in held.withheld()}
    assert withheld
    counts, learned = held.counts(), held.choices()
    for contexts, labels in (
        (counts.contexts, counts.labels),
        (learned.contexts, learned.labels),
        (held.balanced().contexts, held.balanced().labels),
    ):
        assert len(labels) and not {context for context, _ in named(contexts, labels, interests)} & withheld
    rows = pq.read_table(held.folder / "transitions.parquet").to_pylist()
    assert held.withheld_steps() == {(row["user_id"], row["next"]) for row in rows if row["held_out"]} != set()
    assert sum(held.context_counts().values()) == len(rows), "a table answers withheld contexts as well"


def test_everybody_teaches_where_the_mining_learned_from_all(mined: Mined, interests: Clusters) -> None:
    found = Transitions.load(mined(held_out_pairs=0.0, learn_from="all")[0], interests)
    assert {"v1", "x1"} <= found.learners()
    assert len(found.counts().labels) == len(found.choices().labels) == 11


def test_recent_pairs(letters: Path, interests: Clusters, tmp_path: Path) -> None:
    walks: dict[str, Walk] = {
        "u1": [("A0", 1), ("B0", 1), ("C0", 1)],
        "u2": [("A0", 1), ("B0", 1), ("C0", 1)],
        "u3": [("A0", 1), ("A1", 1), ("B0", 1), ("D0", 1)],
        "u4": [("A0", 1), ("A1", 1), ("B0", 1), ("D0", 1)],
        "u5": [("A0", 1), ("A1", 1), ("B0", 1), ("E0", 0)],
    }
    histories = write_histories(tmp_path / "histories.parquet", walks)
    dataset = write_groups(tmp_path / "data", dict.fromkeys(walks, "train"), ["A0", "B0"])
    out = tmp_path / "transitions"
    mine_transitions(histories, dataset, letters, TransitionsConfig(held_out_pairs=0.0), 1, out)
    found = Transitions.load(out, interests)
    for share, expected in ((1.0, [("AB", "C", 2), ("AB", "D", 2)]), (0.5, [("AB", "D", 2)]), (0.0, [])):
        contexts, labels, times = found.recent_pairs(share)
        pairs = named(contexts, labels, interests)
        assert [(*pair, count) for pair, count in zip(pairs, times.tolist(), strict=True)] == expected
    lately = found.balanced(recent=0.5)
    assert named(lately.contexts, lately.labels, interests) == [("AB", "D")] and lately.weights.tolist() == [2.0]
    everything = found.balanced(recent=1.0)
    assert named(everything.contexts, everything.labels, interests) == [("AB", "C"), ("AB", "D")]
    with pytest.raises(DataError, match="no transition"):
        found.balanced(recent=0.0)


def _copy(found: Transitions, to: Path) -> Path:
    return shutil.copytree(found.folder, to)


def test_what_does_not_belong_is_refused(plain: Transitions, interests: Clusters, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"transitions\.json.*record of mined transitions"):
        Transitions.load(tmp_path, interests)
    other = _copy(plain, tmp_path / "other")
    record = json.loads((other / "transitions.json").read_text())
    (other / "transitions.json").write_text(json.dumps({**record, "clusters_digest": "else"}))
    with pytest.raises(VocabularyError, match="other clusters"):
        Transitions.load(other, interests)
    broken = _copy(plain, tmp_path / "broken")
    (broken / "balanced.parquet").write_bytes(b"no parquet")
    (broken / "held_out.parquet").unlink()
    found = Transitions.load(broken, interests)
    with pytest.raises(DataError, match=r"balanced\.parquet"):
        found.balanced()
    with pytest.raises(DataError, match=r"held_out\.parquet"):
        found.withheld()


@pytest.mark.parametrize(
    ("context", "error", "match"),
    [(["A", "Z"], VocabularyError, "cluster 'Z'"), (["A"], DataError, "2 clusters in each")],
)
def test_a_cluster_or_context_that_cannot_be_names_the_file(
    plain: Transitions, interests: Clusters, tmp_path: Path, context: list[str], error: type[Exception], match: str
) -> None:
    folder = _copy(plain, tmp_path / "folder")
    rows = pq.read_table(folder / "transitions.parquet").to_pylist()
    rows[0]["context"] = context
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.TRANSITIONS), folder / "transitions.parquet")
    with pytest.raises(error, match=match) as refused:
        Transitions.load(folder, interests).counts()
    assert "transitions.parquet" in str(refused.value)


def test_no_transition_at_all_is_no_choice(plain: Transitions, interests: Clusters, tmp_path: Path) -> None:
    folder = _copy(plain, tmp_path / "empty")
    pq.write_table(schema.TRANSITIONS.empty_table(), folder / "transitions.parquet")
    found = Transitions.load(folder, interests)
    none: Choices = found.choices()
    assert len(none) == 0 and none.known.shape == (0, 5) and found.context_counts() == {}
    assert not len(found.recent_pairs(1.0)[1]) and found.learners() == set()
