"""The planner's language: how interests become tokens, and tokens one of the predefined descriptions.

A prompt is ``<opening> <interest 1>; <interest 2>;`` and its answer `` <interest>`` followed by the end token. Whatever
is the same for all contexts stands at the front and the separator is one token, so two contexts that share their first
interests share those tokens too, and nothing but the last interest is a pair's own.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newfound.errors import DataError, VocabularyError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RECORD = "prompt.json"
TOKENIZER = "tokenizer.json"
MAX_CHARACTERS = 200  # of a description as the planner reads it
MAX_TOKENS = 48

Context = tuple[int, ...]
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Template:
    """The fixed words of a prompt."""

    opening: str = "A person's interests, oldest first, then a new one:"
    separator: str = ";"
    hint: str = " lately:"  # stands before the most frequent recent successor of the very context


def clean(description: str) -> str:
    """A description as the planner reads and writes it: one line of printable text without the separator.

    Item text is not ours: control characters, line breaks, invisible and bidirectional marks are taken out, so that a
    description can neither end early nor start another line.
    """
    text = unicodedata.normalize("NFKC", description)
    text = "".join(" " if unicodedata.category(c) in ("Zl", "Zp", "Zs", "Cc") else c for c in text)
    text = "".join(c for c in text if unicodedata.category(c)[0] != "C")
    text = re.sub(r"\s+", " ", text.replace(";", ",")).strip()
    return text[:MAX_CHARACTERS].strip() or "unnamed"


def clean_all(descriptions: Sequence[str]) -> list[str]:
    """Cleans, and numbers what has become equal, so that text still names one cluster."""
    taken: set[str] = set()
    out = []
    for description in descriptions:
        text = base = clean(description)
        number = 1
        while text in taken:
            number += 1
            text = f"{base} ({number})"
        taken.add(text)
        out.append(text)
    return out


class PromptCodec:
    """Contexts and descriptions as tokens.

    Args:
        tokenizer: the model's own; text that looks like a special token is encoded as plain text.
        descriptions: of the interface clusters, in their order.
        end: id of the token that ends an answer.
    """

    def __init__(
        self, tokenizer: Tokenizer, descriptions: Sequence[str], end: int, template: Template | None = None
    ) -> None:
        self.template = template or Template()
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.end = end
        self.texts = clean_all(descriptions)
        self.opening = self._encode(self.template.opening)
        self.separator = self._encode(self.template.separator)
        self.hint = self._encode(self.template.hint)
        self.answers: list[Tokens] = [self._encode(" " + text)[:MAX_TOKENS] for text in self.texts]
        if len(set(self.answers)) != len(self.answers):
            raise VocabularyError(
                "two descriptions have the same tokens; expected descriptions that the tokenizer tells apart"
            )
        self._by_text = {text: place for place, text in enumerate(self.texts)}

    def _encode(self, text: str) -> Tokens:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """Of everything that a table or a release must agree on: template, texts and their tokens."""
        content = json.dumps([asdict(self.template), self.texts, self.answers, self.end])
        return hashlib.sha256(content.encode()).hexdigest()

    def segments(self, context: Context, hint: int | None = None) -> list[Tokens]:
        """The prompt's tokens in pieces: the opening, then one piece an interest, the last with the hint if given."""
        pieces = [self.answers[cluster] + self.separator for cluster in context]
        if hint is not None:
            pieces[-1] += self.hint + self.answers[hint] + self.separator
        return [self.opening, *pieces]

    def tokens(self, context: Context, hint: int | None = None) -> Tokens:
        """The whole prompt."""
        return sum(self.segments(context, hint), ())

    def text(self, context: Context, hint: int | None = None) -> str:
        """The prompt as text; `tokens` is what models are given."""
        middle = "".join(f" {self.texts[c]}{self.template.separator}" for c in context)
        late = "" if hint is None else f"{self.template.hint} {self.texts[hint]}{self.template.separator}"
        return self.template.opening + middle + late

    def choices(self) -> list[str]:
        """What an engine with structured output may answer, in cluster order."""
        return [self.tokenizer.decode(list(tokens), skip_special_tokens=False) for tokens in self.answers]

    def decode(self, tokens: Sequence[int]) -> str:
        """Generated tokens as text, up to the end token."""
        kept = list(tokens)
        if self.end in kept:
            kept = kept[: kept.index(self.end)]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False)).strip()

    def cluster_of(self, text: str) -> int | None:
        """The cluster that a generated text names, by exact match."""
        return self._by_text.get(text.strip())

    def save(self, folder: Path) -> None:
        """Writes `prompt.json`."""
        record = {
            "template": asdict(self.template),
            "end": self.end,
            "descriptions": self.texts,
            "digest": self.digest,
        }
        (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, descriptions: Sequence[str] | None = None) -> PromptCodec:
        """Reads a model folder's tokenizer and `prompt.json`.

        Args:
            descriptions: of the clusters in use; the folder's own where None.

        Raises:
            DataError: the record is missing or cannot be read.
            VocabularyError: the planner was made for other descriptions.
        """
        record = read_record(folder)
        template = Template(**record["template"])
        codec = cls(load_tokenizer(folder), descriptions or record["descriptions"], record["end"], template)
        if codec.texts != record["descriptions"] or codec.digest != record["digest"]:
            raise VocabularyError(f"{folder / RECORD}: made for other clusters; expected the descriptions in use")
        return codec


def has_planner(folder: Path) -> bool:
    """Whether a folder holds a planner: where the items have no text, the planner's folder is there without one."""
    return (folder / RECORD).is_file()


def read_record(folder: Path) -> dict[str, Any]:
    """`prompt.json` as a mapping.

    Raises:
        DataError: it is missing or no such record.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {name: record[name] for name in ("template", "end", "descriptions", "digest")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            str(folder / RECORD), f"cannot be read ({error})", expected="a planner's prompt record"
        ) from None


def load_tokenizer(folder: Path) -> Tokenizer:
    """A model folder's tokenizer, without importing transformers where the folder allows."""
    from tokenizers import Tokenizer

    if (folder / TOKENIZER).is_file():
        return Tokenizer.from_file(str(folder / TOKENIZER))
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer
    return tokenizer
