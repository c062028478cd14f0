"""From a source to a data set: stage, check, filter, split, write."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import ibis

from newfound import schema
from newfound.config import DataConfig, SplitConfig
from newfound.datasets.checks import BadRows, check_interactions, check_items
from newfound.datasets.dataset import RECORD, fingerprint
from newfound.datasets.engine import connect, drop, write_table
from newfound.datasets.reading import Staged, digest_of, stage
from newfound.datasets.sources import RATING, Source, nearby, open_source
from newfound.datasets.split import split_users
from newfound.errors import DataError
from newfound.files import new_folder
from newfound.schema import CATEGORIES, CUT, ENGAGEMENT, GROUP, ITEM, POSITION, POSITIVE, TEXT, TIME, TITLE, USER

log = logging.getLogger("newfound.datasets")


def load_interactions(data: DataConfig, split: SplitConfig, seed: int, out: Path) -> dict[str, float | int | str]:
    """Reads, checks, filters and splits a data set, and writes it as the folder `out`.

    Args:
        data: where interactions come from and what a rating means.
        split: the cut and the groups.
        seed: of the groups.
        out: folder for interactions.parquet, items.parquet, users.parquet and dataset.json; it appears whole, or not
            at all.

    Returns:
        Counts and the fingerprint.

    Raises:
        DataError: the source breaks its contract; nothing is written then.
    """
    started = time.perf_counter()
    with nearby(data) as here, tempfile.TemporaryDirectory(prefix="newfound-") as work:
        source = open_source(here)
        con = connect()
        staged = stage(source.interactions, Path(work) / "interactions.parquet")
        bad = {"interactions": BadRows(staged, data.bad_rows)}
        items = None
        if source.items is not None:
            staged_items = stage(source.items, Path(work) / "items.parquet")
            bad["items"] = BadRows(staged_items, data.bad_rows)
            items = check_items(con, source, bad["items"], staged_items)
        events, kind = check_interactions(con, source, bad["interactions"], staged, items, data)
        for name, rows in bad.items():
            if rows.count:
                log.warning("%s: %d bad rows dropped: %s", name, rows.count, rows.record()["kinds"])
        log.info("%s: %d rows read and checked, time as %s", source.name, staged.rows, kind)
        kept, rounds = _keep_active(con, events, data, source)
        items = _catalogue(kept, items, data)
        users = con.create_table("users", split_users(kept, split, seed), temp=True)
        counts = _counts(kept, items, users)
        for group in schema.GROUPS:
            if not counts[f"{group}_users"]:
                log.warning("%s: nobody is in the %s group; more users or another share would help", source.name, group)
        record = {
            "counts": counts,
            "time": kind,
            "engagement": _meaning(staged, source, data),
            "filter": {
                "min_user_events": data.min_user_events,
                "min_item_events": data.min_item_events,
                "rounds": rounds,
                "events_left_out": staged.rows - bad["interactions"].count - counts["interactions"],
                "note": "counted over past and future together, before the split",
            },
            "bad_rows": {name: rows.record() for name, rows in bad.items()},
            "split": _split_record(split, seed, kind),
            "sources": _sources(source),
        }
        made = _write(kept, items, users, source.name, record, out)
        con.disconnect()
    log.info(
        "%s: %d users, %d items, %d interactions (%d past, %d future) in %.1f s",
        *(source.name, counts["users"], counts["items"], counts["interactions"], counts["past"], counts["future"]),
        time.perf_counter() - started,
    )
    return {**counts, "bad_rows": sum(rows.count for rows in bad.values()), "fingerprint": made}


def _write(kept: Any, items: Any, users: Any, name: str, record: dict[str, Any], out: Path) -> str:
    """Writes the tables and, behind name and fingerprint, the record; returns the fingerprint."""
    with new_folder(out, RECORD) as folder:
        position = ibis.row_number().over(group_by=USER, order_by=[TIME, "row"])
        events = kept.mutate(**{POSITION: position}).order_by(USER, POSITION)
        write_table(events, schema.INTERACTIONS, folder / "interactions.parquet")
        write_table(items.order_by(ITEM), schema.ITEMS, folder / "items.parquet")
        write_table(users.order_by(USER), schema.USERS, folder / "users.parquet")
        made = fingerprint(folder)
        record = {"name": name, "fingerprint": made, **record}
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (folder / RECORD).write_text(text, encoding="utf-8")
    return made


def _sources(source: Source) -> list[dict[str, object]]:
    """The files that were read, with their digests."""
    return [
        {"file": file.path.name, "bytes": file.path.stat().st_size, "sha256": digest_of(file.path)}
        for file in (source.interactions, source.items)
        if file is not None
    ]


def _keep_active(con: Any, events: Any, data: DataConfig, source: Source) -> tuple[Any, int]:
    """Events of users and items that have enough of them, filtered until nothing changes; and the rounds it took."""
    rounds, left = 0, -1
    kept = con.create_table("kept_0", events, temp=True)
    drop(con, "events")
    while left != (now := int(kept.count().execute())):
        left, rounds = now, rounds + 1
        for key, least in ((USER, data.min_user_events), (ITEM, data.min_item_events)):
            enough = kept.group_by(key).having(kept.count() >= least).agg(n=kept.count())
            kept = kept.semi_join(enough, key)
        kept = con.create_table(f"kept_{rounds}", kept, temp=True)
        drop(con, f"kept_{rounds - 1}")
    if left == 0:
        raise DataError(
            str(source.interactions.path),
            f"no user with {data.min_user_events} events of items with {data.min_item_events} is left",
            expected="more data, or lower data.min_user_events and data.min_item_events",
        )
    return kept, rounds


def _catalogue(kept: Any, items: Any | None, data: DataConfig) -> Any:
    """The items that belong to the kept events; with min_item_events 0, never consumed ones as well."""
    if items is not None:
        return items if data.min_item_events == 0 else items.semi_join(kept, ITEM)
    ids = kept.select(ITEM).distinct()
    empty = ibis.literal([], type="array<string>")
    return ids.mutate(**{TITLE: ids[ITEM], TEXT: ibis.null("string"), CATEGORIES: empty})


def _counts(kept: Any, items: Any, users: Any) -> dict[str, int]:
    events = kept.inner_join(users, USER)
    past = events[TIME] < events[CUT]
    found = events.aggregate(
        interactions=events.count(),
        positives=events[POSITIVE].sum(),
        past=past.sum(),
        future=(~past).sum(),
        users_with_past=events[USER].nunique(where=past),
        users_with_future=events[USER].nunique(where=~past),
    ).to_pyarrow().to_pylist()[0]  # fmt: skip
    texts, of_items = items[TEXT].count(), items.count()
    counted = items.aggregate(items=of_items, items_with_text=texts).to_pyarrow().to_pylist()[0]
    groups = dict.fromkeys(schema.GROUPS, 0)
    groups |= {row[GROUP]: row["n"] for row in users.group_by(GROUP).agg(n=users.count()).to_pyarrow().to_pylist()}
    sizes = {f"{group}_users": groups[group] for group in schema.GROUPS}
    return {"users": sum(groups.values()), **sizes, **counted, **found}


def _meaning(staged: Staged, source: Source, data: DataConfig) -> dict[str, object]:
    """Derivation of engagement and positive from this source's rows."""
    positive_at = source.positive_at if data.positive_at is None else data.positive_at
    scale = data.rating_scale or source.rating_scale
    if ENGAGEMENT in staged.columns:
        engagement = "as given"
    elif RATING in staged.columns and scale is not None:
        engagement = f"(rating - {scale[0]:g}) / ({scale[1]:g} - {scale[0]:g})"
    elif POSITIVE in staged.columns:
        engagement = "1 where positive, else 0"
    else:
        engagement = "1 for every interaction"
    if POSITIVE in staged.columns:
        return {"engagement": engagement, "positive": "as given"}
    positive = f"engagement >= {positive_at:g}"
    if scale is not None and RATING in staged.columns and ENGAGEMENT not in staged.columns:
        positive += f" (rating >= {scale[0] + positive_at * (scale[1] - scale[0]):g})"
    return {"engagement": engagement, "positive": positive, "positive_at": positive_at}


def _split_record(split: SplitConfig, seed: int, kind: str) -> dict[str, object]:
    if split.cut == "global":
        note = "one moment for everybody: nothing that is learned comes from after it"
        if kind == "ordinal":
            note += "; times are ordinals, so this holds if they count across users"
    else:
        note = (
            "each user's own cut, between two moments: other users' events from after it are in the past of their own "
            "and leak into what is learned"
        )
    return {**split.model_dump(), "seed": seed, "note": note}
