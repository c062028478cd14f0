"""Web page that shows a user's history on the map of interests, and the slate that follows from it.

It is for a team on its own machine, and off by default: it shows anyone anybody's history.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse

from newfound.schema import NODE, USER, X, Y
from serving.circuit_breaker import Unavailable

if TYPE_CHECKING:
    from newfound.recommend.catalogue import AvailableCatalogue
    from serving.explorer.loaded_release import LoadedRelease
    from serving.explorer.model import ExplorerModel

PATHS: Final = r"/page(/.*)?"
_FOLDER: Final = Path(__file__).parent
_FILES: Final = {
    "": ("index.html", "text/html; charset=utf-8"),
    "app.js": ("app.js", "text/javascript; charset=utf-8"),
    "map.js": ("map.js", "text/javascript; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
PATIENCE_S: Final = 2.0
OFFERED: Final = 200  # users in the list


class Page:
    """The page's routes.

    Args:
        model: the explorer; the page requests its slates like any other client.
        users: Parquet file whose `user_id` column is offered to pick from.
    """

    def __init__(self, model: ExplorerModel, users: str | None) -> None:
        self._model, self._users = model, users

    def add_to(self, app: FastAPI) -> None:
        """Adds the routes to an application."""
        for path, endpoint in (
            ("/page/interests.json", self.interests),
            ("/page/users.json", self.users),
            ("/page/history/{user:path}", self.history),
            ("/page", self.file),
            ("/page/{name}", self.file),
        ):
            app.add_api_route(path, endpoint, methods=["GET"])

    async def file(self, name: str = "") -> Response:
        """One of the page's files."""
        if name not in _FILES:
            raise HTTPException(404)
        path, kind = _FILES[name]
        return Response((_FOLDER / path).read_bytes(), media_type=kind, headers=_HEADERS)

    async def interests(self) -> JSONResponse:
        """The map."""
        loaded = self._loaded()
        return JSONResponse(_interests(loaded, self._available(loaded)), headers=_HEADERS)

    async def users(self) -> JSONResponse:
        """Users to pick from."""
        return JSONResponse({"users": _users(self._users)}, headers=_HEADERS)

    async def history(self, user: str) -> JSONResponse:
        """A user's stored history, without what was taken down."""
        try:
            stored = await self._model.stored(user, PATIENCE_S)
        except Unavailable as error:
            raise HTTPException(503, f"the feature store does not answer ({error.why})") from None
        loaded = self._loaded()
        catalogue, blocked = loaded.catalogue, self._available(loaded).blocked
        events = [] if stored is None else zip(stored.item_ids, stored.engagements, stored.positives, strict=True)
        shown = [
            {
                "item": item,
                "title": catalogue.titles.get(item, item),
                "cluster": catalogue.cluster_of.get(item),
                "engagement": round(float(engagement), 3),
                "positive": bool(positive),
            }
            for item, engagement, positive in events
            if item not in blocked
        ]
        return JSONResponse({"user": user, "events": shown}, headers=_HEADERS)

    def _loaded(self) -> LoadedRelease:
        loaded = self._model.releases.get()
        if loaded is None:
            raise HTTPException(503, "no release serves yet")
        return loaded

    def _available(self, loaded: LoadedRelease) -> AvailableCatalogue:
        return loaded.available(self._model.releases.takedown)


def _interests(loaded: LoadedRelease, available: AvailableCatalogue) -> dict[str, Any]:
    """The map: a point an interest that has an item to show."""
    catalogue = loaded.catalogue
    layout = {row[NODE]: (row[X], row[Y]) for row in catalogue.clusters.layout.to_pylist()}
    traffic = catalogue.clusters.traffic
    return {
        "release": loaded.release,
        "policy": {"k": loaded.policy.k, "novel_share": loaded.policy.novel_share},
        "interests": [
            {
                "id": cluster,
                "description": catalogue.description[cluster],
                "items": catalogue.sizes[cluster],
                "traffic": round(float(traffic[at]), 6),
                "x": layout.get(cluster, (0.0, 0.0))[0],
                "y": layout.get(cluster, (0.0, 0.0))[1],
            }
            for at, cluster in enumerate(catalogue.interface)
            if available.available[cluster]
        ],
    }


def _users(path: str | None) -> list[str]:
    """Users to pick from, spread over the file."""
    if path is None or not Path(path).exists():
        return []
    import pyarrow.parquet as pq

    found = sorted(set(pq.read_table(path, columns=[USER])[USER].to_pylist()), key=lambda user: (len(user), user))
    return found[:: max(len(found) // OFFERED, 1)][:OFFERED]
