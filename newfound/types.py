"""Types that several packages speak of: a context of interests, a slice of items, arrays by their element."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Context: TypeAlias = tuple[str, ...]
"""Interface clusters that a next one is asked for, the oldest first."""

Span: TypeAlias = tuple[int, int]
"""First position and the one after the last, of items in cluster order."""

Array: TypeAlias = NDArray[Any]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
