"""Descriptions by a chat model behind an OpenAI-compatible URL, checked before they are taken.

The model reads a cluster's best known titles and its keyphrases. What it answers is untrusted like any text: it is
cleaned, bounded, and refused where it holds a digit, no letter, or what another cluster is called. A cluster without an
answer keeps its keyphrases.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Final

import numpy as np

from newfound.clusters.describe import LENGTH, Describer, clean
from newfound.clusters.tree import Labels
from newfound.config import ClustersConfig
from newfound.files import new_file

TITLES: Final = 12  # of a cluster, the best known
TITLE_LENGTH: Final = 120
WORDS: Final = 8  # of an answer, at most
TOKENS: Final = 32
TIMEOUT_S: Final = 60.0
FAILURES: Final = 3  # in a row: then the engine is left alone
SYSTEM: Final = (
    "You name groups of items in a catalogue. Answer with the name alone: two to six words in the language of the "
    "titles, plain, specific, no digits, no quotes."
)

log = logging.getLogger("newfound.clusters")


def write_by_llm(describer: Describer, labels: Labels, fixed: dict[int, str], config: ClustersConfig) -> dict[int, str]:
    """Descriptions by label, of those that the model named and that passed the checks.

    Args:
        describer: for titles and keyphrases.
        labels: [n] interface labels.
        fixed: descriptions that stay, which the model is not asked for.
        config: URL, model and cache.
    """
    import httpx

    cache = _Cache(Path(config.describer_cache) if config.describer_cache else None)
    phrases = describer.keyphrases(labels)
    taken = {text.casefold() for text in fixed.values()}
    texts: dict[int, str] = {}
    failed = 0
    with httpx.Client(base_url=str(config.describer_url), timeout=TIMEOUT_S) as client:
        for label in range(len(phrases)):
            if label in fixed or failed >= FAILURES:
                continue
            body = _request(
                _titles(describer, labels, label), phrases[label][: config.keywords], config.describer_model
            )
            answer = cache.get(body)
            if answer is None:
                try:
                    answer = _ask(client, body)
                except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
                    failed += 1
                    log.warning("describer: no answer (%s)", type(error).__name__)
                    continue
                cache.put(body, answer)
            failed = 0
            text = checked(answer, taken)
            if text is None:
                log.info("describer: an answer was refused; keyphrases stand in")
                continue
            taken.add(text.casefold())
            texts[label] = text
    cache.save()
    log.info("describer: %d of %d clusters were named by %s", len(texts), len(phrases), config.describer_model)
    return texts


def checked(answer: str, taken: set[str]) -> str | None:
    """The answer as a description, or None where it cannot be one.

    >>> checked('"Italian home cooking."', set()), checked("Group 7", set()), checked("Westerns", {"westerns"})
    ('Italian home cooking', None, None)
    """
    first = next((line for line in answer.splitlines() if line.strip()), "")
    text = clean(first)
    text = text[:1].upper() + text[1:]
    fits = any(letter.isalpha() for letter in text) and not any(letter.isdigit() for letter in text)
    if not fits or len(first) > 2 * LENGTH or len(text.split()) > WORDS or text.casefold() in taken:
        return None
    return text


def _titles(describer: Describer, labels: Labels, label: int) -> list[str]:
    members = np.flatnonzero(labels == label)
    known = members[np.lexsort((members, -describer.traffic[members]))]
    titles = [clean(describer.titles[item], TITLE_LENGTH) for item in known if describer.titles[item]]
    return [title for title in titles if title][:TITLES]


def _request(titles: list[str], phrases: list[str], model: str) -> dict[str, Any]:
    content = "Titles:\n" + "\n".join(f"- {title}" for title in titles) + f"\nKeyphrases: {', '.join(phrases)}\nName:"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
    return {"model": model, "messages": messages, "max_tokens": TOKENS, "temperature": 0}


def _ask(client: Any, body: dict[str, Any]) -> str:
    response = client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    answer = response.json()["choices"][0]["message"]["content"]
    if not isinstance(answer, str):
        raise TypeError("content is no text")
    return answer


class _Cache:
    """Answers by the digest of their request."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._answers: dict[str, str] = {}
        if file is not None and file.is_file():
            self._answers = dict(json.loads(file.read_text(encoding="utf-8")))

    @staticmethod
    def _key(body: dict[str, Any]) -> str:
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def get(self, body: dict[str, Any]) -> str | None:
        return self._answers.get(self._key(body))

    def put(self, body: dict[str, Any], answer: str) -> None:
        self._answers[self._key(body)] = answer
        if len(self._answers) % 20 == 0:
            self.save()

    def save(self) -> None:
        if self._file is not None:
            with new_file(self._file) as draft:
                draft.write_text(json.dumps(self._answers, indent=0, sort_keys=True), encoding="utf-8")
