"""Completion requests for a planner's next clusters, and the reading of an OpenAI-compatible engine's answers.

It knows no transport: bulk inference (`newfound.planner.remote.planner`) and the explorer's live client send the same
requests. Prompts go as token ids, so that every engine reads the very same prompt. What may be answered goes as
`structured_outputs.choice`, as vLLM takes it; its older `guided_choice` is ignored without a word by current versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from newfound.errors import NewfoundError
from newfound.planner.prompt import PromptCodec, Tokens
from newfound.planner.remote.choice_search import ALTERNATIVES, ChoiceSearch

PATH = "/v1/completions"


class EngineError(NewfoundError):
    """The engine did not answer as an OpenAI-compatible completion engine with structured output does."""


class CompletionCodec:
    """Requests as JSON objects, and their answers.

    Args:
        prompt: how contexts and descriptions become tokens; of the very planner that the engine serves.
    """

    def __init__(self, prompt: PromptCodec) -> None:
        self.prompt = prompt
        self._choices = prompt.choices()
        # An engine may spell a choice in more tokens than the tokenizer would, at most one a byte; then comes the end.
        self._longest = max(len(choice.encode()) for choice in self._choices) + 1

    def search(self, clusters: Iterable[int], k: int) -> ChoiceSearch[int]:
        """A search for the k best of some clusters."""
        return ChoiceSearch({cluster: self._choices[cluster] for cluster in clusters}, k)

    def choice_request(self, model: str, prompt: Tokens, clusters: Sequence[int]) -> dict[str, Any]:
        """Greedy decoding along the descriptions of some clusters, with the alternatives to each token.

        Args:
            model: the name under which the engine serves the planner.
            prompt: of `PromptCodec.tokens`.
            clusters: those that may be answered.
        """
        return {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": self._longest,
            "temperature": 0,
            "logprobs": ALTERNATIVES,
            "structured_outputs": {"choice": [self._choices[cluster] for cluster in clusters]},
        }

    def read_choice(self, answer: Any, search: ChoiceSearch[int]) -> None:
        """Gives the answer to a choice request to the search that it was made for.

        Raises:
            EngineError: the answer is none of the choices, or no completion with log-probabilities.
        """
        try:
            search.add_answer(answer["choices"][0])
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise EngineError(f"planner engine: {error}; expected one of the choices it was given") from None

    def score_request(self, model: str, prompt: Tokens, clusters: Iterable[int]) -> dict[str, Any]:
        """Whole descriptions, each with its end, to be read back as prompts."""
        whole = [[*prompt, *self._ended(cluster)] for cluster in clusters]
        return {"model": model, "prompt": whole, "max_tokens": 1, "temperature": 0, "logprobs": 0, "echo": True}

    def read_scores(self, answer: Any, prompt: Tokens, clusters: Iterable[int]) -> list[float]:
        """Natural-log probabilities of the descriptions of a score request, their ends included.

        Raises:
            EngineError: the answer tells no log-probabilities of the prompts.
        """
        try:
            told = {choice["index"]: choice["logprobs"]["token_logprobs"] for choice in answer["choices"]}
            start, lengths = len(prompt), [len(self._ended(cluster)) for cluster in clusters]
            return [float(sum(told[at][start : start + length])) for at, length in enumerate(lengths)]
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"planner engine: {error!r}; expected the prompts' log-probabilities") from None

    def _ended(self, cluster: int) -> Tokens:
        return (*self.prompt.answers[cluster], self.prompt.end)
