"""The model: causal, blind to padding, and able to place an item by its text alone."""

from __future__ import annotations

import torch

from newfound.config import RankerConfig
from newfound.ranker.model import DISTANCES, SequenceModel, distance_buckets

CONFIG = RankerConfig(dim=16, blocks=2, heads=2, max_length=12)


def _model(**arguments: torch.Tensor) -> SequenceModel:
    torch.manual_seed(0)
    model = SequenceModel(30, CONFIG, **arguments).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_a_state_depends_on_nothing_later() -> None:
    model = _model()
    vectors = model.item_vectors()
    first = model.encoder.hidden(vectors, torch.tensor([[1, 2, 3, 4, 5]]))
    other = model.encoder.hidden(vectors, torch.tensor([[1, 2, 3, 9, 8]]))
    torch.testing.assert_close(first[:, :3], other[:, :3])
    assert not torch.allclose(first[:, 3], other[:, 3])


def test_order_matters() -> None:
    model = _model()
    vectors = model.item_vectors()
    one, other = model.encoder.last_query(vectors, torch.tensor([[1, 2, 3], [2, 1, 3]]))
    assert not torch.allclose(one, other)


def test_queries_do_not_depend_on_padding_or_on_company() -> None:
    model = _model()
    vectors = model.item_vectors()
    together = model.encoder.last_query(vectors, torch.tensor([[3, 4, -1, -1], [5, 6, 7, 8], [-1, -1, -1, -1]]))
    torch.testing.assert_close(together[:1], model.encoder.last_query(vectors, torch.tensor([[3, 4]])))
    torch.testing.assert_close(together[1:2], model.encoder.last_query(vectors, torch.tensor([[5, 6, 7, 8]])))
    assert (together[2] == 0).all()
    assert model.encoder.last_query(vectors, torch.zeros((2, 0), dtype=torch.int64)).tolist() == [[0.0] * 16] * 2


def test_scores_are_bounded_by_the_scale() -> None:
    model = _model()
    vectors = model.item_vectors()
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(30))
    queries = model.encoder.last_query(vectors, torch.tensor([[3, 4]]))
    torch.testing.assert_close(queries.norm(dim=1), model.encoder.log_scale.exp()[None])


def test_an_unknown_item_is_placed_by_its_text_alone() -> None:
    text = torch.nn.functional.normalize(torch.randn(30, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    text[7] = text[3]
    known = torch.ones(30, dtype=torch.bool)
    known[[3, 7]] = False
    vectors = _model(text=text, known=known).item_vectors()
    torch.testing.assert_close(vectors[3], vectors[7])
    assert not torch.allclose(vectors[3], vectors[4])


def test_distance_buckets_are_exact_when_near_and_never_fall() -> None:
    buckets = distance_buckets(400)
    assert buckets[40, 40 - 31].item() == 31 and buckets[5, 9].item() == 0
    last = buckets[-1].flip(0)
    assert (last.diff() >= 0).all() and last[-1] < DISTANCES


def test_the_last_query_is_the_one_of_reading_every_position() -> None:
    model = _model()
    vectors = model.item_vectors()
    sequences = torch.tensor([[3, 4, -1, -1], [5, 6, 7, 8], [2, 9, 1, -1]])
    hidden = model.encoder.hidden(vectors, sequences)
    every = model.encoder.query(hidden)[torch.arange(3), torch.tensor([1, 3, 2])]
    torch.testing.assert_close(model.encoder.last_query(vectors, sequences), every)
