"""The page: a user's history on the map of interests, and the slate that follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.explorer.model import ExplorerModel

PATHS = r"/page(/.*)?"


def add_page(app: Any, model: ExplorerModel) -> None:
    """Adds the page's routes."""
