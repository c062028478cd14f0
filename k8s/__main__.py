"""`python -m k8s`: writes what has its source elsewhere. `python -m k8s FOLDER`: renders a folder to the output."""

from __future__ import annotations

import sys
from pathlib import Path

from k8s.kustomize import RenderError, render
from k8s.rules import write_rules


def main() -> None:
    """Writes, or renders."""
    try:
        if len(sys.argv) > 1:
            print(render(Path(sys.argv[1])), end="")
        else:
            print(f"{write_rules()} written")
    except RenderError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
