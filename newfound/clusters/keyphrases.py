"""Keyphrases of clusters: class-based TF-IDF finds them, a sentence encoder chooses among them.

A cluster is one class, and a phrase of one to three words weighs by how many of the class's items hold it and by how
rare it is among the classes (class-based TF-IDF, Grootendorst 2022, arXiv 2203.05794). Of the heaviest, those are
chosen one after the other whose embeddings add up to the direction of the items' mean embedding: near to the cluster,
as in KeyBERT, and unlike each other, as in maximal marginal relevance (Carbonell and Goldstein 1998), without a weight
between the two. scikit-learn counts; BERTopic and KeyBERT bring HDBSCAN, UMAP, Numba and Plotly, which nothing here
needs.

Item text is untrusted: only letters, marks, `-`, `'` and `&` pass, in bounded length. Words with a digit never do.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from newfound.clusters.tree import Labels, Weights
from newfound.types import Bools, Floats

WORDS: Final = 3  # in a phrase, at most
CHARACTERS: Final = 4  # of a phrase in a script without spaces, at most
PHRASE_LENGTH: Final = 32
TEXT_AT_MOST: Final = 2000  # characters of an item that are searched
VOCABULARY: Final = 200_000
CANDIDATES: Final = 24  # of a cluster, the heaviest
EVERYWHERE: Final = 0.1  # of the items that have text: from there on a word tells none apart
WHOLE: Final = 0.6  # a phrase that holds at least this share of a part's weight stands for the part
WEIGHT_SHARE: Final = 0.2  # what the TF-IDF weight, over the cluster's heaviest, adds to a cosine

_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f"
_TOKEN = re.compile(rf"[{_SPACELESS}]+|[^\W_{_SPACELESS}](?:[^\W_{_SPACELESS}]|['’&-](?=[^\W_]))*|[^\s]")
_SPACELESS_TOKEN = re.compile(rf"[{_SPACELESS}]+")
_MARKUP = re.compile(r"<[^>]{0,200}>|https?://\S+|@\w+|&[a-z]{2,8};|(?<=\w)[’'`]s\b")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CONTRACTION = re.compile(r"[a-z]+(?:n't|'(?:ll|re|ve|d|m))")


def phrases(text: str, dull: frozenset[str] = frozenset()) -> Iterator[str]:
    """The phrases of a text, in lower case; none goes across punctuation, a hashtag or a word with a digit.

    Args:
        text: of one item.
        dull: words that no phrase begins or ends with; contractions such as "don't" are dull by themselves.

    >>> list(phrases("The #MobileGames of 2023", frozenset({"the", "of"})))
    ['mobile', 'mobile games', 'games']
    >>> list(phrases("王者荣耀"))[:3]
    ['王者', '王者荣', '王者荣耀']
    """
    run: list[str] = []
    for token in _tokens(text[:TEXT_AT_MOST]):
        if token is not None:
            run.append(token)
            continue
        yield from _of_run(run, dull)
        run = []
    yield from _of_run(run, dull)


def _tokens(text: str) -> Iterator[str | None]:
    """Words, and None where a phrase must end."""
    text = _CAMEL.sub(" ", _MARKUP.sub(" ", unicodedata.normalize("NFKC", html.unescape(text))))
    for token in _TOKEN.findall(text):
        if not any(letter.isalpha() for letter in token) or any(letter.isdigit() for letter in token):
            yield None
        elif _SPACELESS_TOKEN.fullmatch(token):
            yield None
            yield token
            yield None
        else:
            yield token.casefold().replace("’", "'")


def _of_run(run: Sequence[str], dull: frozenset[str]) -> Iterator[str]:
    if len(run) == 1 and _SPACELESS_TOKEN.fullmatch(run[0]):
        word = run[0]
        if len(word) == 1:
            yield word
        for start in range(len(word) - 1):
            yield from (word[start:stop] for stop in range(start + 2, min(start + CHARACTERS, len(word)) + 1))
        return
    edge = [word not in dull and len(word) > 1 and _CONTRACTION.fullmatch(word) is None for word in run]
    for start in range(len(run)):
        if edge[start]:
            for stop in range(start + 1, min(start + WORDS, len(run)) + 1):
                phrase = " ".join(run[start:stop])
                if edge[stop - 1] and len(phrase) <= PHRASE_LENGTH:
                    yield phrase


class Keyphrases:
    """Counts the phrases of all items once, and ranks those of clusters.

    Args:
        texts: one an item, empty where it has none.
        labels: phrases of an item that stand as they are, such as its categories.
        load: [n], what each item counts.
        vectors: [n, dim] unit text vectors, zero where an item has no text; None: TF-IDF alone decides.
        encode: texts to unit vectors [m, dim], by the model that made `vectors`.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[Sequence[str]],
        load: Weights,
        vectors: Floats | None,
        encode: Callable[[Sequence[str]], Floats] | None,
    ) -> None:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

        dull = frozenset(ENGLISH_STOP_WORDS) | {"s", "t", "vs", "amp", "quot"}

        boilerplate = dull | _frequent(texts)

        def analyse(row: int) -> list[str]:
            own = [" ".join(word for word in _tokens(label) if word)[:PHRASE_LENGTH] for label in labels[row]]
            found = list(phrases(texts[row], boilerplate)) or list(phrases(texts[row], dull))
            return [*dict.fromkeys([*found, *(phrase for phrase in own if phrase)])]

        self._load, self._vectors, self._encode = load, vectors, encode
        self._known: dict[str, Floats] = {}
        counter = CountVectorizer(analyzer=analyse, binary=True, max_features=VOCABULARY, dtype=np.float32)
        try:
            self._flags: Any = counter.fit_transform(range(len(texts)))  # [n, phrases]
            self.phrases: list[str] = counter.get_feature_names_out().tolist()
        except ValueError:  # no item has a phrase
            self._flags, self.phrases = None, []

    def rank(
        self, labels: Labels, count: int, wanted: int, without: Bools | None = None, by_encoder: bool = True
    ) -> list[list[str]]:
        """Each cluster's phrases: the `wanted` that describe it, then the other candidates, the heaviest first.

        Args:
            labels: [n] from 0.
            count: clusters.
            wanted: phrases that describe a cluster.
            without: [n] items that are left out of account.
            by_encoder: whether the encoder chooses among the candidates, or their weight alone.
        """
        if self._flags is None:
            return [[] for _ in range(count)]
        weights = self._weights(labels, count, without)
        chosen = [self._heaviest(weights, label) for label in range(count)]
        if self._vectors is None or self._encode is None or not by_encoder:
            return [[self.phrases[column] for column, _ in found] for found in chosen]
        centres = self._centres(labels, count, without)
        self._remember({self.phrases[column] for found in chosen for column, _ in found})
        return [self._ordered(found, centre, wanted) for found, centre in zip(chosen, centres, strict=True)]

    def _weights(self, labels: Labels, count: int, without: Bools | None) -> Any:
        """Class-based TF-IDF [clusters, phrases], sparse: share of the load times log(1 + mean mass / frequency)."""
        import scipy.sparse as sparse

        load = self._load if without is None else np.where(without, 0.0, self._load)
        members = sparse.csr_matrix((load, (labels, np.arange(len(labels)))), shape=(count, len(labels)))
        carried = np.asarray(members.sum(axis=1)).ravel()
        scale = sparse.diags(1 / np.where(carried > 0, carried, 1))
        share = sparse.csr_matrix(scale @ members @ self._flags)
        held = sparse.csr_matrix((load > 0, (labels, np.arange(len(labels)))), shape=(count, len(labels))) @ self._flags
        # A phrase of a single item says what the item is, not what its cluster is: it comes after all others.
        once = sparse.csr_matrix(held).astype(np.float64)
        once.data = np.where(once.data > 1, 1.0, 1e-3)
        frequency = np.asarray(share.sum(axis=0)).ravel()
        rarity = np.log1p(share.sum() / count / np.where(frequency > 0, frequency, 1))
        return sparse.csr_matrix(share.multiply(once) @ sparse.diags(rarity))

    def _heaviest(self, weights: Any, label: int) -> list[tuple[int, float]]:
        """Columns and weights of the candidates; a part of a phrase that nearly always stands whole is left out."""
        cells = slice(weights.indptr[label], weights.indptr[label + 1])
        columns, values = weights.indices[cells], weights.data[cells]
        kept: dict[str, tuple[int, float]] = {}
        for at in np.lexsort((columns, -values))[: 4 * CANDIDATES]:
            phrase, value = self.phrases[columns[at]], float(values[at])
            whole = next((other for other in kept if _within(other, phrase) and value >= WHOLE * kept[other][1]), None)
            if whole is not None:  # the longer phrase takes its part's place
                kept = {phrase if other == whole else other: pair for other, pair in kept.items()}
                kept[phrase] = (int(columns[at]), kept[phrase][1])
            elif not any(_within(phrase, other) or _within(other, phrase) for other in kept):
                kept[phrase] = (int(columns[at]), value)
        return list(kept.values())[:CANDIDATES]

    def _centres(self, labels: Labels, count: int, without: Bools | None) -> Floats:
        assert self._vectors is not None
        load = self._load if without is None else np.where(without, 0.0, self._load)
        centres = np.zeros((count, self._vectors.shape[1]))
        np.add.at(centres, labels, self._vectors * load[:, None])
        lengths = np.linalg.norm(centres, axis=1, keepdims=True)
        return np.asarray(centres / np.where(lengths > 0, lengths, 1), dtype=np.float32)

    def _remember(self, texts: set[str]) -> None:
        assert self._encode is not None
        fresh = sorted(texts - self._known.keys())
        if fresh:
            self._known.update(zip(fresh, self._encode(fresh), strict=True))

    def _ordered(self, found: list[tuple[int, float]], centre: Floats, wanted: int) -> list[str]:
        """The candidates whose vectors add up to the cluster's direction, one after the other; then the others."""
        names = [self.phrases[column] for column, _ in found]
        if not names:
            return []
        vectors = np.stack([self._known[name] for name in names])
        weight = np.array([value for _, value in found])
        weight = WEIGHT_SHARE * weight / weight.max()
        words = [set(name.split()) for name in names]
        order: list[int] = []
        total = np.zeros_like(centre)
        for _ in range(min(wanted, len(names))):
            together = total + vectors
            score = together @ centre / np.maximum(np.linalg.norm(together, axis=1), 1e-9) + weight
            # A word that was said already says nothing new.
            said = set().union(*(words[place] for place in order))
            score -= np.array([bool(own & said) for own in words])
            score[order] = -np.inf
            order.append(int(score.argmax()))
            total = total + vectors[order[-1]]
        relevance = vectors @ centre + weight
        rest = [place for place in np.argsort(-relevance, kind="stable").tolist() if place not in order]
        return [names[place] for place in [*order, *rest]]


def _frequent(texts: Sequence[str]) -> frozenset[str]:
    """Words that so many items hold that they tell none apart: the boilerplate of product pages and hashtags."""
    held: Counter[str] = Counter()
    for text in texts:
        held.update({token for token in _tokens(text[:TEXT_AT_MOST]) if token})
    most = max(EVERYWHERE * sum(bool(text) for text in texts), 20)
    return frozenset(word for word, count in held.items() if count > most)


def _within(part: str, whole: str) -> bool:
    """Whether the words of one phrase stand in another, side by side."""
    return part != whole and (f" {part} " in f" {whole} " or (" " not in whole and _spaceless(part) and part in whole))


def _spaceless(text: str) -> bool:
    return _SPACELESS_TOKEN.fullmatch(text) is not None
