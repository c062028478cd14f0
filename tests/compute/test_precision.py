"""The precision of matrix products follows the machine, and what was asked for comes first."""

from __future__ import annotations

import pytest
import torch

from newfound.compute.precision import product_dtype


@pytest.mark.parametrize(
    ("capabilities", "cuda", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False, torch.float32),
        ({}, False, torch.float32),
        ({"avx512_bf16": True}, False, torch.bfloat16),
        ({"amx_bf16": True}, False, torch.bfloat16),
        ({}, True, torch.bfloat16),
    ],
)
def test_auto_is_bfloat16_where_the_machine_is_fast_at_it(monkeypatch, capabilities, cuda, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert product_dtype() is expected
    assert product_dtype("float32") is torch.float32 and product_dtype("bfloat16") is torch.bfloat16
