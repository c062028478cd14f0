"""Types that several packages speak of: ids, a context of interests, a slice of items, arrays by their element."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

ID_CHARACTERS: Final = 256
CONTROL: Final = r"[\x00-\x1f\x7f]"
ID_PATTERN: Final = r"^[^\x00-\x1f\x7f]+$"
Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=ID_CHARACTERS, pattern=ID_PATTERN)]
"""A user's or an item's id: what the loader takes, events, requests and stores take as well."""

Context: TypeAlias = tuple[str, ...]
"""Interface clusters that a next one is asked for, the oldest first."""

Span: TypeAlias = tuple[int, int]
"""First position and the one after the last, of items in cluster order."""

Array: TypeAlias = NDArray[Any]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]
Ints32: TypeAlias = NDArray[np.int32]
Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Reals: TypeAlias = NDArray[np.floating[Any]]
"""Floats of any precision."""
