"""Benchmarks are run by hand; that each can be started is seen here."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

# What a benchmark compares with lives in an environment of its own.
ELSEWHERE = {"faiss", "rectools"}


@pytest.mark.parametrize("name", sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py")))
def test_a_benchmark_finds_all_that_it_names(name: str) -> None:
    try:
        importlib.import_module(f"tests.benchmarks.{name}")
    except ModuleNotFoundError as error:
        assert error.name in ELSEWHERE
