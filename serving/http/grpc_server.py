"""gRPC side of the model server: KServe's v2 service behind the same admission as REST."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent import futures
from typing import Any, Final

from grpc import StatusCode, aio
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from serving.http.context import CURRENT, REQUEST_ID, TIMEOUT, Capacity, RequestContext, request_id, shorter, timeout_s
from serving.http.errors import Refused

_CODES: Final = {503: StatusCode.RESOURCE_EXHAUSTED, 504: StatusCode.DEADLINE_EXCEEDED}
_PENDING: Final = 16
"""Open calls for each instance in flight: a call is open from its first byte on, and may stay incomplete."""
_CONNECTION_S: Final = 600
_GRACE_S: Final = 30


def check_raw_contents(request: Any) -> None:
    """Refuses a message whose raw contents are not one for each input; KServe's own reader trips over it.

    Raises:
        InvalidInput: they are not.
    """
    contents, inputs = len(request.raw_input_contents), len(request.inputs)
    if contents and contents != inputs:
        raise InvalidInput(f"raw_input_contents: {contents} for {inputs} inputs; expected one for each")


class Servicer(InferenceServicer):
    """KServe's service with admission, and without the calls by which anyone could load or unload the model.

    Args:
        dataplane: KServe's, with the models.
        repository: KServe's.
        capacity: instances in flight, shared with REST.
    """

    def __init__(self, dataplane: DataPlane, repository: ModelRepositoryExtension, capacity: Capacity) -> None:
        super().__init__(dataplane, repository)
        self._capacity = capacity

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Answers an inference within the sender's deadline; of the metadata only the request's id is kept."""
        told = {str(name): value for name, value in context.invocation_metadata() if isinstance(value, str)}
        patience = shorter(context.time_remaining(), timeout_s(told.get(TIMEOUT)))
        one = RequestContext(request_id(told.get(REQUEST_ID, "")), self._capacity, patience)
        check_raw_contents(request)
        one.take(1)  # the model takes the rest, once it knows how many instances there are
        token = CURRENT.set(one)
        try:
            return await super().ModelInfer(request, context)
        finally:
            CURRENT.reset(token)
            one.release()

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        await context.abort(StatusCode.UNIMPLEMENTED, "releases are published, not loaded")

    RepositoryModelUnload = RepositoryModelLoad


class Interceptor(ExceptionToStatusInterceptor):
    """KServe's mapping of exceptions to status codes, but for refusals that have a code of their own."""

    async def handle_exception(self, ex: Exception, request_or_iterator: Any, context: Any, method_name: str) -> None:
        """Ends the call."""
        if isinstance(ex, Refused) and ex.status in _CODES:
            await context.abort(_CODES[ex.status], str(ex))
        await super().handle_exception(ex, request_or_iterator, context, method_name)


async def start_grpc(
    servicer: Servicer, address: str, body_bytes: int, capacity: Capacity, interceptors: Sequence[Any] = ()
) -> aio.Server:
    """Starts the server.

    Args:
        servicer: of the model.
        address: host and port.
        body_bytes: most bytes of a request.
        capacity: instances in flight.
        interceptors: around the service's own.
    """
    options = [
        ("grpc.max_receive_message_length", body_bytes),
        ("grpc.max_send_message_length", 16 * body_bytes),
        ("grpc.max_concurrent_streams", 4 * capacity.limit),  # of one connection
        # Connections end in time, and with them the calls whose senders stopped half-way.
        ("grpc.max_connection_age_ms", _CONNECTION_S * 1000),
        ("grpc.max_connection_age_grace_ms", _GRACE_S * 1000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    server = aio.server(
        futures.ThreadPoolExecutor(max_workers=1),
        interceptors=(*interceptors, Interceptor()),
        options=options,
        maximum_concurrent_rpcs=_PENDING * capacity.limit,
    )
    grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    await server.start()
    return server
