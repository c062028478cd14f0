"""OpenAPI document of a service, made by FastAPI from its prediction routes with their request and response models.

KServe's own routes take a raw request: FastAPI finds no models in them.
"""

from __future__ import annotations

import inspect
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from kserve.protocol.rest.v2_datamodels import InferenceRequest, InferenceResponse
from pydantic import BaseModel


class Problem(BaseModel):
    """The body of a refusal."""

    error: str
    field: str | None


def describe(
    app: FastAPI, model: str, request: type[BaseModel], response: type[BaseModel], summary: str, title: str
) -> None:
    """Sets the OpenAPI document: the prediction paths of both protocols.

    Args:
        app: KServe's application.
        model: the model's name.
        request: body of v1.
        response: answer of v1.
        summary: of the operation.
        title: of the document.
    """
    routes = [
        _route(f"/v1/models/{model}:predict", request, response, summary),
        _route(f"/v2/models/{model}/infer", InferenceRequest, InferenceResponse, f"{summary}, over the v2 protocol"),
    ]
    document = get_openapi(title=title, version=app.version, routes=routes)
    app.openapi = lambda: document  # type: ignore[method-assign]


def _route(path: str, request: type[BaseModel], response: type[BaseModel], summary: str) -> APIRoute:
    """A route that documents a path; KServe or `serving.http.v1` answers it."""

    def predict(**_: Any) -> None:
        raise NotImplementedError

    body = inspect.Parameter("body", inspect.Parameter.KEYWORD_ONLY, annotation=request)
    predict.__signature__ = inspect.Signature([body])  # type: ignore[attr-defined]
    problems: dict[int | str, dict[str, Any]] = {
        "4XX": {"model": Problem, "description": "refused: the field at fault is named"},
        503: {"model": Problem, "description": "too many requests, or no release yet"},
    }
    return APIRoute(
        path,
        predict,
        methods=["POST"],
        response_model=response,
        summary=summary,
        responses=problems,
        operation_id=path.split("/")[1],
    )
