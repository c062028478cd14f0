"""Descriptions of clusters: short, unique, in words that a person and a language model know.

A description is a few keyphrases of the cluster's items (`keyphrases`). Where titles are names, as those of films are,
a well known typical item leads ("Fargo, crime, thriller"). A cluster without text takes the phrases of those nearest
to it; ids stand in only where no item has any text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import pandas as pd

from newfound import schema
from newfound.clusters.keyphrases import TEXT_AT_MOST, Keyphrases
from newfound.clusters.tree import Labels, Weights
from newfound.types import Bools, Floats, Ints

NAME_WORDS: Final = 4
NAME_LENGTH: Final = 22
LENGTH: Final = 60  # no description is longer
KNOWN: Final = 40  # items that a name is chosen from
NAMES: Final = 8  # of them, the best known and most typical, whose descriptions are compared with the cluster's text
NEIGHBOURS: Final = 3  # clusters that one without text takes its phrases from
SPARE: Final = 12  # further phrases that a description may fall back to
# What a name loses against fame (at most 1) and typicality (at most 1).
LETTER: Final = 0.01
DIGIT: Final = 4  # letters that a digit counts for: it is a token of its own
ARTICLE_LOST: Final = 0.3  # one word, its article dropped: "Rock" for "The Rock"

_PARENTHESES = re.compile(r"\([^)]*\)|\[[^\]]*\]|<[^>]*>")
_LAST_ARTICLE = re.compile(r",\s*(the|a|an|il|la|le|les|lo|el|los|las|l'|der|die|das|den|det|de|o|os|i|gli)\s*$", re.I)
_FIRST_ARTICLE = re.compile(r"^(the|a|an)\s+(?=\S)", re.I)
_SUBTITLE = re.compile(r"\s*(?::|;| - | – | \| ).*$")
_ABBREVIATION = re.compile(r"(?<=\b\w)[.*](?=\W|\w\b|$)")
_DANGLING: Final = frozenset(
    ("a", "an", "and", "at", "by", "de", "for", "from", "in", "la", "my", "of", "on", "or", "the", "to", "&")
)


class Describer:
    """Describes the nodes of one tree level after another.

    Args:
        items: schema.ITEMS.
        vectors: [n, dim] of the items, by which clusters are near each other.
        text: [n, dim] unit text vectors, zero where an item has none; None where no item has text.
        load: [n], what each item counts.
        traffic: [n] positive events, how well an item is known.
        keywords: phrases in a description, at most.
        encode: texts to unit vectors [m, dim], by the model that made `text`.
    """

    def __init__(
        self,
        items: pd.DataFrame,
        vectors: Floats,
        text: Floats | None,
        load: Weights,
        traffic: Ints,
        keywords: int,
        encode: Callable[[Sequence[str]], Floats] | None = None,
    ) -> None:
        self.ids: list[str] = items[schema.ITEM].tolist()
        self.titles = titles = _titles(items)
        self._vectors, self._load, self.traffic, self._keywords = vectors, load, traffic, keywords
        self._names = [short_name(title) for title in titles]
        self._articles = [bool(_LAST_ARTICLE.search(title) or _FIRST_ARTICLE.search(title)) for title in titles]
        self.by_name = are_names(titles, self._names)
        bodies = [
            body.replace(title, "") if isinstance(body, str) else ""
            for title, body in zip(titles, items[schema.TEXT], strict=True)
        ]
        # Where titles are names they name clusters whole; their single words say nothing.
        texts = bodies if self.by_name else [f"{title}\n{body}" for title, body in zip(titles, bodies, strict=True)]
        categories = [list(found) for found in items[schema.CATEGORIES]]
        self._text, self._encode = text, encode
        self._texts, self._categories = texts, categories
        self._phrases = Keyphrases(texts, categories, load, text, encode)

    def level(
        self,
        labels: Labels,
        fixed: dict[int, str] | None = None,
        given: Sequence[list[str]] | None = None,
        by_name: bool = True,
        without: Bools | None = None,
        by_encoder: bool = True,
    ) -> list[str]:
        """One description a label.

        Args:
            labels: [n] from 0.
            fixed: descriptions that stay as they are, such as those of an earlier fit.
            given: keywords of a label, where a designer named it.
            by_name: whether a known item may lead.
            without: [n] items that are left out of account.
            by_encoder: whether the encoder chooses among the phrases, or their weight alone.

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
        known = np.flatnonzero(~without) if without is not None else np.arange(len(labels))
        order = known[np.argsort(labels[known], kind="stable")]
        members = np.split(order, np.cumsum(np.bincount(labels[known], minlength=count))[:-1])
        fame = [self.traffic[own].max() if len(own) else 0 for own in members]
        named = by_name and self.by_name
        ranked = self._phrases.rank(labels, count, self._keywords, without, by_encoder)
        if any(ranked):
            ranked = self._borrowed(ranked, labels, count)
        for label in sorted(range(count), key=lambda label: (-fame[label], label)):  # fame goes first
            if texts[label] is not None:
                continue
            names = self._ranked_names(members[label]) if named else []
            found = self._candidates(members[label], ranked[label], given[label] if given else None, names)
            text = taken.first_free(found, label)
            texts[label] = text
            taken.add(text)
        return [text for text in texts if text is not None]

    def means(self) -> str:
        """The parts of descriptions on these items, in a sentence for the log."""
        said = sum(bool(one) for one in map(_any_of, self.titles, self._texts, self._categories))
        if not said:
            return "item ids, for no item has text"
        longer = sum(len(text) > TEXT_AT_MOST for text in self._texts)
        means = "short names of items, and phrases" if self.by_name else "phrases"
        cut = f"; of {longer} longer texts the first {TEXT_AT_MOST} characters" if longer else ""
        return f"{means} of the text of {said} of {len(self.ids)} items{cut}"

    def keyphrases(self, labels: Labels) -> list[list[str]]:
        """Each cluster's phrases, those that describe it first."""
        return self._phrases.rank(labels, int(labels.max()) + 1, self._keywords)

    def _candidates(
        self, members: Ints, phrases: list[str], given: list[str] | None, names: list[str]
    ) -> Iterator[str]:
        """Descriptions of a cluster, best first."""
        phrases = phrases[: self._keywords + SPARE]
        if given is not None:
            own = [word for word in map(clean, given) if word]
            yield ", ".join(own)
            phrases = _apart(" ".join(own), phrases)
            yield from (", ".join([*own, part]) for part in [*phrases, *names])
            phrases = [*own, *phrases]
        yield from self._named(members, names, phrases)
        size = self._keywords
        if phrases:
            yield ", ".join(phrases[:size])
            for spare in range(size, len(phrases)):  # the last phrase gives way, then the one before it
                yield ", ".join([*phrases[: size - 1], phrases[spare]])
            yield from (", ".join(phrases[start : start + size]) for start in range(1, len(phrases)))
            yield from (", ".join([*phrases[:size], phrase]) for phrase in phrases[size:])
            return
        busiest = members[np.lexsort((members, -self.traffic[members]))][:KNOWN]
        ids = [word for word in (clean(self.ids[item]) for item in busiest) if word]
        yield from (f"items {', '.join(ids[:size])}" for size in (3, 5, 8) if ids)

    def _named(self, members: Ints, names: list[str], phrases: list[str]) -> Iterator[str]:
        """A name and what goes with it: of the best names, the pairing whose embedding is nearest to the cluster's."""
        found = []
        for at, name in enumerate(names):
            rest = _apart(name, phrases)[: self._keywords - 1]
            sizes = range(len(rest), min(1, len(rest)) - 1, -1) if at < NAMES else [len(rest)]
            found += [", ".join([name, *rest[:size]]) for size in sizes]
        first = [text for text in found if text.split(", ")[0] in names[:NAMES]]
        if self._text is not None and self._encode is not None and first:
            centre = np.average(self._text[members], axis=0, weights=self._load[members])
            near = self._encode([_sentence(text) for text in first]) @ centre
            yield from (first[place] for place in np.argsort(-near, kind="stable"))
        yield from (text for text in found if text not in first or self._encode is None)

    def _borrowed(self, ranked: list[list[str]], labels: Labels, count: int) -> list[list[str]]:
        """Gives a cluster without a phrase those of the nearest clusters that have some."""
        bare = [label for label in range(count) if not ranked[label]]
        if not bare:
            return ranked
        centres = np.zeros((count, self._vectors.shape[1]))
        np.add.at(centres, labels, self._vectors * self._load[:, None])
        centres /= np.maximum(np.bincount(labels, self._load, count), 1e-12)[:, None]
        lenders = np.array([label for label in range(count) if ranked[label]])
        out = list(ranked)
        for label in bare:
            away = ((centres[lenders] - centres[label]) ** 2).sum(axis=1)
            nearest = lenders[np.argsort(away, kind="stable")[:NEIGHBOURS]]
            turns = zip(*(ranked[lender][: self._keywords + SPARE] for lender in nearest), strict=False)
            out[label] = list(dict.fromkeys(phrase for turn in turns for phrase in turn)) or list(ranked[nearest[0]])
        return out

    def _ranked_names(self, members: Ints) -> list[str]:
        """Names of items that are known and typical, best first."""
        known = members[np.lexsort((members, -self.traffic[members]))][:KNOWN]
        known = np.array([item for item in known if self._names[item] is not None], dtype=np.int64)
        if not len(known):
            return []
        centre = np.average(self._vectors[members], axis=0, weights=self._load[members])
        typical = self._vectors[known] @ centre / max(float(np.linalg.norm(centre)), 1e-12)
        fame = np.sqrt(self.traffic[known] / max(int(self.traffic[known].max()), 1))
        names = [self._names[item] or "" for item in known]
        length = np.array([len(name) + DIGIT * sum(letter.isdigit() for letter in name) for name in names])
        bare = np.array([" " not in name and self._articles[item] for item, name in zip(known, names, strict=True)])
        score = fame + typical - LETTER * length - ARTICLE_LOST * bare
        return list(dict.fromkeys(names[place] for place in np.lexsort((known, -score))))


