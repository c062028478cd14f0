"""Training: it learns, repeats itself, goes on where it was stopped, and can be shared by processes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from newfound.config import RankerConfig
from newfound.ranker import train
from newfound.ranker.data import Sequences
from newfound.ranker.train import Fit, fit
from tests.planner.fake_device import elsewhere

ITEMS = 20
CONFIG = RankerConfig(
    dim=16, blocks=1, dropout=0.1, max_length=10, epochs=6, batch_tokens=300, learning_rate=0.01, use_memory=False
)


def walks(users: int = 200, noise: float = 0.1) -> Sequences:
    """Users who go from item i to i + 1 (modulo 20), and now and then jump."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(users):
        row = [int(random.integers(ITEMS))]
        for _ in range(int(random.integers(4, 15))):
            row.append(int(random.integers(ITEMS)) if random.random() < noise else (row[-1] + 1) % ITEMS)
        rows.append(row)
    return Sequences.of(rows)


def _states(result: Fit) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in result.model.state_dict().items()}


@pytest.fixture(scope="module")
def whole() -> Fit:
    return fit(walks(), ITEMS, CONFIG, seed=3)


def test_an_epoch_is_chosen_by_so_many_users_and_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(train, "VALIDATED", 30)
    monkeypatch.setattr(train, "rank_held_out", lambda *given: asked.append(given[3]) or np.zeros(1, dtype=np.int64))
    fit(walks(), ITEMS, CONFIG, seed=3, epochs=2)
    assert len(asked) == 2 and len(set(asked[0].tolist())) == 30
    assert asked[0].tolist() == asked[1].tolist()


def test_it_learns_what_follows_what(whole: Fit) -> None:
    assert whole.ndcg > 0.6
    assert whole.curve[-1]["loss"] < whole.curve[0]["loss"] - 0.5
    assert whole.ndcg == max(record["ndcg@10"] for record in whole.curve)
    assert [record["epoch"] for record in whole.curve] == list(range(1, len(whole.curve) + 1))


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(whole: Fit) -> None:
    again = fit(walks(), ITEMS, CONFIG, seed=3)
    for name, value in _states(whole).items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    other = fit(walks(), ITEMS, CONFIG, seed=4)
    assert other.curve[0]["loss"] != whole.curve[0]["loss"]


def test_resuming_is_bit_for_bit(whole: Fit, tmp_path: Path) -> None:
    fit(walks(), ITEMS, CONFIG, seed=3, folder=tmp_path, watch=lambda epoch, record: epoch == 2)
    resumed = fit(walks(), ITEMS, CONFIG, seed=3, folder=tmp_path)
    assert [record["loss"] for record in resumed.curve] == [record["loss"] for record in whole.curve]
    assert (resumed.epoch, resumed.ndcg) == (whole.epoch, whole.ndcg)
    for name, value in _states(whole).items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_checkpoint_of_another_configuration_is_left_aside(whole: Fit, tmp_path: Path) -> None:
    fit(walks(), ITEMS, CONFIG.model_copy(update={"dropout": 0.3}), seed=3, folder=tmp_path)
    result = fit(walks(), ITEMS, CONFIG, seed=3, folder=tmp_path)
    assert [record["loss"] for record in result.curve] == [record["loss"] for record in whole.curve]


def test_without_holding_out_it_trains_on_everything_for_so_many_epochs() -> None:
    sequences = walks(20)
    result = fit(sequences, ITEMS, CONFIG, seed=3, hold_out=False, epochs=2)
    assert result.epoch == len(result.curve) == 2
    assert result.curve[0]["targets"] == len(sequences.items) - len(sequences)


def test_the_kept_model_averages_the_steps() -> None:
    sequences = walks(15)  # little enough for one batch an epoch
    plain = CONFIG.model_copy(update={"average_epochs": 0.0})
    after = [_states(fit(sequences, ITEMS, plain, seed=3, hold_out=False, epochs=epochs)) for epochs in (1, 2, 3)]
    averaged = CONFIG.model_copy(update={"average_epochs": 100.0})
    for name, value in _states(fit(sequences, ITEMS, averaged, seed=3, hold_out=False, epochs=3)).items():
        torch.testing.assert_close(value, torch.stack([state[name] for state in after]).mean(0), msg=name)
        assert not torch.equal(value, after[-1][name]), name


def test_shared_negatives_learn_as_well() -> None:
    result = fit(walks(), ITEMS, CONFIG.model_copy(update={"negatives": 8}), seed=3)
    assert result.ndcg > 0.55


def test_items_that_nobody_had_go_last_without_text() -> None:
    model = fit(walks(), ITEMS + 5, CONFIG, seed=3).model
    with torch.inference_mode():
        vectors = model.item_vectors()
        scores = model.encoder.last_query(vectors, torch.arange(ITEMS)[:, None]) @ vectors.t()
    assert scores[:, ITEMS:].mean() < scores[:, :ITEMS].mean()


def test_sequences_too_short_to_hold_anything_out_still_train() -> None:
    result = fit(Sequences.of([[0, 1], [1, 2], [3], []]), 4, CONFIG, seed=3)
    assert result.ndcg == 0.0 and np.isfinite(result.curve[-1]["loss"])


@pytest.mark.filterwarnings("ignore:.*is a no-op")  # torch says so of the device that stands in
def test_it_learns_the_same_on_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed to see that nothing is left behind on the processor; see `elsewhere`."""
    config = CONFIG.model_copy(update={"negatives": 8, "epochs": 2})
    text = torch.nn.functional.normalize(torch.randn(ITEMS, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    adam = torch.optim.AdamW
    monkeypatch.setattr(train, "on_accelerator", nullcontext)
    here = fit(walks(), ITEMS, config, seed=3, text=text)
    monkeypatch.setattr(train, "on_accelerator", elsewhere)
    # What that device lacks, and a GPU has: fused steps, and tensors without a version.
    monkeypatch.setattr(torch.optim, "AdamW", lambda values, fused, **given: adam(values, **given))
    monkeypatch.setattr(torch._C, "_InferenceMode", lambda _: torch.no_grad())
    fit(walks(), ITEMS, config, seed=3, text=text, epochs=1, folder=tmp_path)
    there = fit(walks(), ITEMS, config, seed=3, text=text, folder=tmp_path)
    assert {value.device.type for value in there.model.state_dict().values()} == {"cpu"}
    for one, other in zip(there.curve, here.curve, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-2)
        assert one["ndcg@10"] == pytest.approx(other["ndcg@10"], abs=0.03)
