"""Description fidelity: hand-made clusters, and what is held out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from newfound.clusters import fidelity
from newfound.clusters.describe import Describer
from newfound.clusters.embed import Embedding
from newfound.clusters.tree import loads

TOPICS = ("railway", "puzzle", "dragon", "violin")


def encode(texts):
    """A direction for each topic that a text names; a direction of its own for one that names none."""
    found = np.array([[topic in text.lower() for topic in TOPICS] + [0.1] for text in texts], dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def described(monkeypatch):
    titles = [f"a long title about the {topic} of somebody else" for topic in TOPICS for _ in range(6)]
    labels = np.repeat(np.arange(4), 6)
    items = pd.DataFrame(
        {
            "item_id": [str(row) for row in range(24)],
            "title": titles,
            "text": [None] * 24,
            "categories": [[]] * 24,
        }
    )
    text = encode(titles)
    traffic = np.ones(24, dtype=np.int64)
    describer = Describer(items, text, text, loads(traffic), traffic, 2, encode)
    monkeypatch.setattr(fidelity, "encoder_of", lambda embedding: encode)
    return describer, labels, Embedding(text, {}, {}, text)


def test_descriptions_in_words_lead_to_their_items_and_ids_do_not(described):
    describer, labels, embedding = described
    found = fidelity.description_fidelity(describer, labels, embedding, seed=3)
    assert found["description_fidelity@1"] == found["description_fidelity@10"] == 1.0
    assert found["description_fidelity.ids@1"] == 1.0, "ties count for the own cluster: ids are all alike here"
    assert found["description_fidelity.chance@10"] == 1.0


def test_at_most_half_of_a_cluster_and_ten_are_held_out():
    labels = np.repeat(np.arange(3), [1, 5, 40])
    held = fidelity.held_out(labels, 0)
    assert np.bincount(labels, held).tolist() == [0, 2, 10]
    assert (fidelity.held_out(labels, 0) == held).all()


def test_recall_by_hand():
    items = np.array([[1, 0], [0, 1], [0.9, 0.1]], dtype=np.float32)
    descriptions = np.array([[1, 0], [0, 1]], dtype=np.float32)
    assert fidelity._recall(items, descriptions, np.array([0, 0, 0])) == (pytest.approx(2 / 3), 1.0)


def test_without_text_there_is_nothing_to_measure(described):
    describer, labels, embedding = described
    bare = Embedding(embedding.items, {}, {}, None)
    assert fidelity.description_fidelity(describer, labels, bare, seed=3) == {}
