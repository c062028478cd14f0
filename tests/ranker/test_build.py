"""From artifacts to a ranker and back from disk: what it answers, at the edges too."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from newfound.clusters import Clusters
from newfound.errors import DataError, VocabularyError
from newfound.features.histories import Histories
from newfound.ranker import Ranker, build, train_ranker
from newfound.ranker.build import learn, read_material
from newfound.ranker.cooccurrence import count_cooccurrence
from newfound.ranker.data import Sequences
from newfound.ranker.train import fit
from newfound.ranker.validation import figures, rank_held_out
from tests.ranker.conftest import SMALL, World


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float | int | str]]:
    out = tmp_path_factory.mktemp("ranker") / "ranker"
    return out, train_ranker(*world, SMALL, 7, 1, out)


@pytest.fixture(scope="module")
def ranker(trained: tuple[Path, dict]) -> Ranker:
    return Ranker.load(trained[0])


@pytest.fixture(scope="module")
def histories(world: World) -> list[list[str]]:
    past = Histories.load(world.histories)
    return [past.of(user).item_ids for user in past.users[:40]]


def test_the_artifact_is_whole(trained: tuple[Path, dict], world: World) -> None:
    out, measures = trained
    assert sorted(file.name for file in out.iterdir()) == ["ranker.json", "ranker.safetensors", "training.json"]
    assert not (out.parent / ".ranker.checkpoints").exists()
    clusters = Clusters.load(world.clusters)
    record = json.loads((out / "ranker.json").read_text())
    assert record["clusters_digest"] == clusters.digest
    assert record["items"] == clusters.item_order
    assert record["slices"]["top-b"] == list(clusters.slice_of("top-b"))
    curve = json.loads((out / "training.json").read_text())["curve"]
    assert 0 < measures["validation.ndcg@10"] <= 1 and len(curve) <= SMALL.epochs


def test_training_twice_gives_the_same_bytes(trained: tuple[Path, dict], world: World, tmp_path: Path) -> None:
    train_ranker(*world, SMALL, 7, 1, tmp_path / "again")
    first, second = (load_file(folder / "ranker.safetensors") for folder in (trained[0], tmp_path / "again"))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_what_was_measured_is_fitted_again_without_a_choice(
    trained: tuple[Path, dict], world: World, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    measures = train_ranker(*world, SMALL, 7, 1, out, measured=trained[0])
    # On the same data the fit that follows the choice is the same fit.
    first, second = (load_file(folder / "ranker.safetensors") for folder in (trained[0], out))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    assert {name: measures[name] for name in ("epoch", "memory.weight", "memory.decay", "memory.rarity")} == {
        name: trained[1][name] for name in ("epoch", "memory.weight", "memory.decay", "memory.rarity")
    }
    assert not any(name.startswith("validation") for name in measures)
    assert not (tmp_path / ".again.checkpoints").exists()
    with pytest.raises(DataError, match=r"training\.json"):
        train_ranker(*world, SMALL, 7, 1, tmp_path / "never", measured=tmp_path)


def test_best_within_clusters_is_best_of_all_masked(ranker: Ranker, world: World, histories: list[list[str]]) -> None:
    clusters = Clusters.load(world.clusters)
    wanted = [["top-a"], ["c", "e"], ["top-b", "c"], ["f", "top-c", "f"]] * 10
    found = ranker.top_k(histories, wanted, 7, histories)
    scores = ranker.score_all(histories)
    for row, (history, nodes) in enumerate(zip(histories, wanted, strict=True)):
        allowed = {item for node in nodes for item in clusters.items_under(node)} - set(history)
        expected = sorted((-scores[row, at], at) for at, item in enumerate(ranker.items) if item in allowed)[:7]
        assert [item for item, _ in found[row]] == [ranker.items[at] for _, at in expected]
        np.testing.assert_allclose([score for _, score in found[row]], [-score for score, _ in expected], atol=1e-4)


def test_one_at_a_time_and_together_agree(ranker: Ranker, histories: list[list[str]]) -> None:
    together = ranker.top_k(histories, [["top-a"]] * len(histories), 5, histories)
    for history, expected in zip(histories[:5], together, strict=False):
        (alone,) = ranker.top_k([history], [["top-a"]], 5, [history])
        assert [item for item, _ in alone] == [item for item, _ in expected]


def test_an_empty_history_and_one_of_strangers_get_what_is_popular(ranker: Ranker, world: World) -> None:
    empty, strange = ranker.top_k([[], ["nobody", "knows"]], [None, None], 3, [[], []])
    assert empty == strange
    past = Histories.load(world.histories)
    counts = {item: int((past.item_ids == item).sum()) for item in ranker.items}
    assert [counts[item] for item, _ in empty] == sorted(counts.values(), reverse=True)[:3]
    (inside,) = ranker.top_k([[]], [["c"]], 1, [[]])
    start, stop = ranker.slices["c"]
    assert counts[inside[0][0]] == max(counts[item] for item in ranker.items[start:stop])


def test_unknown_items_are_passed_over(ranker: Ranker, histories: list[list[str]]) -> None:
    history = histories[0]
    noisy = ["nobody", *history[:1], "knows", *history[1:]]
    assert ranker.top_k([noisy], [["a"]], 5, [["stranger"]]) == ranker.top_k([history], [["a"]], 5, [[]])


def test_k_beyond_the_slice_exclusions_beyond_it_and_no_clusters(ranker: Ranker, histories: list[list[str]]) -> None:
    start, stop = ranker.slices["d"]
    inside = ranker.items[start:stop]
    history = histories[0]
    everything, nothing, none = ranker.top_k(
        [history] * 3, [["d"], ["d"], []], 10**6, [[], [*inside, *inside, "x"], []]
    )
    assert sorted(item for item, _ in everything) == sorted(inside)
    assert nothing == none == []
    assert ranker.top_k([history], [["d"]], 0, [[]]) == [[]]
    assert ranker.top_k([], [], 5, []) == []


def test_bad_requests_are_refused(ranker: Ranker) -> None:
    with pytest.raises(VocabularyError, match="'nowhere'"):
        ranker.top_k([["x"]], [["nowhere"]], 5, [[]])
    with pytest.raises(ValueError, match="2 histories"):
        ranker.top_k([[], []], [[]], 5, [[]])


@pytest.mark.parametrize("name", ["ranker.json", "ranker.safetensors"])
def test_a_broken_artifact_is_named(trained: tuple[Path, dict], tmp_path: Path, name: str) -> None:
    shutil.copytree(trained[0], tmp_path / "copy")
    (tmp_path / "copy" / name).write_bytes(b"{")
    with pytest.raises(DataError, match="copy"):
        Ranker.load(tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    with pytest.raises(DataError, match="missing"):
        Ranker.load(tmp_path / "copy")


def test_killed_and_started_again_it_ends_the_same(trained: tuple[Path, dict], world: World, tmp_path: Path) -> None:
    material = read_material(*world, SMALL)
    work = tmp_path / ".ranker.checkpoints"
    with build.processes(1):  # sums of floats depend on how many share them
        learn(
            material.sequences, len(material.items), SMALL, 7, text=material.text, folder=work
        )  # killed before writing
    train_ranker(*world, SMALL, 7, 1, tmp_path / "ranker")
    first, second = (load_file(folder / "ranker.safetensors") for folder in (trained[0], tmp_path / "ranker"))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_histories_without_anything_to_learn_from_are_refused(world: World, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from newfound.schema import HISTORIES

    pq.write_table(HISTORIES.empty_table(), tmp_path / "histories.parquet")
    with pytest.raises(DataError, match="no history names two items"):
        train_ranker(world.dataset, tmp_path / "histories.parquet", world.clusters, SMALL, 7, 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_new_item_is_found_by_its_text() -> None:
    """Two kinds of items, told apart by text alone; users stay with their kind. Items 18 and 19 nobody has had."""
    random = np.random.default_rng(0)
    rows = [[int(item) for item in random.permutation(9)[:6] * 2 + user % 2] for user in range(120)]
    text = torch.nn.functional.normalize(torch.randn(20, 8, generator=torch.Generator().manual_seed(0)) * 0.3, dim=1)
    text = torch.nn.functional.normalize(text + 2 * torch.eye(8)[torch.arange(20) % 2], dim=1)
    config = SMALL.model_copy(update={"epochs": 8, "batch_tokens": 200, "learning_rate": 0.01, "use_memory": False})
    model = learn(Sequences.of(rows), 20, config, 1, text=text).model
    with torch.inference_mode():
        vectors = model.item_vectors()
        even, odd = model.encoder.last_query(vectors, torch.tensor([[0, 2, 4], [1, 3, 5]])) @ vectors.t()
    assert even[18] > even[1::2].max() and odd[19] > odd[::2].max()


def test_the_memory_is_the_one_that_ranks_held_out_items_best(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    past = Sequences.of(random.integers(0, 25, size) for size in random.integers(3, 9, 80))
    targets = random.integers(0, 25, 80)
    model = fit(past, 25, SMALL, 1, hold_out=False, epochs=1).model
    monkeypatch.setattr(build, "DECAYS", (0.5, 0.9))
    monkeypatch.setattr(build, "WEIGHTS", (0.0, 1.0, 20.0))
    counted = [count_cooccurrence(past, 25, rarity) for rarity in (0.0, 0.9)]
    choices = [
        replace(cooccurrence, decay=decay, weight=weight)
        for cooccurrence in counted
        for decay in (0.5, 0.9)
        for weight in (0.0, 1.0, 20.0)
    ]
    ndcg = [figures(rank_held_out(model, past, targets, cooccurrence=one))["ndcg@10"] for one in choices]
    best = choices[int(np.argmax(ndcg))]
    found = build.tune_cooccurrence(model, counted, past, targets)
    assert (found.rarity, found.decay, found.weight) == (best.rarity, best.decay, best.weight)
    assert len(set(ndcg)) > 6  # the choice was one
