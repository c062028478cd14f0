"""The ranker on a real GPU: it learns what it learns on the processor, and comes back to it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from newfound.ranker import train
from newfound.ranker.train import fit
from tests.ranker.test_train import CONFIG, ITEMS, walks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("negatives", [None, 8])
def test_it_learns_what_it_learns_on_the_processor(negatives: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.model_copy(update={"negatives": negatives, "id_dropout": 0.0})
    text = torch.nn.functional.normalize(torch.randn(ITEMS, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    with monkeypatch.context() as patch:
        patch.setattr(train, "on_accelerator", nullcontext)
        slow = fit(walks(), ITEMS, config, seed=3, text=text)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    fast = fit(walks(), ITEMS, config, seed=3, text=text)
    assert torch.cuda.max_memory_allocated() > before, "it was not used"
    assert {value.device.type for value in fast.model.state_dict().values()} == {"cpu"}
    for one, other in zip(fast.curve, slow.curve, strict=False):  # shared negatives are drawn where they are needed
        assert one["loss"] == pytest.approx(other["loss"], rel=0.2 if negatives else 0.02)
    assert fast.ndcg == pytest.approx(slow.ndcg, abs=0.05)


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole = fit(walks(), ITEMS, CONFIG, seed=3)
    fit(walks(), ITEMS, CONFIG, seed=3, epochs=2, folder=tmp_path)
    taken: list[int] = []
    again = fit(walks(), ITEMS, CONFIG, seed=3, folder=tmp_path, watch=lambda epoch, _: bool(taken.append(epoch)))
    assert taken == list(range(3, len(whole.curve) + 1))
    assert len(again.curve) == len(whole.curve)
    assert again.ndcg == pytest.approx(whole.ndcg, abs=0.03)
