"""`python -m k8s`: writes what has its source elsewhere. `python -m k8s FOLDER`: renders a folder to the output."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

import yaml

from k8s.flows import allowed, table
from k8s.kustomize import ROOT, RenderError, documents, render
from k8s.naming import NAMESPACE, in_namespace
from k8s.rules import write_rules

OPERATIONS: Final = ROOT / "docs" / "operations.md"
_TABLE: Final = re.compile(r"(<!-- flows: `make manifests` writes them -->\n).*?(\n<!-- end of flows -->)", re.DOTALL)


def write_flows() -> Path:
    """Writes the table of what production's policies allow into the documentation; returns where."""
    flows = table(allowed(documents(ROOT / "k8s" / "overlays" / "production")))
    before = OPERATIONS.read_text(encoding="utf-8")
    OPERATIONS.write_text(_TABLE.sub(lambda found: f"{found[1]}\n{flows}\n{found[2]}", before), encoding="utf-8")
    return OPERATIONS.relative_to(ROOT)


def rendered(folder: Path, namespace: str) -> str:
    """A folder's objects as YAML, in a namespace.

    Raises:
        RenderError: it does not build.
        ValueError: it is no name of a namespace.
    """
    if namespace == NAMESPACE:
        return render(folder)
    return yaml.safe_dump_all(in_namespace(documents(folder), namespace), sort_keys=False, allow_unicode=True)


def main() -> None:
    """Writes, or renders."""
    parser = argparse.ArgumentParser(prog="k8s", description="Renders a folder; without one, writes what is made.")
    parser.add_argument("folder", type=Path, nargs="?", help="A kustomization, such as k8s/overlays/production.")
    parser.add_argument("--namespace", default=NAMESPACE, help="Of a further installation: all of it goes there.")
    options = parser.parse_args()
    try:
        if options.folder:
            print(rendered(options.folder, options.namespace), end="")
        else:
            print(f"{write_rules()} and {write_flows()} written")
    except (RenderError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
