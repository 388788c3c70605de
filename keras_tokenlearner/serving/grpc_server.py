"""The gRPC server of KServe, with limits on messages and time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from keras_tokenlearner.serving.guard import BODY_SECONDS, INLINE_BYTES, MAX_BYTES, MAX_REQUESTS
from keras_tokenlearner.serving.metrics import metrics
from keras_tokenlearner.serving.v2_grpc import read_grpc

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension

IDLE_SECONDS = 300  # time until a connection without calls is closed


async def start_grpc(
    plane: "DataPlane", extension: "ModelRepositoryExtension", host: str, port: int
) -> "grpc.aio.Server":
    """Start the gRPC server of KServe and return it.

    Args:
        plane: The `DataPlane` that answers requests.
        extension: The `ModelRepositoryExtension` for requests to load or unload models.
        host: Address to listen on.
        port: Integer, gRPC port.

    Raises:
        OSError: If the port is taken.
    """
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as protocol
    from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
    from kserve.protocol.grpc.servicer import InferenceServicer

    server = grpc.aio.server(
        interceptors=[
            _counting(metrics().refuse),
            ExceptionToStatusInterceptor(),
            _reading(),
        ],
        maximum_concurrent_rpcs=MAX_REQUESTS,
        options=[
            ("grpc.max_receive_message_length", MAX_BYTES),
            # Otherwise two servers could share a port and mix their answers.
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1000),
        ],
    )
    servicer = InferenceServicer(plane, extension)
    protocol.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(
            f"serve: the server cannot listen on `grpc_port`: {error}; choose another port. "
            f"Received: grpc_port={port}"
        ) from error
    if not bound:
        raise OSError(
            f"serve: `grpc_port` must be free; {address} is in use, so choose another port. "
            f"Received: grpc_port={port}"
        )
    await server.start()
    return server


def _counting(refuse: Callable[[str], None]) -> "grpc.aio.ServerInterceptor":
    """Return an interceptor that passes the status name of each failed call to `refuse`."""
    import grpc
    from grpc_interceptor.server import AsyncServerInterceptor

    class Counting(AsyncServerInterceptor):  # type: ignore[misc]
        async def intercept(
            self,
            method: Callable[["Message", "grpc.aio.ServicerContext"], Awaitable["Message"]],
            request_or_iterator: "Message",
            context: "grpc.aio.ServicerContext",
            method_name: str,
        ) -> "Message":
            try:
                return await method(request_or_iterator, context)
            finally:
                if isinstance(context.code(), grpc.StatusCode):  # the code of a success is 0
                    refuse(context.code().name)

    return Counting()


def _reading() -> "grpc.aio.ServerInterceptor":
    """Return an interceptor that limits the time of a message, and parses inputs by `read_grpc`.

    gRPC waits forever for the message of an open call. Many open calls without a message would use
    up the limit on calls. A handler for streams reads its messages itself, so it can stop in time.
    """
    import grpc
    from grpc_interceptor.exceptions import DeadlineExceeded
    from kserve.errors import InvalidInput

    class Reading(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        async def intercept_service(
            self,
            continuation: Callable[
                [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]
            ],
            handler_call_details: grpc.HandlerCallDetails,
        ) -> grpc.RpcMethodHandler | None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            infers = handler_call_details.method.endswith("/ModelInfer")
            parse = read_grpc if infers else handler.request_deserializer

            async def answer(
                contents: AsyncIterator[bytes], context: grpc.aio.ServicerContext
            ) -> "Message":
                try:
                    async with asyncio.timeout(BODY_SECONDS):
                        content = await anext(contents)
                    if len(content) <= INLINE_BYTES:
                        request = parse(content)
                    else:
                        request = await asyncio.to_thread(parse, content)
                except TimeoutError as error:
                    reason = f"a message must arrive within {BODY_SECONDS:g} s"
                    raise DeadlineExceeded(reason) from error
                except StopAsyncIteration as error:
                    raise InvalidInput("a call must have one message; got none") from error
                except ValueError as error:
                    raise InvalidInput(str(error)) from error
                return await handler.unary_unary(request, context)

            return grpc.stream_unary_rpc_method_handler(
                answer, response_serializer=handler.response_serializer
            )

    return Reading()
