"""The documents on trust name tests that exist, and every promise in them names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = ("docs/durability.md", "SECURITY.md")
SCENARIO: Final = re.compile(r"Scenario\(\s*\"([^\"]+)\"")
NAMED: Final = re.compile(r"`(tests/[^`\s]+)`")


def _rows(document: str, header: str) -> list[list[str]]:
    """Cells of the rows of every table that has a column of that name."""
    rows: list[list[str]] = []
    for table in re.findall(r"(?:^\|.*\n)+", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE):
        head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
        if header in head:
            rows += [[*row, row[head.index(header)]] for row in body]
    return rows


def _tests_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    named = NAMED.findall((ROOT / document).read_text(encoding="utf-8"))
    assert len(named) > 10
    for name in named:
        file, _, function = name.partition("::")
        assert (ROOT / file).is_file(), name
        assert not function or function in _tests_of(ROOT / file), name


@pytest.mark.parametrize(
    ("document", "header"), [("docs/durability.md", "shown by"), ("SECURITY.md", "test")], ids=DOCUMENTS
)
def test_every_promise_names_its_test(document: str, header: str) -> None:
    rows = _rows(document, header)
    assert len(rows) > 10
    files = (ROOT / "tests" / "durability" / "scenarios").glob("*.py")
    known = {name for file in files for name in SCENARIO.findall(file.read_text(encoding="utf-8"))}
    for row in rows:
        scenario = re.search(r"crash points: ((?:`[^`]+`(?:, )?)+)", row[-1])
        assert scenario or NAMED.search(row[-1]), row[0]
        for name in re.findall("`([^`]+)`", scenario[1]) if scenario else ():
            assert name in known or name.startswith("tests/"), name
