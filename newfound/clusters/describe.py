"""A few keywords for every cluster: short, unique, and such that a person nods.

A description names the cluster by its best known typical item, where titles are short enough to be names ("Fargo"), or
else by its most distinctive word, and goes on with what sets it apart: categories, decade, words ("crime thriller").
Both a person and a language model know what "Fargo, crime thriller" means, it takes few tokens, and first words that
differ let a decoder tell clusters apart at the first step.

Item text is untrusted: only letters, digits, `-`, `'` and `&` pass, in bounded length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from newfound import schema
from newfound.clusters.embed import title_year
from newfound.clusters.tree import Labels, Weights
from newfound.types import Floats, Ints

NAME_WORDS: Final = 4
NAME_LENGTH: Final = 22
LENGTH: Final = 60  # no description is longer
CANDIDATES: Final = 40  # items that a name is chosen from
TEXT_AT_MOST: Final = 2000  # characters of an item's text that are searched for words
VOCABULARY: Final = 20_000
# From which share of its cluster's load, and how much more frequent than elsewhere, something is worth saying.
SHARE: Final = {"category": 0.35, "decade": 0.35, "word": 0.25}
LIFT: Final = {"category": 1.25, "decade": 2.0, "word": 2.0}
REST_AT_LEAST: Final = 0.01  # share elsewhere below which rarer is not better
# What a name loses against fame (at most 1) and typicality (at most 1).
LETTER: Final = 0.01
DIGIT: Final = 4  # letters that a digit counts for: it is a token of its own
ARTICLE_LOST: Final = 0.3  # one word, its article dropped: "Rock" for "The Rock"

_DECADES: Final = {
    1930: "thirties",
    1940: "forties",
    1950: "fifties",
    1960: "sixties",
    1970: "seventies",
    1980: "eighties",
    1990: "nineties",
}
_PARENTHESES = re.compile(r"\([^)]*\)|\[[^\]]*\]|<[^>]*>")
_LAST_ARTICLE = re.compile(r",\s*(the|a|an|il|la|le|les|lo|el|los|las|l'|der|die|das|den|det|de|o|os|i|gli)\s*$", re.I)
_FIRST_ARTICLE = re.compile(r"^(the|a|an)\s+(?=\S)", re.I)
_SUBTITLE = re.compile(r"\s*(?::|;| - | – | \| ).*$")
_ABBREVIATION = re.compile(r"(?<=\b\w)[.*](?=\W|\w\b|$)")
_WORD = re.compile(r"[^\W\d_]{3,}", re.UNICODE)
_DANGLING: Final = frozenset(
    ("a", "an", "and", "at", "by", "de", "for", "from", "in", "la", "my", "of", "on", "or", "the", "to", "&")
)


@dataclass(frozen=True)
class _Facets:
    """What items have in common: [items, facets] flags, and how each facet reads."""

    flags: Any  # scipy CSR
    texts: list[str]
    kinds: list[str]  # category | decade | word


class Describer:
    """Describes the nodes of one tree level after another.

    Args:
        items: schema.ITEMS.
        vectors: [n, dim] of the items.
        load: [n], what each item counts.
        traffic: [n] positive events, how well an item is known.
        keywords: at most so many in a description.
    """

    def __init__(
        self,
        items: pd.DataFrame,
        vectors: Floats,
        load: Weights,
        traffic: Ints,
        keywords: int,
    ) -> None:
        self._ids = items[schema.ITEM].tolist()
        self._vectors, self._load, self._traffic, self._keywords = vectors, load, traffic, keywords
        titles = ["" if title == item else title for item, title in zip(self._ids, items[schema.TITLE], strict=True)]
        self._names = [short_name(title) for title in titles]
        self._articles = [bool(_LAST_ARTICLE.search(title) or _FIRST_ARTICLE.search(title)) for title in titles]
        known = [bool(title) for title in titles]
        self._by_name = sum(name is not None for name in self._names) > 0.5 * max(sum(known), 1)
        self._facets = _facets(items, titles, self._by_name)

    def level(
        self,
        labels: Labels,
        fixed: dict[int, str] | None = None,
        given: Sequence[list[str]] | None = None,
        by_name: bool = True,
    ) -> list[str]:
        """One description a label.

        Args:
            labels: [n] from 0.
            fixed: descriptions that stay as they are, such as those of an earlier fit.
            given: keywords of a label, where a designer named it.
            by_name: whether a known item names the cluster, or what its items have in common.

        Returns:
            Descriptions by label, unique; none is the beginning of another where that can be helped.
        """
        count = int(labels.max()) + 1
        taken = _Taken()
        texts: list[str | None] = [None] * count
        for label, text in (fixed or {}).items():
            if not taken.has(text):
                texts[label] = text
                taken.add(text)
        members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=count))[:-1])
        rank = sorted(range(count), key=lambda label: (-self._traffic[members[label]].max(), label))  # fame goes first
        common = self._common(labels, count)
        for label in rank:
            if texts[label] is not None:
                continue
            found = self._candidates(members[label], common[label], given[label] if given else None, by_name)
            text = taken.first_free([_sentence(text) for text in found], label)
            texts[label] = text
            taken.add(text)
        return [text for text in texts if text is not None]

    def _candidates(
        self, members: Ints, common: list[tuple[str, str]], given: list[str] | None, by_name: bool
    ) -> Iterator[str]:
        """Descriptions of a cluster, best first."""
        names = self._ranked_names(members) if self._by_name else []
        parts: list[str] = []
        if given is not None:
            parts = [word for word in map(clean, given) if word]
            yield ", ".join(parts)
        elif by_name:
            for name in names:
                yield ", ".join(part for part in (name, self._qualifier(common, name)) if part)
        if not parts:
            texts = [text for text, _ in common]
            for lead in range(len(texts)):
                chosen = [texts[lead], *texts[:lead], *texts[lead + 1 :]]
                yield from (", ".join(chosen[:size]) for size in range(self._keywords, 0, -1))
            parts = texts[: max(self._keywords - 1, 1)]
        yield from (", ".join([*parts, name]) for name in names)
        known = members[np.lexsort((members, -self._traffic[members]))][:CANDIDATES]
        ids = [word for word in (clean(self._ids[item]) for item in known) if word]
        if ids and not parts:
            yield from (f"items {', '.join(ids[:size])}" for size in (3, 5, 8))
        else:
            yield from (", ".join([*parts, name]) for name in ids)

    def _qualifier(self, common: list[tuple[str, str]], name: str) -> str:
        """What sets the cluster apart, beside its name: decade, then categories, then words."""
        own = set(_words(name))
        apart = [pair for pair in common if not own & set(_words(pair[0]))]
        era = next((pair for pair in apart if pair[1] == "decade"), None)
        chosen = [pair for pair in apart if pair[1] != "decade" or pair == era][: max(self._keywords - 1, 0)]
        order = {"decade": 0, "category": 1, "word": 2}
        return " ".join(text for text, _ in sorted(chosen, key=lambda pair: order[pair[1]]))

    def _ranked_names(self, members: Ints) -> list[str]:
        """Names of items that are known and typical, best first."""
        known = members[np.lexsort((members, -self._traffic[members]))][:CANDIDATES]
        known = np.array([item for item in known if self._names[item] is not None], dtype=np.int64)
        if not len(known):
            return []
        centre = np.average(self._vectors[members], axis=0, weights=self._load[members])
        typical = self._vectors[known] @ centre / max(float(np.linalg.norm(centre)), 1e-12)
        fame = np.sqrt(self._traffic[known] / max(int(self._traffic[known].max()), 1))
        names = [self._names[item] or "" for item in known]
        length = np.array([len(name) + DIGIT * sum(letter.isdigit() for letter in name) for name in names])
        bare = np.array([" " not in name and self._articles[item] for item, name in zip(known, names, strict=True)])
        score = fame + typical - LETTER * length - ARTICLE_LOST * bare
        return list(dict.fromkeys(names[place] for place in np.lexsort((known, -score))))

    def _common(self, labels: Labels, count: int) -> list[list[tuple[str, str]]]:
        """By label: the facets that set it apart, best first, as (text, kind)."""
        import scipy.sparse as sparse

        facets = self._facets
        if not facets.texts:
            return [[] for _ in range(count)]
        rows = np.arange(len(labels))
        carried = sparse.csr_matrix((self._load, (labels, rows)), shape=(count, len(labels)))
        total = np.asarray(carried.sum(axis=1)).ravel()
        share = sparse.csr_matrix(carried @ facets.flags)
        items = sparse.csr_matrix((np.ones(len(labels)), (labels, rows)), shape=(count, len(labels))) @ facets.flags
        everywhere = np.asarray(self._load @ facets.flags).ravel()
        out = []
        for label in range(count):
            cells = slice(share.indptr[label], share.indptr[label + 1])
            columns = share.indices[cells]
            here = share.data[cells] / total[label]
            rest = (everywhere[columns] - share.data[cells]) / max(self._load.sum() - total[label], 1e-9)
            holders = np.asarray(items[label, columns].todense()).ravel()
            lift = here / np.maximum(rest, REST_AT_LEAST) if count > 1 else np.ones(len(columns))
            score = here * np.log(np.maximum(lift, 1e-9))
            kinds = [facets.kinds[column] for column in columns]
            words = np.array([kind == "word" for kind in kinds], dtype=bool)
            fits = (here >= np.array([SHARE[kind] for kind in kinds])) & (holders >= 1 + words)
            fits &= lift >= np.array([LIFT[kind] for kind in kinds])
            chosen = [int(place) for place in np.lexsort((columns, -score)) if fits[place]]
            if not chosen:  # nothing stands out: say what is frequent
                plain = np.where(words, -1.0, here)
                chosen = [int(place) for place in np.lexsort((columns, -plain))[:1] if plain[place] > 0]
            out.append([(facets.texts[columns[place]], facets.kinds[columns[place]]) for place in chosen[:8]])
        return out


class _Taken:
    """Descriptions that a level has already."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._leads: set[str] = set()
        self._whole: set[tuple[str, ...]] = set()
        self._beginnings: set[tuple[str, ...]] = set()

    def add(self, text: str) -> None:
        words = tuple(_words(text))
        self._texts.add(text.casefold())
        self._leads.add(words[0] if words else "")
        self._whole.add(words)
        self._beginnings.update(words[:size] for size in range(1, len(words) + 1))

    def has(self, text: str) -> bool:
        return text.casefold() in self._texts

    def first_free(self, candidates: Sequence[str], number: int) -> str:
        """The first candidate whose first word is new, or that is at least no beginning of another, or else is new."""
        candidates = [text for text in candidates if text]
        for text in candidates:
            if self._apart(text) and _words(text)[0] not in self._leads:
                return text
        for text in candidates:
            if self._apart(text):
                return text
        for text in candidates:
            if not self.has(text):
                return text
        base = candidates[0][: LENGTH - 12] if candidates else "Group"
        while self.has(f"{base} {number}"):
            number += 1
        return f"{base} {number}"

    def _apart(self, text: str) -> bool:
        words = tuple(_words(text))
        if not words or words in self._beginnings:
            return False
        return not any(words[:size] in self._whole for size in range(1, len(words) + 1))


