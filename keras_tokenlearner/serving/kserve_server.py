"""KServe's servers, listening where they are told to, and with an answer to broken requests."""

import json
import logging

MAX_BYTES = 64 * 2**20  # of a request
MAX_REQUESTS = 256  # at the same time


async def run(endpoint, host, port, grpc_port):
    """Serve a `kserve.Model` over HTTP and gRPC until the process gets a signal.

    Args:
        endpoint: A `kserve.Model`.
        host: Address to listen on.
        port: Integer, of HTTP.
        grpc_port: Integer, of gRPC; `None` for none.
    """
    from kserve import ModelRepository
    from kserve.model_server import app
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.server import RESTServer

    class OneModel(ModelRepository):
        def unload(self, name):
            raise KeyError(name)  # clients do not stop the server

    repository = OneModel()
    repository.update(endpoint)
    plane = _data_plane(repository)
    extension = ModelRepositoryExtension(repository)
    rest = RESTServer("kserve.model_server:app", plane, extension, port)
    rest.config.host = host  # KServe would listen to the whole network
    rest.config.limit_concurrency = MAX_REQUESTS
    _refuse_in_words(app)
    grpc = await _start_grpc(plane, extension, host, grpc_port) if grpc_port else None
    print(f"serving {endpoint.name} at http://{host}:{port}/v1/models/{endpoint.name}", flush=True)
    if grpc:
        print(f"and over gRPC at {host}:{grpc_port}", flush=True)
    try:
        await rest.start()
    finally:
        if grpc:
            await grpc.stop(grace=1)


def _data_plane(repository):
    """Return KServe's reader of requests, without its failures at requests that are broken."""
    from kserve import InferInput, InferRequest
    from kserve.errors import InvalidInput
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.infer_type import RequestedOutput

    class Plane(DataPlane):
        def decode(self, body, headers, *arguments, **keywords):
            try:
                return super().decode(body, headers, *arguments, **keywords)
            except InvalidInput:
                raise
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise InvalidInput(f"the request cannot be read: {error!r}") from error

        def decode_inference_request(self, body, headers, model_name):
            if not isinstance(body, bytes):
                return super().decode_inference_request(body, headers, model_name)
            # V2 with binary tensors after the JSON; KServe's own fails at bytes that are no text.
            start = int(headers["inference-header-content-length"])
            fields, inputs, contents = json.loads(body[:start]), [], []
            for field in fields["inputs"]:
                end = start + field["parameters"]["binary_data_size"]
                contents.append(body[start:end])
                inputs.append(InferInput(field["name"], field["shape"], field["datatype"]))
                start = end
            outputs = [
                RequestedOutput(output["name"], output.get("parameters"))
                for output in fields.get("outputs", [])
            ]
            return InferRequest(
                model_name,
                inputs,
                fields.get("id"),
                contents,
                parameters=fields.get("parameters"),
                request_outputs=outputs or None,
            )

    return Plane(repository)


def _refuse_in_words(app):
    """Limit the size of requests to an application, and answer those that are no V2 in short."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from kserve.errors import InvalidInput, ModelNotFound

    async def refuse(_, error):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{place}: {first['msg']}"}, 400)

    app.add_exception_handler(RequestValidationError, refuse)
    app.add_middleware(SizeLimit, max_bytes=MAX_BYTES)
    # A client's mistake is the client's to read, not a traceback in the log.
    logging.getLogger("kserve").addFilter(
        lambda record: (
            not (record.exc_info and isinstance(record.exc_info[1], (InvalidInput, ModelNotFound)))
        )
    )


class SizeLimit:
    """ASGI middleware that answers 413 to requests whose body is too large.

    Args:
        app: An ASGI application.
        max_bytes: Integer, of the largest body.
    """

    def __init__(self, app, max_bytes):
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        messages, size, more = [], 0, True
        while more:  # to the end, so that the client is there to read the answer
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > self.max_bytes:
                messages.clear()
            else:
                messages.append(message)
        if size > self.max_bytes:
            return await self._refuse(send)
        messages.reverse()

        async def again():
            return messages.pop() if messages else await receive()

        return await self.app(scope, again, send)

    async def _refuse(self, send):
        reason = {"error": f"a request must have at most {self.max_bytes} bytes"}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(reason).encode()})


async def _start_grpc(plane, extension, host, port):
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as protocol
    from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
    from kserve.protocol.grpc.servicer import InferenceServicer

    server = grpc.aio.server(
        interceptors=[ExceptionToStatusInterceptor()],
        maximum_concurrent_rpcs=MAX_REQUESTS,
        options=[("grpc.max_receive_message_length", MAX_BYTES)],
    )
    servicer = InferenceServicer(plane, extension)
    protocol.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    await server.start()
    return server
