"""The precision of matrix products: bfloat16 where the machine is fast at it, else float32.

A processor without bfloat16 instructions multiplies bfloat16 matrices some sixty times slower than float32 ones.
"""

from __future__ import annotations

import torch


def has_fast_bfloat16() -> bool:
    """Whether this machine's GPU, or its processor (AVX-512 or AMX), multiplies bfloat16 matrices."""
    able = torch.cpu.get_capabilities()
    return torch.cuda.is_available() or bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def product_dtype(precision: str = "auto") -> torch.dtype:
    """The element type of matrix products.

    Args:
        precision: `bfloat16`, `float32`, or `auto`: bfloat16 where the machine is fast at it.
    """
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16() else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]