def clean(text: str, length: int = LENGTH) -> str:
    """Plain printable words: markup, control characters and punctuation go, accents on Latin letters as well.

    >>> clean("<b>Fantômas</b>\\n{ignore: all}")
    'Fantomas ignore all'
    """
    text = _ABBREVIATION.sub("", _PARENTHESES.sub(" ", text[: max(8 * length, 500)]))
    text = unicodedata.normalize("NFKD", text)
    kept = "".join(
        letter if letter.isalnum() or letter in "-'&" else " " for letter in text if not unicodedata.combining(letter)
    )
    return " ".join(kept.split())[:length].strip("-'& ")


def short_name(title: str) -> str | None:
    """A title as a name: without year, articles and subtitle; None where it is too long for one.

    >>> short_name("Usual Suspects, The (1995)"), short_name("Star Trek: First Contact (1996)")
    ('Usual Suspects', 'Star Trek')
    >>> short_name("One Flew Over the Cuckoo's Nest (1975)") is None
    True
    """
    bare = _LAST_ARTICLE.sub("", _PARENTHESES.sub(" ", title[:500]).strip())
    for text in (_SUBTITLE.sub("", bare), bare):
        name = _FIRST_ARTICLE.sub("", clean(text))
        words = name.split()
        if len(words) == 1 and text is not bare and len(bare) <= NAME_LENGTH:
            continue  # half of a short title is no name: "Mission: Impossible"
        if not words or len(words) > NAME_WORDS or len(name) > NAME_LENGTH or words[-1].casefold() in _DANGLING:
            continue
        if any(letter.isalpha() for letter in name):
            return name
    return None