class _Taken:
    """Descriptions that a level has already."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._beginnings: set[tuple[str, ...]] = set()
        self._whole: set[tuple[str, ...]] = set()

    def add(self, text: str) -> None:
        words = tuple(_words(text))
        self._texts.add(text.casefold())
        self._whole.add(words)
        self._beginnings.update(words[:size] for size in range(1, len(words) + 1))

    def has(self, text: str) -> bool:
        return text.casefold() in self._texts

    def first_free(self, candidates: Iterator[str], number: int) -> str:
        """The first candidate that is no beginning of another nor begins with one, or that is at least new."""
        second, first = None, None
        for text in map(_sentence, candidates):
            if not text:
                continue
            first = first or text
            if self._apart(text):
                return text
            if second is None and not self.has(text):
                second = text
        if second is not None:
            return second
        base = (first or "Group")[: LENGTH - 12]
        return next(f"{base} {letters}" for letters in _counted(number) if not self.has(f"{base} {letters}"))

    def _apart(self, text: str) -> bool:
        words = tuple(_words(text))
        if not words or words in self._beginnings:
            return False
        return not any(words[:size] in self._whole for size in range(1, len(words) + 1))


def _any_of(title: str, text: str, categories: list[str]) -> bool:
    return bool(title or text.strip() or categories)


def _titles(items: pd.DataFrame) -> list[str]:
    """Titles, empty where the id stands in for one."""
    return ["" if title == item else title for item, title in zip(items[schema.ITEM], items[schema.TITLE], strict=True)]


def are_names(titles: Sequence[str], names: Sequence[str | None]) -> bool:
    """Whether most titles are names: short, and written with a capital where the script has capitals."""
    known = [(title, name) for title, name in zip(titles, names, strict=True) if title]
    short = [name for _, name in known if name is not None]
    lower = sum(name[0].islower() for name in short)
    return len(short) > 0.5 * max(len(known), 1) and lower < 0.2 * len(short)


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


def _apart(name: str, phrases: Sequence[str]) -> list[str]:
    own = set(_words(name))
    return [phrase for phrase in phrases if not own & set(_words(phrase))]


def _counted(number: int) -> Iterator[str]:
    """Numbers in letters, from `number` on: digits are tokens that a language model learns nothing from."""
    while True:
        letters, rest = "", number
        while True:
            rest, digit = divmod(rest, 26)
            letters = chr(ord("a") + digit) + letters
            if not rest:
                break
            rest -= 1
        yield letters
        number += 1


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'&]+", text.casefold())


def _sentence(text: str) -> str:
    """Bounded at a phrase's end, with a capital at the start."""
    while len(text) > LENGTH and ", " in text:
        text = text.rsplit(", ", 1)[0]
    text = text[:LENGTH].rstrip(" ,-'&")
    return text[:1].upper() + text[1:]
