"""Batch recommendations: the release fetched, the slates written, a copy put where a team wants its files."""

import tempfile
from pathlib import Path

import fsspec

from newfound.config import BatchConfig
from newfound.recommend.batch import write_slates
from newfound.recommend.recommender import Recommender
from newfound.release import store as published
from newfound.release.new_items import find_new_items
from newfound.release.takedown import read_takedown


def write(
    histories: Path, batch: str, shard: int, releases: str, release: str, out: str, slates: Path
) -> dict[str, float | int | str]:
    """Writes one shard's slates.

    Args:
        histories: folder of histories.parquet.
        batch: BatchConfig as JSON.
        shard: which of its shards.
        releases: folder or URL of all releases.
        release: id; empty means the current one.
        out: folder or URL for a copy; empty for none.
        slates: the folder for slates.parquet.
    """
    config = BatchConfig.model_validate({**BatchConfig.model_validate_json(batch).model_dump(), "shard": shard})
    with tempfile.TemporaryDirectory(prefix="newfound-") as cache:
        found = published.load(releases, release or None, Path(cache))
        recommender = Recommender.open(
            found.path, takedown=read_takedown(releases), new=find_new_items(releases, found.id)
        )
        slates.mkdir(parents=True, exist_ok=True)
        measures = write_slates(recommender, histories, slates / "slates.parquet", config)
    if out:
        fs, base = fsspec.core.url_to_fs(out)
        fs.makedirs(f"{base}/{found.id}", exist_ok=True)
        fs.put_file(str(slates / "slates.parquet"), f"{base}/{found.id}/part-{shard:05d}.parquet")
    return {**measures, "release": found.id}
