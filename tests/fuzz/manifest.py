"""Fuzz target: a release's manifest, as bytes and as structures whose id is right."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from newfound.errors import ReleaseError
from newfound.release.manifest import FileRecord, identity_of, make_manifest, parse_manifest
from tests.fuzz.draw import Draw
from tests.release.gates import HELD

_MADE: Final = make_manifest(
    datetime(2026, 1, 31, tzinfo=UTC),
    {name: FileRecord(sha256="0" * 64, bytes=1) for name in ("items.parquet", "ranker/ranker.json")},
    lineage={"parents": []},
    measures={"planner.mrr": 0.5},
    fits={"files": "all"},
    gates=HELD,
)
SEEDS: Final = [
    b"\0" + _MADE.model_dump_json().encode(),
    b"\1",
    *(b"\1" + bytes([1, key, 4, 1, file, 2, 0, text]) for key in range(8) for file in range(2) for text in range(4)),
]
_FOLDER: Final = Path("/releases/one")


class Target:
    """A manifest is refused, or none of its names leads out of the release."""

    def __call__(self, data: bytes) -> None:
        draw = Draw(data[1:])
        if data[:1] == b"\1":
            body = json.loads(_MADE.model_dump_json())
            for _ in range(1 + draw.byte() % 3):
                body = draw.change(body)
            try:
                raw = json.dumps(body)
                raw = json.dumps({**body, "id": identity_of(json.loads(raw))})
            except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
                raw = json.dumps(body, default=str)
            content = raw.encode()
        else:
            content = data[1:]
        try:
            manifest = parse_manifest(content, "manifest.json")
        except ReleaseError:
            return
        for name in manifest.files:
            assert (_FOLDER / name).resolve().is_relative_to(_FOLDER)
