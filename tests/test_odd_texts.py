"""The whole pipeline on items whose text is unlike a film's: a release, and a plain word of what was done."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest

from newfound.clusters import Clusters
from newfound.config import DataConfig
from newfound.release import store as releases
from tests.tiny_pipeline import TinyPipeline, tiny_language_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SCRIPTS = ("猫 動画 料理", "กีฬา ฟุตบอล", "Кино о войне", "قطط مضحكة", "🍜 street food", "Čaj & Kekse", "नाच गाना", "")
WORDS = ("food", "games", "music", "dance", "travel", "pets", "cars", "films", "news", "art")


def _texts(kind: str, items: pd.DataFrame) -> pd.DataFrame:
    rng = random.Random(7)
    rows = range(len(items))
    kept = items[["item_id"]].copy()
    if kind == "without text":
        return kept.assign(title="")
    if kind == "mixed scripts":
        return kept.assign(title=[f"{rng.choice(SCRIPTS)} {rng.choice(SCRIPTS)}".strip() for _ in rows])
    if kind == "one word each":
        return kept.assign(title=[rng.choice(WORDS) for _ in rows])
    return kept.assign(title=[" ".join(rng.choices(WORDS, k=2000))[:10_000] for _ in rows])


TOLD = {
    "without text": ("descriptions: item ids, for no item has text", "the table will be pair frequencies"),
    "mixed scripts": ("descriptions: phrases of the text of",),
    "one word each": ("descriptions: ",),
    "ten thousand characters each": ("longer texts the first 2000 characters",),
}


@pytest.mark.parametrize("kind", TOLD)
def test_any_text_gives_a_release(movielens_source: DataConfig, tmp_path: Path, kind: str) -> None:
    tiny_language_model(tmp_path / "model")
    items = _texts(kind, pd.read_parquet(str(movielens_source.items)))
    items.to_parquet(tmp_path / "items.parquet")
    source = movielens_source.model_copy(update={"items": str(tmp_path / "items.parquet")})
    pipeline = TinyPipeline(tmp_path, source)

    done = pipeline.run()

    assert done.returncode == 0, done.stdout + done.stderr
    for told in TOLD[kind]:
        assert told in " ".join((done.stdout + done.stderr).split()), done.stdout + done.stderr
    manifest = releases.verify(str(pipeline.releases))
    assert ("planner" in {name.split("/")[0] for name in manifest.files}) == (kind != "without text")
    described = Clusters.load(pipeline.runs / "clusters").descriptions
    assert len(set(described)) == len(described)
    assert all(0 < len(text) <= 200 for text in described)