def decade(year: int) -> str:
    """A word where there is a common one, since a figure takes a language model a token a digit.

    >>> decade(1948), decade(2003)
    ('forties', '2000s')
    """
    start = year // 10 * 10
    return _DECADES.get(start, f"{start}s")


def _facets(items: pd.DataFrame, titles: Sequence[str], by_name: bool) -> _Facets:
    import scipy.sparse as sparse
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    columns: dict[tuple[str, str], int] = {}
    rows, cells = [], []
    texts = items[schema.TEXT].tolist()
    dull = set(ENGLISH_STOP_WORDS)
    dull.update(
        word for names in items[schema.CATEGORIES] for name in set(names) for word in _WORD.findall(name.lower())
    )
    for row, (title, text, categories) in enumerate(zip(titles, texts, items[schema.CATEGORIES], strict=True)):
        own = {("category", _lower(clean(category))) for category in categories}
        year = title_year(title)
        if year is not None:
            own.add(("decade", decade(year)))
        body = text[:TEXT_AT_MOST] if isinstance(text, str) else ""
        words = set(_WORD.findall(clean(body, TEXT_AT_MOST).lower()))
        title_words = set(_WORD.findall(clean(title).lower()))
        # Where titles are names, they name clusters whole; their single words say nothing.
        words = words - title_words if by_name else words | title_words
        own |= {("word", word) for word in words - dull}
        for facet in sorted(own):
            if facet[1]:
                rows.append(row)
                cells.append(columns.setdefault(facet, len(columns)))
    flags = sparse.csr_matrix((np.ones(len(rows)), (rows, cells)), shape=(len(items), max(len(columns), 1)))
    frequency = np.asarray(flags.sum(axis=0)).ravel()
    names = sorted(columns, key=lambda facet: columns[facet])
    kept = [place for place, (kind, _) in enumerate(names) if kind != "word" or frequency[place] >= 2]
    kept = sorted(sorted(kept, key=lambda place: -frequency[place])[:VOCABULARY])
    return _Facets(flags[:, kept].tocsr(), [names[place][1] for place in kept], [names[place][0] for place in kept])


def _lower(text: str) -> str:
    """Lower case, but for abbreviations."""
    return text if text.isupper() and len(text) <= 4 else text.lower()


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'&]+", text.casefold())


def _sentence(text: str) -> str:
    """Bounded, with a capital at the start."""
    text = text[:LENGTH].rstrip(" ,-'&")
    return text[:1].upper() + text[1:]
