"""Every sequence is found along the edges that it shares with others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound.planner.decoding.trie import Trie

sequences = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), min_size=1, max_size=15, unique=True
)


@settings(max_examples=200, deadline=None)
@given(sequences)
def test_edges_spell_the_sequences_and_part_at_their_first_token(given: list[tuple[int, ...]]) -> None:
    trie = Trie(given)
    for label, sequence in enumerate(given):
        (place,) = (place for place, node in enumerate(trie.nodes) if node.label == label)
        spelled: tuple[int, ...] = ()
        assert trie.nodes[place].depth == len(sequence)
        while place >= 0:
            node = trie.nodes[place]
            assert label in node.labels
            spelled, place = node.tokens + spelled, node.parent
        assert spelled == sequence
    for node in trie.nodes[1:]:
        assert node.tokens and (node.label is not None or len(node.children) > 1)
    for node in trie.nodes:
        firsts = [trie.nodes[child].tokens[0] for child in node.children]
        assert firsts == sorted(set(firsts))
        below = {label for child in node.children for label in trie.nodes[child].labels}
        assert set(node.labels) == below | ({node.label} - {None})


def test_no_sequence_an_empty_one_and_equal_ones_are_refused() -> None:
    for bad in ([], [()], [(1, 2), (1, 2)]):
        with pytest.raises(ValueError):
            Trie(bad)
