"""Fuzz target: the file of new items beside a release."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Final

import numpy as np
from safetensors.numpy import save

from newfound.errors import ReleaseError
from newfound.release.new_items import parse_new_items
from tests.fuzz.draw import Draw

ID: Final = "20250131T093000-0123456789ab"
_ITEM: Final = {"item": "a", "title": "A", "leaf": "l0", "twin": None, "row": "0" * 64}
_PAYLOAD: Final = save({name: np.ones((1, 2), dtype=np.float32) for name in ("vectors", "counts", "text")})
_RECORD: Final = {
    "format": 1,
    "release": ID,
    "made": datetime(2026, 1, 31, tzinfo=UTC).isoformat(),
    "items": [_ITEM],
    "bytes": len(_PAYLOAD),
    "sha256": hashlib.sha256(_PAYLOAD).hexdigest(),
}
_FILE: Final = json.dumps(_RECORD).encode() + b"\n\n" + _PAYLOAD
SEEDS: Final = [b"\0" + _FILE, b"\0", b"\0\n\n", b"\1", b"\1\1\1\1\1", b"\2" + _PAYLOAD, b"\2", b"\0" + b"[" * 2000]


class Target:
    """What is no such file is refused; what is taken has an id, a title and finite arrays for every item."""

    def __call__(self, data: bytes) -> None:
        content, kind = data[1:], data[:1]
        if kind == b"\1":  # another record before the arrays
            content = json.dumps(Draw(content).change(_RECORD)).encode() + b"\n\n" + _PAYLOAD
        elif kind == b"\2":  # other arrays, for which the record vouches
            vouched = {**_RECORD, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            content = json.dumps(vouched).encode() + b"\n\n" + content
        try:
            found = parse_new_items(content, "new.items", ID)
        except ReleaseError:
            return
        assert found.release == ID and len(set(found.ids)) == len(found) and all(one.title for one in found.items)
        for array in (found.vectors, found.counts, found.text):
            assert len(array) == len(found) and np.isfinite(array).all()
