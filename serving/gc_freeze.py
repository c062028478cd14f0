"""What lives long is taken out of the garbage collector's rounds."""

from __future__ import annotations

import gc


def settle() -> None:
    """Collects once, and never looks again at what is left.

    Libraries, the feature store and a release's catalogue are hundreds of thousands of objects. Looking through them
    again and again held requests up for 70 ms and more; now that happens at the start and once for each release.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
