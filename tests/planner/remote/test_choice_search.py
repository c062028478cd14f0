"""A greedy engine and what it says about its alternatives give the same answers as looking at every choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newfound.planner.remote.choice_search import ChoiceSearch

END = "</s>"


class GreedyEngine:
    """A model over letters, each a token, that masks what is no choice, as vLLM does. It lists so many alternatives."""

    def __init__(self, seed: int, listed: int, peak: float) -> None:
        self.seed, self.listed, self.peak, self.queries = seed, listed, peak, 0

    def step(self, text: str, choices: Sequence[str]) -> dict[str, float]:
        """Log-probabilities of what may come next."""
        nexts = sorted({c[len(text)] if len(c) > len(text) else END for c in choices if c.startswith(text)})
        draw = np.random.default_rng([self.seed, *text.encode()])
        letters = {letter: value for letter, value in zip([*"abcd", END], draw.normal(0, self.peak, 5), strict=True)}
        mass = math.log(sum(math.exp(letters[token]) for token in nexts))
        return {token: letters[token] - mass for token in nexts}

    def __call__(self, choices: Sequence[str]) -> Mapping[str, object]:
        self.queries += 1
        text, tokens, values, tops = "", [], [], []
        while not tokens or tokens[-1] != END:
            found = self.step(text, choices)
            best = sorted(found, key=lambda token: (-found[token], token))
            tokens.append(best[0])
            values.append(found[best[0]])
            masked = {token: -9999.0 for token in "abcd" if token not in found}
            tops.append({token: found[token] for token in best[: self.listed]} | masked)
            text += "" if best[0] == END else best[0]
        return {"text": text, "logprobs": {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops}}

    def score(self, choice: str, choices: Sequence[str]) -> float:
        """Of the whole choice, its end included."""
        steps = [*choice, END]
        return sum(self.step(choice[:at], choices)[token] for at, token in enumerate(steps))


def run(engine: GreedyEngine, choices: Sequence[str], k: int) -> dict[str, float]:
    search = ChoiceSearch({choice: choice for choice in choices}, k)
    while (query := search.next_query()) is not None:
        assert len(query) > 1
        search.add_answer(engine(query))
    return search.answers


texts = st.lists(st.text("abcd", min_size=1, max_size=5), min_size=1, max_size=25, unique=True)


@settings(max_examples=300, deadline=None)
@given(texts, st.integers(0, 1000), st.integers(1, 6), st.sampled_from([0.3, 1.0, 4.0]))
def test_the_best_are_those_of_looking_at_everything(choices: list[str], seed: int, k: int, peak: float) -> None:
    engine = GreedyEngine(seed, listed=5, peak=peak)
    true = {choice: engine.score(choice, choices) for choice in choices}
    found = run(engine, choices, k)
    best = sorted(choices, key=lambda choice: -true[choice])[:k]
    assert list(found) == pytest.approx(best) or [true[c] for c in found] == pytest.approx([true[c] for c in best])
    for choice, value in found.items():
        assert value == pytest.approx(true[choice])


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(0, 1000))
def test_everything_is_answered_once_whatever_the_engine_lists(choices: list[str], seed: int) -> None:
    engine = GreedyEngine(seed, listed=1, peak=1.0)
    found = run(engine, choices, len(choices))
    assert sorted(found) == sorted(choices) and list(found.values()) == sorted(found.values(), reverse=True)
    assert engine.queries <= 2 * len(choices)


def test_greedy_decoding_alone_would_answer_another_one() -> None:
    """Four choices that begin with the likelier letter share its probability; the best begins with the other one."""

    class Pooled(GreedyEngine):
        def step(self, text: str, choices: Sequence[str]) -> dict[str, float]:
            nexts = sorted({c[len(text)] if len(c) > len(text) else END for c in choices if c.startswith(text)})
            share = {"": {"a": 0.6, "b": 0.4}}.get(text, {})
            return {token: math.log(share.get(token, 1 / len(nexts)) if len(nexts) > 1 else 1.0) for token in nexts}

    engine = Pooled(0, listed=5, peak=1.0)
    choices = ["aa", "ab", "ac", "ad", "b"]
    assert engine(choices)["text"] == "aa"
    assert run(engine, choices, 1) == {"b": pytest.approx(math.log(0.4))}
