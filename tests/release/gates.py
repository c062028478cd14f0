"""The verdict of gates that held: what a publication asks for."""

from __future__ import annotations

from typing import Final

HELD: Final = {"match_rate": {"value": 1.0, "bound": 0.9, "passed": True}}
