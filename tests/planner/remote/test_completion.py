"""Completion requests, and answers that are read back or refused."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from newfound.planner.prompt import PromptCodec
from newfound.planner.remote.completion import CompletionCodec, EngineError


@pytest.fixture
def codec(word_tokenizer: Tokenizer) -> CompletionCodec:
    return CompletionCodec(PromptCodec(word_tokenizer, ["crime noir", "space opera", "日本", "crime"], end=2))


def test_a_choice_request_names_its_choices_and_leaves_room_for_each_byte(codec: CompletionCodec) -> None:
    prompt = codec.prompt.tokens((0, 1))
    request = codec.choice_request("planner", prompt, [2, 3])
    assert request["prompt"] == list(prompt) and request["structured_outputs"] == {"choice": [" 日本", " crime"]}
    assert request["temperature"] == 0 and request["max_tokens"] == len(" space opera") + 1


def test_scores_are_sums_over_the_description_and_its_end(codec: CompletionCodec) -> None:
    prompt, clusters = codec.prompt.tokens((0, 1)), [3, 2]
    request = codec.score_request("planner", prompt, clusters)
    lengths = [len(codec.prompt.answers[cluster]) + 1 for cluster in clusters]
    assert [len(whole) for whole in request["prompt"]] == [len(prompt) + length for length in lengths]
    assert all(whole[-1] == codec.prompt.end for whole in request["prompt"]) and request["echo"]
    told = [{"token_logprobs": [None, *[-9.0] * (len(prompt) - 1), *[-0.5] * length, -7.0]} for length in lengths]
    answer = {"choices": [{"index": at, "logprobs": told[at]} for at in (1, 0)]}  # in any order
    assert codec.read_scores(answer, prompt, clusters) == [-0.5 * length for length in lengths]


@pytest.mark.parametrize("answer", [{}, [], {"choices": [{}]}, {"choices": [{"index": 0, "logprobs": None}]}])
def test_scores_that_are_missing_are_an_error(codec: CompletionCodec, answer: object) -> None:
    with pytest.raises(EngineError, match="log-probabilities"):
        codec.read_scores(answer, codec.prompt.tokens((0, 1)), [2])
