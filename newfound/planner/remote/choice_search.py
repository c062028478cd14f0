"""Best-first search for the best choices of an engine that decodes greedily.

Greedy decoding follows the likeliest token, whose choices together may be likelier than the single best choice, which
begins otherwise. But the engine also tells the probabilities of the tokens that it passed over, and each bounds the
choices that begin with it from above. So another query follows, over those alone, as long as a bound exceeds the best
complete choice; mostly one query is enough.

Probabilities are the engine's own: vLLM masks what is no choice before it takes logarithms, so a token that the choices
leave no alternative to costs nothing, and no true log-probability is above the one told here.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

ALTERNATIVES: Final = 20  # told of each token; the most that vLLM tells by default
_IMPOSSIBLE: Final = -1000.0  # what an engine writes for minus infinity is below


class ChoiceSearch(Generic[T]):
    """The search of one context: `next_query` and `add_answer` in turn, until there is no further query.

    Args:
        texts: what may be answered: the text of each choice, no two alike.
        k: answers wanted.

    Attributes:
        answers: found so far, best first, with their log-probabilities among the choices.
    """

    def __init__(self, texts: Mapping[T, str], k: int) -> None:
        self.texts, self.k = texts, k
        self.answers: dict[T, float] = {}
        self._ages = itertools.count()
        self._open: list[tuple[float, bool, int, str, list[T]]] = []
        self._query: tuple[float, str, list[T]] = (0.0, "", [])
        self._push(0.0, "", list(texts))

    @property
    def bound(self) -> float:
        """No choice that is not among the answers is likelier."""
        return -self._open[0][0] if self._open else -math.inf

    def next_query(self) -> list[T] | None:
        """The choices that the engine is to choose from next; None once the k best are known."""
        while self._open and len(self.answers) < self.k:
            cost, _, _, begin, group = heapq.heappop(self._open)
            if len(group) > 1:
                self._query = (-cost, begin, group)
                return group
            self.answers[group[0]] = -cost
        return None

    def add_answer(self, completion: Mapping[str, Any]) -> None:
        """Takes the engine's answer to the last query: its text, and its tokens with their alternatives.

        Args:
            completion: an item of a completion's `choices`.

        Raises:
            ValueError: the text is none of the query's choices.
            KeyError, TypeError: it is no completion with log-probabilities.
        """
        bound, begin, pool = self._query
        text = completion["text"].strip()
        answer = next((choice for choice in pool if self.texts[choice].strip() == text), None)
        if answer is None:
            raise ValueError(f"answered {completion['text']!r}; expected one of the choices it was given")
        steps = completion["logprobs"]
        read = ""
        for token, value, listed in zip(steps["tokens"], steps["token_logprobs"], steps["top_logprobs"], strict=True):
            onward = [choice for choice in pool if self.texts[choice].startswith(read + token)]
            if answer not in onward:  # the end, or a token that is a part of a character
                onward = [answer]
            self._branch(bound, read, [choice for choice in pool if choice not in onward], token, listed)
            if len(read) + len(token) > len(begin):
                bound += float(value)
            read, pool = read + token, onward
        self._push(bound, read, [answer])
        self._push(bound - 1.0, read, [choice for choice in pool if choice != answer])

    def _branch(self, bound: float, begin: str, left: list[T], taken: str, listed: Mapping[str, float]) -> None:
        """Opens what begins with `begin` and goes on otherwise than with the token that was taken."""
        if not left:
            return
        known = sorted(((float(value), token) for token, value in listed.items()), reverse=True)
        known = [(value, token) for value, token in known if value > _IMPOSSIBLE]
        for value, token in known:
            if token == taken:
                continue
            below = [choice for choice in left if self.texts[choice].startswith(begin + token)]
            below = below or [choice for choice in left if self.texts[choice] == begin]  # it ends there
            self._push(bound + value, begin + token, below)
            left = [choice for choice in left if choice not in below]
        # The engine lists no further tokens: these are no likelier than the last one that it does.
        self._push(bound + min((value for value, _ in known), default=-1.0), begin, left)

    def _push(self, bound: float, begin: str, group: list[T]) -> None:
        if group:
            # A complete choice comes before an equal bound.
            heapq.heappush(self._open, (-bound, len(group) > 1, next(self._ages), begin, group))
