"""The page: a user's history on the map of interests, and the slate that follows from it.

It is for a team on its own machine, and off by default: it shows anyone anybody's history.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi import HTTPException, Response
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


def add_page(app: Any, model: ExplorerModel, users: str | None) -> None:
    """Adds the page's routes.

    Args:
        app: the FastAPI application.
        model: the explorer, whose slates the page asks for like any other client.
        users: Parquet file whose `user_id` column is offered to pick from.
    """

    def held() -> LoadedRelease:
        found = model.releases.get()
        if found is None:
            raise HTTPException(503, "no release serves yet")
        return found

    async def file(name: str = "") -> Response:
        if name not in _FILES:
            raise HTTPException(404)
        path, kind = _FILES[name]
        return Response((_FOLDER / path).read_bytes(), media_type=kind, headers=_HEADERS)

    def shelf() -> AvailableCatalogue:
        return held().shelf(model.releases.takedown)

    async def interests() -> JSONResponse:
        return JSONResponse(_interests(held(), shelf()), headers=_HEADERS)

    async def offered() -> JSONResponse:
        return JSONResponse({"users": _users(users)}, headers=_HEADERS)

    async def history(user: str) -> JSONResponse:
        try:
            stored = await model.stored(user, PATIENCE_S)
        except Unavailable as error:
            raise HTTPException(503, f"the feature store does not answer ({error.why})") from None
        catalogue, blocked = held().catalogue, shelf().blocked
        events = [] if stored is None else zip(stored.item_ids, stored.engagements, stored.positives, strict=True)
        return JSONResponse(
            {
                "user": user,
                "events": [
                    {
                        "item": item,
                        "title": catalogue.titles.get(item, item),
                        "cluster": catalogue.cluster_of.get(item),
                        "engagement": round(float(engagement), 3),
                        "positive": bool(positive),
                    }
                    for item, engagement, positive in events
                    if item not in blocked
                ],
            },
            headers=_HEADERS,
        )

    app.add_api_route("/page/interests.json", interests, methods=["GET"])
    app.add_api_route("/page/users.json", offered, methods=["GET"])
    app.add_api_route("/page/history/{user:path}", history, methods=["GET"])
    app.add_api_route("/page", file, methods=["GET"])
    app.add_api_route("/page/{name}", file, methods=["GET"])


def _interests(held: LoadedRelease, shelf: AvailableCatalogue) -> dict[str, Any]:
    """The map: a point an interest that has an item to show."""
    catalogue = held.catalogue
    layout = {row[NODE]: (row[X], row[Y]) for row in catalogue.clusters.layout.to_pylist()}
    traffic = catalogue.clusters.traffic
    return {
        "release": held.release,
        "policy": {"k": held.policy.k, "novel_share": held.policy.novel_share},
        "interests": [
            {
                "id": cluster,
                "description": catalogue.description[cluster],
                "items": catalogue.slices[cluster][1] - catalogue.slices[cluster][0],
                "traffic": round(float(traffic[at]), 6),
                "x": layout.get(cluster, (0.0, 0.0))[0],
                "y": layout.get(cluster, (0.0, 0.0))[1],
            }
            for at, cluster in enumerate(catalogue.interface)
            if shelf.available[cluster]
        ],
    }


def _users(path: str | None) -> list[str]:
    """Users to pick from, spread over the file."""
    if path is None or not Path(path).exists():
        return []
    import pyarrow.parquet as pq

    found = sorted(set(pq.read_table(path, columns=[USER])[USER].to_pylist()), key=lambda user: (len(user), user))
    return found[:: max(len(found) // OFFERED, 1)][:OFFERED]
