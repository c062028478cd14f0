"""New items put among a ranker's own: the same answers as from a ranker that was made with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound.errors import VocabularyError
from newfound.ranker import Ranker
from newfound.ranker.insertion import Insertion
from tests.serving.synthetic import World, histories, write_release

WORLD = World(parents=2, clusters=6, items=9)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Ranker:
    return Ranker.load(write_release(WORLD, tmp_path_factory.mktemp("insertion"))["ranker"])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6).flatmap(
    lambda sizes: st.tuples(st.just(sizes), st.lists(st.integers(0, len(sizes) - 1), max_size=8))
))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_rows_names_and_slices_move_together(drawn: tuple[list[int], list[int]]) -> None:
    sizes, into = drawn
    stops = np.cumsum(sizes).tolist()
    leaves = [[f"{at}.{n}" for n in range(size)] for at, size in enumerate(sizes)]
    new = [f"{at}.new{n}" for n, at in enumerate(into)]
    made = Insertion.at_ends([stops[at] for at in into], new)
    expected = [[*leaf, *(name for name in new if name.startswith(f"{at}."))] for at, leaf in enumerate(leaves)]
    there = [name for leaf in leaves for name in leaf]
    names = made.names(there, new)
    assert names == [name for leaf in expected for name in leaf]
    assert made.rows(np.array(there, dtype=object), np.array(new, dtype=object)).tolist() == names
    for at, (size, stop) in enumerate(zip(sizes, stops, strict=True)):
        start, end = made.moved_span((stop - size, stop))
        assert names[start:end] == expected[at]
    assert made.moved_span((0, stops[-1])) == (0, len(names))


def with_new(ranker: Ranker) -> tuple[Ranker, list[str], np.ndarray]:
    names, leaves = ["x", "z", "y", "w"], ["l0.1", "l5.2", "l0.1", "l2.0"]
    vectors = np.random.default_rng(3).normal(size=(4, WORLD.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return ranker.with_new(names, leaves, vectors)[0], names, vectors


def test_it_ranks_as_if_it_had_been_made_with_them(ranker: Ranker) -> None:
    grown, names, vectors = with_new(ranker)
    at = {item: place for place, item in enumerate(grown.items)}
    assert grown.items[-1] == "z" and [grown.items[at["x"] + 1], len(grown.items)] == ["y", len(ranker.items) + 4]
    # The plain way: every array written out, neighbours under their new positions.
    moved = np.array([at[item] for item in ranker.items])
    sizes = np.zeros(len(grown.items), dtype=np.int64)
    sizes[moved] = np.diff(ranker.cooccurrence.offsets)
    plain = replace(
        ranker.cooccurrence,
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        neighbours=moved[ranker.cooccurrence.neighbours],
    )
    rows = np.zeros((len(grown.items), WORLD.dim), dtype=np.float32)
    rows[moved], rows[[at[name] for name in names]] = ranker.index.vectors, vectors
    popularity = np.full(len(grown.items), ranker.popularity.min(), dtype=np.float32)
    popularity[moved] = ranker.popularity
    by_hand = Ranker(ranker.encoder, rows, popularity, plain, grown.items, grown.slices, ranker.info)
    pasts = [list(row["item_ids"]) for row in histories(WORLD, 4, 12)]  # type: ignore[call-overload]
    pasts = [*pasts, [*pasts[0], "x", "z"], ["y"], []]
    for nodes in (None, ["c0"], ["p1", "l0.1"]):
        asked = (pasts, [nodes] * len(pasts), 70, [["w"]] * len(pasts))
        assert grown.top_k(*asked) == by_hand.top_k(*asked)
    found = {item for item, _ in grown.top_k([pasts[1]], [["l0.1"]], 20, [[]])[0]}
    assert found == {"x", "y", *(item for item, _ in ranker.top_k([pasts[1]], [["l0.1"]], 20, [[]])[0])}


def test_the_one_before_is_as_it_was(ranker: Ranker) -> None:
    before = ranker.top_k([["i1.1"]], [None], 60, [[]])
    grown, _, _ = with_new(ranker)
    assert ranker.top_k([["i1.1"]], [None], 60, [[]]) == before and len(ranker.items) == 54
    assert grown.cooccurrence.neighbours is ranker.cooccurrence.neighbours, "what is large is shared"


def test_what_does_not_fit_is_refused(ranker: Ranker) -> None:
    vector = np.ones((1, WORLD.dim), dtype=np.float32)
    with pytest.raises(VocabularyError, match="'nowhere'"):
        ranker.with_new(["x"], ["nowhere"], vector)
    with pytest.raises(VocabularyError, match="'i1.1' is new, but"):
        ranker.with_new(["i1.1"], ["l0.1"], vector)
    with pytest.raises(VocabularyError, match="columns"):
        ranker.with_new(["x"], ["l0.1"], vector[:, 1:])
    with pytest.raises(ValueError, match="there already"):
        with_new(with_new(ranker)[0].with_new([], [], vector[:0])[0])


def test_the_projection_is_kept(ranker: Ranker, tmp_path: Path) -> None:
    content = np.eye(3, dtype=np.float32)[:2]
    assert ranker.vectors_of_content(content) is None
    ranker.projection = np.arange(WORLD.dim * 3, dtype=np.float32).reshape(WORLD.dim, 3)
    ranker.save(tmp_path / "ranker")
    found = Ranker.load(tmp_path / "ranker").vectors_of_content(content)
    assert found is not None
    column = ranker.projection[:, 1]
    np.testing.assert_allclose(found[1], column / np.linalg.norm(column), rtol=1e-6)
    ranker.projection = None
