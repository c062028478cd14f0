"""`python -m k8s`: writes what has its source elsewhere. `python -m k8s FOLDER`: renders a folder to the output."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from k8s.flows import allowed, table
from k8s.kustomize import ROOT, RenderError, documents, render
from k8s.rules import write_rules

OPERATIONS: Final = ROOT / "docs" / "operations.md"
_TABLE: Final = re.compile(r"(<!-- flows: `make manifests` writes them -->\n).*?(\n<!-- end of flows -->)", re.DOTALL)


def write_flows() -> Path:
    """Writes the table of what production's policies allow into the documentation; returns where."""
    flows = table(allowed(documents(ROOT / "k8s" / "overlays" / "production")))
    before = OPERATIONS.read_text(encoding="utf-8")
    OPERATIONS.write_text(_TABLE.sub(lambda found: f"{found[1]}\n{flows}\n{found[2]}", before), encoding="utf-8")
    return OPERATIONS.relative_to(ROOT)


def main() -> None:
    """Writes, or renders."""
    try:
        if len(sys.argv) > 1:
            print(render(Path(sys.argv[1])), end="")
        else:
            print(f"{write_rules()} and {write_flows()} written")
    except RenderError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
