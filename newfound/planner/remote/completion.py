"""Completion requests for a planner's next clusters, and the reading of an OpenAI-compatible engine's answers.

It knows no transport: bulk inference (`newfound.planner.remote.planner`) and the explorer's live client send the same
requests. Prompts go as token ids, so that every engine reads the very same prompt. The answer is one token out of
`allowed_token_ids`, and its alternatives carry the log-probabilities of all of them, named by their ids. The engine has
to tell of as many as there are interests, after masking: vLLM with `--max-logprobs` at least the interests, and
`--logprobs-mode processed_logprobs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from newfound.errors import NewfoundError
from newfound.planner.prompt import PromptCodec
from newfound.types import Floats

PATH: Final = "/v1/completions"
TOKEN: Final = "token_id:"  # before an id, where tokens are named by ids
LIKELIEST: Final = -9000.0  # what an engine writes for minus infinity is below


class EngineError(NewfoundError):
    """The engine did not answer as an OpenAI-compatible completion engine that serves this planner does."""


class CompletionCodec:
    """Requests as JSON objects, and their answers.

    Args:
        prompt: how contexts become tokens; of the very planner that the engine serves.
    """

    def __init__(self, prompt: PromptCodec) -> None:
        self.prompt = prompt

    def request(self, model: str, context: Sequence[int]) -> dict[str, Any]:
        """One token after a context's prompt, out of all interests but its own.

        Args:
            model: the name under which the engine serves the planner.
            context: cluster indices, oldest first.
        """
        allowed = [token for cluster, token in enumerate(self.prompt.answers) if cluster not in context]
        return {
            "model": model,
            "prompt": list(self.prompt.tokens(tuple(context))),
            "max_tokens": 1,
            "temperature": 0,
            "allowed_token_ids": allowed,
            "logprobs": len(allowed),
            "return_tokens_as_token_ids": True,
        }

    def read(self, answer: Any, context: Sequence[int]) -> Floats:
        """Natural-log probabilities of all clusters, float32 [N]; the context's own have minus infinity.

        Args:
            answer: to the context's request.
            context: cluster indices.

        Raises:
            EngineError: it is no completion with log-probabilities, or lacks those of an interest.
        """
        values = np.full(len(self.prompt), -np.inf, dtype=np.float64)
        try:
            told = answer["choices"][0]["logprobs"]["top_logprobs"][0]
            for name, value in told.items():
                cluster = self.prompt.cluster_of(int(name.removeprefix(TOKEN)))
                if cluster is not None and cluster not in context:
                    values[cluster] = float(value)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise EngineError(f"planner engine: {error!r}; expected the log-probabilities of its tokens") from None
        wanted = len(self.prompt) - len(set(context))
        found = int(np.isfinite(values).sum())
        if found != wanted or not (values > LIKELIEST).any():
            raise EngineError(
                f"planner engine: log-probabilities of {found} interests; expected {wanted} "
                "(vLLM: --max-logprobs, --logprobs-mode processed_logprobs)"
            )
        values -= values.max()
        log_probs: Floats = (values - np.log(np.exp(values).sum())).astype(np.float32)
        return log_probs
