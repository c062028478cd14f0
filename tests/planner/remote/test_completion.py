"""Completion requests, and answers that are read back."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer

from newfound.planner.prompt import PromptCodec
from newfound.planner.remote.completion import CompletionCodec


@pytest.fixture
def codec(word_tokenizer: Tokenizer) -> CompletionCodec:
    return CompletionCodec(PromptCodec.extend(word_tokenizer, ["crime noir", "space opera", "日本", "crime"]))


def test_a_request_allows_all_interests_but_its_own(codec: CompletionCodec) -> None:
    first = codec.prompt.first_token
    request = codec.request("planner", (0, 2))
    assert request["prompt"] == list(codec.prompt.tokens((0, 2)))
    assert request["allowed_token_ids"] == [first + 1, first + 3] and request["logprobs"] == 2


@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_log_probabilities_are_among_the_interests_whatever_was_masked(codec: CompletionCodec, shift: float) -> None:
    first = codec.prompt.first_token
    told = {f"token_id:{first + 1}": np.log(0.25) + shift, f"token_id:{first + 3}": np.log(0.75) + shift}
    told |= {"token_id:7": -0.1, f"token_id:{first}": -0.2}  # a word, and the context's own
    found = codec.read({"choices": [{"logprobs": {"top_logprobs": [told]}}]}, (0, 2))
    np.testing.assert_allclose(np.exp(found), [0, 0.25, 0, 0.75], atol=1e-6)
