"""Refusals that a client can act on."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady
from pydantic import ValidationError
from starlette.exceptions import HTTPException

log = logging.getLogger("newfound.serving.errors")


class Refused(InvalidInput):
    """A request that is not answered, with the field that is to blame; over gRPC it is INVALID_ARGUMENT.

    Args:
        problem: what is wrong, without the offending value: it may be a person's.
        field: path of the field, such as ``instances[0].k``.
        status: HTTP status.
    """

    def __init__(self, problem: str, field: str | None = None, status: int = 400) -> None:
        self.problem, self.field, self.status = problem, field, status
        super().__init__(problem if field is None else f"{field}: {problem}")

    @classmethod
    def of(cls, error: ValidationError) -> Refused:
        """The first problem that pydantic found; of the ways in which a union did not fit, the closest one."""
        found = error.errors(include_url=False, include_input=False, include_context=False)
        first = path_of(found[0]["loc"])
        same = [one for one in found if path_of(one["loc"]).startswith(first)]
        furthest = max(same, key=lambda one: len(path_of(one["loc"])))
        return cls(furthest["msg"], path_of(furthest["loc"]))

    def body(self) -> dict[str, Any]:
        """The message to the client."""
        return {"error": str(self), "field": self.field}

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        return {"Retry-After": "1"} if self.status == 503 else {}


class Busy(Refused):
    """Too many requests are being answered; over gRPC it is RESOURCE_EXHAUSTED."""

    def __init__(self) -> None:
        super().__init__("too many requests in flight; try again", None, 503)


class Expired(Refused):
    """The sender's timeout has passed: nobody waits for the answer. Over gRPC it is DEADLINE_EXCEEDED."""

    def __init__(self) -> None:
        super().__init__("the request's time is up", None, 504)


def path_of(location: tuple[int | str, ...]) -> str:
    """A pydantic location as people write it; names of types, which unions bring along, are left out.

    >>> path_of(("instances", 0, "history", 3, "item"))
    'instances[0].history[3].item'
    """
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part.islower() and part not in ("int", "float", "str"):
            path += f".{part}" if path else part
    return path or "body"


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Refusal by KServe itself: a body that is not JSON."""
    return JSONResponse(Refused("not valid JSON", "body").body(), status_code=400)


async def _malformed(_: Request, error: Exception) -> JSONResponse:
    """Refusal by FastAPI: a v2 body of another shape."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    location = tuple(part for part in first["loc"] if part not in ("body", "InferenceRequest"))
    return JSONResponse(Refused(str(first["msg"]), path_of(location)).body(), status_code=400)


async def _not_found(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(Refused("there is no such model", "path").body(), status_code=404)


async def _not_ready(_: Request, error: Exception) -> JSONResponse:
    body = {"error": "no release serves yet", "field": None}
    return JSONResponse(body, status_code=503, headers={"Retry-After": "1"})


async def _http(_: Request, error: Exception) -> JSONResponse:
    """Refusal by FastAPI before it looks at fields, such as a body that is not UTF-8; and the page's own refusals."""
    assert isinstance(error, HTTPException)
    field = "body" if error.status_code == 400 else None
    return JSONResponse(Refused(str(error.detail), field).body(), status_code=error.status_code)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", exc_info=error, extra={"fields": {"request": request.headers.get("x-request-id")}})
    return JSONResponse({"error": "internal error", "field": None}, status_code=500)


HANDLERS: dict[type[Exception], Any] = {
    Refused: _refused,
    InvalidInput: _invalid,
    RequestValidationError: _malformed,
    HTTPException: _http,
    ModelNotFound: _not_found,
    ModelNotReady: _not_ready,
    ServerNotReady: _not_ready,
    Exception: _unexpected,
}
"""Answers to errors, instead of KServe's, which name no field and log what was sent."""
