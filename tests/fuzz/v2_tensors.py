"""Fuzz target: requests of the v2 protocol, as JSON and as gRPC messages, up to explorer's and ranker's checks."""

from __future__ import annotations

import json
from typing import Any, Final

from google.protobuf.message import DecodeError
from kserve import InferRequest
from kserve.errors import InferenceError, InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest
from kserve.protocol.model_repository_extension import ModelRepository
from kserve.protocol.rest.v2_datamodels import InferenceRequest
from pydantic import ValidationError

from serving.http.api import Recommend, parse, request_model, whole_requests
from serving.http.errors import Refused
from serving.http.grpc_server import check_raw_contents
from serving.settings import ServingConfig
from tests.fuzz.draw import Draw

SHARE: Final = 0.3
_BODY: Final[dict[str, Any]] = {
    "id": "1",
    "inputs": [
        {"name": "user_id", "shape": [2], "datatype": "BYTES", "data": ["42", "43"]},
        {"name": "k", "shape": [2, 1], "datatype": "INT32", "data": [10, 5]},
        {"name": "novel", "shape": [2], "datatype": "FP64", "data": [0.5, 0.25]},
        {"name": "request", "shape": [2], "datatype": "BYTES", "data": ['{"user_id": "42"}', "{}"]},
    ],
}


def _message() -> ModelInferRequest:
    message = ModelInferRequest(model_name="newfound", id="1")
    users = message.inputs.add(name="user_id", shape=[2], datatype="BYTES")
    users.contents.bytes_contents.extend([b"42", b"43"])
    sizes = message.inputs.add(name="k", shape=[2], datatype="INT32")
    sizes.contents.int_contents.extend([10, 5])
    return message


def _raw() -> ModelInferRequest:
    message = ModelInferRequest(model_name="newfound")
    message.inputs.add(name="user_id", shape=[1], datatype="BYTES")
    message.inputs.add(name="k", shape=[1], datatype="INT64")
    message.raw_input_contents.extend([b"\x02\0\0\x0042", b"\x0a" + bytes(7)])
    return message


SEEDS: Final = [
    b"\0" + json.dumps(_BODY).encode(),
    b"\1",
    *(
        b"\1" + bytes([1, key, 3, 1, tensor, 2, field, 4])
        for key in range(2)
        for tensor in range(4)
        for field in (0, 3)
    ),
    b"\2" + _message().SerializeToString(),
    b"\2" + _raw().SerializeToString(),
]


class Target:
    """A request is refused with a field to blame, or every row is a request by the rules."""

    def __init__(self) -> None:
        self.model = request_model(ServingConfig())
        self.dataplane = DataPlane(ModelRepository())

    def __call__(self, data: bytes) -> None:
        try:
            request = self._decode(data)
        except (ValidationError, DecodeError, RecursionError, InvalidInput, InferenceError):
            return
        if request is None:
            return
        for read in (lambda one: parse(self.model, one), whole_requests):
            try:
                found = read(request)
            except Refused as refused:
                assert 400 <= refused.status < 500 and refused.problem
                json.dumps(refused.body())
                continue
            assert all(isinstance(one, Recommend | dict) for one in found)

    def _decode(self, data: bytes) -> InferRequest | None:
        """As KServe hands it over."""
        if data[:1] == b"\2":
            message = ModelInferRequest.FromString(data[1:])
            check_raw_contents(message)
            return InferRequest.from_grpc(message)
        content = data[1:]
        if data[:1] == b"\1":
            draw, body = Draw(data[1:]), _BODY
            for _ in range(1 + draw.byte() % 3):
                body = draw.change(body)
            try:
                content = json.dumps(body).encode()
            except (TypeError, ValueError):
                return None
        decoded, _ = self.dataplane.decode(
            InferenceRequest.model_validate_json(content), {}, protocol_version="v2", model_name="newfound"
        )
        return decoded if isinstance(decoded, InferRequest) else None
