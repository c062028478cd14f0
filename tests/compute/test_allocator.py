"""Large blocks are reused once the allocator was told so."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import resource, sys
import numpy as np
from newfound.compute.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(1 << 24, dtype=np.uint8)
before = faults()
for _ in range(20):
    np.ones(1 << 24, dtype=np.uint8)
print(faults() - before)
"""


def test_a_large_block_is_faulted_in_once() -> None:
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, check=True).stdout)
        for mode in ("keep", "leave")
    }
    assert faults["keep"] < 100
