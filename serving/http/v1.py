"""KServe's v1 prediction, from the bytes of a body to those of the answer.

It is KServe's data plane and model that answer. What is left out is FastAPI's way there: finding the route, solving
dependencies, and wrapping the response take longer than a request's decisions do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from fastapi import Request
from kserve.errors import ModelNotReady
from kserve.protocol.dataplane import DataPlane

from serving.http.errors import HANDLERS, Refused

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Prediction:
    """Answers v1 predictions.

    Args:
        dataplane: KServe's, with the models.
    """

    def __init__(self, dataplane: DataPlane) -> None:
        self._dataplane = dataplane

    async def __call__(self, model: str, scope: Message, body: bytes, headers: dict[bytes, bytes], send: Send) -> None:
        """Answers one request.

        Args:
            model: name of the model.
            scope: the request's ASGI scope.
            body: whole.
            headers: names in lower case.
            send: takes the response.
        """
        try:
            content = await self._answer(model, body, headers)
        except Exception as error:
            kind = next(kind for kind in type(error).__mro__ if kind in HANDLERS)
            response = await HANDLERS[kind](Request(scope), error)
            await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
            content = response.body
        else:
            length = str(len(content)).encode()
            told = [(b"content-length", length), (b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, model: str, body: bytes, headers: dict[bytes, bytes]) -> bytes:
        if not await self._dataplane.model_ready(model, disable_predictor_health_check=True):
            raise ModelNotReady(model)
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise Refused("not valid JSON", "body") from None
        told = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        answer, _ = await self._dataplane.infer(model_name=model, request=payload, headers=told)
        return orjson.dumps(answer)
