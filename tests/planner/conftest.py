"""What every test of the planner starts from."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from tests.planner.tiny_planner import make_tokenizer


@pytest.fixture
def word_tokenizer() -> Tokenizer:
    """One of its own for each test, since a codec changes how it treats special tokens."""
    return make_tokenizer()
