"""The planner's language: how interests become tokens, and which tokens are answers.

A prompt is ``<opening> <interest 1>; <interest 2>;`` and its answer is one token: every interest has a token of its
own in the vocabulary, whose surface is its description. Whatever is the same for all contexts stands at the front and
the separator is one token, so two contexts that share their first interests share those tokens too.
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

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Template:
    """The fixed words of a prompt."""

    opening: str = "A person's interests, oldest first, then a new one:"
    separator: str = ";"


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
    """Contexts as tokens, and interests as the tokens that answer them.

    Args:
        tokenizer: the model's own; text that looks like a special token is encoded as plain text.
        descriptions: of the interface clusters, in their order.
        first_token: id of the first interest's token; the others' follow.
    """

    def __init__(
        self, tokenizer: Tokenizer, descriptions: Sequence[str], first_token: int, template: Template | None = None
    ) -> None:
        self.template = template or Template()
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.first_token = first_token
        self.texts = clean_all(descriptions)
        self.opening = self._encode(self.template.opening)
        self.separator = self._encode(self.template.separator)
        self.words: list[Tokens] = [self._encode(" " + text)[:MAX_TOKENS] for text in self.texts]

    @classmethod
    def extend(cls, tokenizer: Tokenizer, descriptions: Sequence[str]) -> PromptCodec:
        """Gives every interest a token; a tokenizer that has these very tokens stays as it is.

        Raises:
            VocabularyError: the tokenizer has the tokens of other interests, or gives no consecutive ids.
        """
        from tokenizers import AddedToken

        names = surfaces(clean_all(descriptions))
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
        ids = [tokenizer.token_to_id(name) or 0 for name in names]
        if ids != list(range(ids[0], ids[0] + len(ids))):
            raise VocabularyError("the tokenizer has tokens of other interests; expected a base model's, or the same")
        return cls(tokenizer, descriptions, ids[0])

    def _encode(self, text: str) -> Tokens:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def answers(self) -> range:
        """Ids of the interests' tokens, in cluster order."""
        return range(self.first_token, self.first_token + len(self.texts))

    @property
    def digest(self) -> str:
        """Of everything that a table or a release must agree on: template, texts, their tokens and the answers'."""
        content = json.dumps([asdict(self.template), self.texts, self.words, self.first_token])
        return hashlib.sha256(content.encode()).hexdigest()

    def segments(self, context: Sequence[int]) -> list[Tokens]:
        """The prompt's tokens in pieces: the opening, then one piece an interest."""
        return [self.opening, *(self.words[cluster] + self.separator for cluster in context)]

    def tokens(self, context: Sequence[int]) -> Tokens:
        """The whole prompt."""
        return sum(self.segments(context), ())

    def text(self, context: Sequence[int]) -> str:
        """The prompt as text; `tokens` is what models are given."""
        return self.template.opening + "".join(f" {self.texts[c]}{self.template.separator}" for c in context)

    def cluster_of(self, token: int) -> int | None:
        """The cluster that a token answers; None where it is a word."""
        place = token - self.first_token
        return place if 0 <= place < len(self.texts) else None

    def save(self, folder: Path) -> None:
        """Writes `prompt.json` and the tokenizer with the interests' tokens."""
        record = {
            "template": asdict(self.template),
            "first_token": self.first_token,
            "descriptions": self.texts,
            "digest": self.digest,
        }
        self.tokenizer.save(str(folder / TOKENIZER))
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
        texts = descriptions or record["descriptions"]
        codec = cls(load_tokenizer(folder), texts, record["first_token"], template)
        if codec.texts != record["descriptions"] or codec.digest != record["digest"]:
            raise VocabularyError(f"{folder / RECORD}: made for other clusters; expected the descriptions in use")
        return codec


def surfaces(texts: Sequence[str]) -> list[str]:
    """The interests' tokens as text, such as `<interest: crime, thriller>`; no model has such of its own."""
    return [f"<interest: {text}>" for text in texts]


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
        return {name: record[name] for name in ("template", "first_token", "descriptions", "digest")}
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
