"""Runs the HTTP and gRPC servers of KServe, with clear errors for malformed requests."""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import TYPE_CHECKING, cast

from keras_tokenlearner.serving.current_model import CurrentModel
from keras_tokenlearner.serving.grpc_server import start_grpc
from keras_tokenlearner.serving.guard import MAX_BYTES, MAX_REQUESTS, Application, Guard
from keras_tokenlearner.serving.metrics import metrics
from keras_tokenlearner.serving.page.answers import PageModel
from keras_tokenlearner.serving.page.routes import page_routes
from keras_tokenlearner.serving.payloads import V1Request
from keras_tokenlearner.serving.v2_binary import read_v2

if TYPE_CHECKING:
    import fastapi
    import kserve
    import uvicorn
    from kserve.protocol.dataplane import DataPlane

MAX_CONNECTIONS = 2048
# Time limit for the headers of a request. It starts with the connection, or with the first byte of
# a later request.
HEADER_SECONDS = 10.0
HEADER_BYTES = 2**16  # all headers of a request; uvicorn has no limit
UNREAD_SECONDS = 30.0  # time for a client to read the pending part of an answer
IDLE_SECONDS = 15  # time between two requests until the connection is closed
STOP_SECONDS = 30  # time to answer open requests after SIGTERM


async def run(
    endpoint: "kserve.Model",
    current: CurrentModel,
    host: str,
    port: int,
    grpc_port: int | None,
    page: PageModel | None = None,
) -> None:
    """Serve a `kserve.Model` over HTTP and gRPC until the process receives a signal.

    After SIGTERM or SIGINT, the server accepts no more connections, answers open requests, and
    returns. The server is ready after `current.warm_up()`. Newer versions replace the model.

    Args:
        endpoint: A `kserve.Model`.
        current: The model that answers.
        host: Address to listen on.
        port: Integer, HTTP port.
        grpc_port: Integer, gRPC port; `None` or 0 for no gRPC.
        page: The model of the demo page, or `None` for no page.

    Raises:
        OSError: If a port is taken.
        Exception: If the warm-up fails, its error.
    """
    from fastapi import FastAPI
    from fastapi.responses import ORJSONResponse
    from kserve import ModelRepository, model_server
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.server import RESTServer

    class OneModel(ModelRepository):
        def unload(self, name: str) -> None:
            raise KeyError(name)  # clients may not unload the model

    class NoLoading(ModelRepositoryExtension):
        async def load(self, model_name: str) -> None:
            await self.unload(model_name)  # clients may not load models; `unload` leads to a 404

    class Plane(DataPlane):
        async def ready(self) -> bool:  # KServe's own method always returns True
            return endpoint.ready

    repository = OneModel()
    repository.update(endpoint)
    plane = Plane(repository)
    extension = NoLoading(repository)
    with _listen(host, port) as listener:
        # KServe reads this variable. A started application takes no more routes, so a second server
        # in a process needs its own.
        model_server.app = app = FastAPI(
            title=model_server.app.title,
            version=model_server.app.version,
            docs_url=None,
            redoc_url=None,
            default_response_class=ORJSONResponse,
        )
        rest = RESTServer("kserve.model_server:app", plane, extension, port)
        if page is not None:
            app.router.routes.extend(page_routes(page))
        _add_routes(app, plane, current)
        _refuse_in_words(app)
        rest.create_application()
        loop = asyncio.get_running_loop()
        stopping: list[asyncio.Task[None]] = []
        grpc = await start_grpc(plane, extension, host, grpc_port) if grpc_port else None

        def stop_grpc() -> None:  # together with HTTP, so both finish within STOP_SECONDS
            if grpc and not stopping:
                stopping.append(loop.create_task(grpc.stop(grace=STOP_SECONDS)))

        following = asyncio.create_task(_follow(endpoint, current))
        try:
            server = _server(rest.config, lambda: loop.call_soon_threadsafe(stop_grpc))
            address = _in_url(host)
            print(f"serving {endpoint.name} at http://{address}:{port}/v1/models/{endpoint.name}")
            if page is not None:
                print(f"with a page for browsers at http://{address}:{port}/")
            if grpc:
                print(f"and over gRPC at {address}:{grpc_port}")
            print(end="", flush=True)
            following.add_done_callback(lambda _: setattr(server, "should_exit", True))
            await server.serve(sockets=[listener])
        finally:
            has_failed = following.done()  # for example by an error of the warm-up
            following.cancel()
            stop_grpc()
            await asyncio.gather(*stopping)
        if has_failed:
            following.result()


def check_no_event_loop(owner: str) -> None:
    """Raise `RuntimeError` if this thread runs an event loop, because a server needs its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"{owner}: the server cannot start in a thread that runs an event loop, as in a notebook. "
        f"Run `keras-tokenlearner {owner}` in a terminal"
    )


async def run_page(page: PageModel, host: str, port: int) -> None:
    """Serve only the demo page, until the process receives a signal.

    Args:
        page: The model behind the page.
        host: Address to listen on.
        port: Integer, HTTP port.

    Raises:
        OSError: If the port is taken.
    """
    import uvicorn

    with _listen(host, port) as listener:
        server = _server(uvicorn.Config(page_app(page), log_level="warning"))
        print(f"open http://{_in_url(host)}:{port}/ in a browser", flush=True)
        await server.serve(sockets=[listener])


def page_app(page: PageModel) -> Application:
    """Return the ASGI application of the demo page, with the limits on requests."""
    from starlette.applications import Starlette

    return Guard(cast("Application", Starlette(routes=page_routes(page))))


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _follow(endpoint: "kserve.Model", current: CurrentModel) -> None:
    """Warm up the model, mark the endpoint as ready, then check for newer versions repeatedly."""
    try:
        await asyncio.to_thread(current.warm_up)
        endpoint.ready = True
        await current.follow()
    finally:
        current.stopping.set()  # the thread of a warm-up would keep the process alive


def check_address(owner: str, host: str, port: int, grpc_port: int | None = None) -> None:
    """Check that a server can listen, before it loads a model.

    Args:
        owner: Name of the function that the user called.
        host: Address to listen on.
        port: Integer, HTTP port.
        grpc_port: Integer, gRPC port; `None` or 0 for no gRPC.

    Raises:
        ValueError: If the host is empty or not a text.
        OSError: If the host has no such address, a port is taken, or both ports are equal.
    """
    if not isinstance(host, str) or not host:
        raise ValueError(
            f"{owner}: `host` must be an address such as '127.0.0.1'; pass '0.0.0.0' for every "
            f"machine. Received: host={host!r}"
        )
    with _listen(host, port):  # the gRPC port must be another one
        if grpc_port:
            _listen(host, grpc_port, "grpc_port").close()


def _listen(host: str, port: int, name: str = "port") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except (OSError, UnicodeError) as error:  # UnicodeError for a name such as "a..b"
        raise OSError(
            f"serve: the server cannot listen on `{name}` of `host`: {error}; choose another port "
            f"or host. Received: {name}={port}, host={host!r}"
        ) from error


def _server(
    config: "uvicorn.Config", on_exit: Callable[[], object] = lambda: None
) -> "uvicorn.Server":
    """Return an HTTP server with time limits. After a signal, the server exits with status 0.

    Args:
        config: Settings of uvicorn.
        on_exit: Function that the signal handler calls.
    """
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Timed(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        """HTTP protocol that closes connections with slow clients or endless headers."""

        waits: asyncio.TimerHandle | None = None
        unread: asyncio.TimerHandle | None = None
        header_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            if self.waits is None and self._is_idle():
                self._wait()
            before = self.cycle
            is_body = before is not None and before.more_body
            super().data_received(data)
            if not self._is_idle():
                self._stop_waiting()
            # A new cycle means that the headers of a request are complete.
            if is_body or self.cycle is not before:
                self.header_bytes = 0
                return
            self.header_bytes += len(data)
            if self.header_bytes > HEADER_BYTES:
                self.transport.abort()

        def pause_writing(self) -> None:
            super().pause_writing()
            loop = asyncio.get_running_loop()
            # `close` would wait until the client has read the rest.
            self.unread = loop.call_later(UNREAD_SECONDS, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_unread()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self._stop_unread()
            super().connection_lost(exc)

        def _is_idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _wait(self) -> None:
            self.waits = asyncio.get_running_loop().call_later(HEADER_SECONDS, self._give_up)

        def _stop_waiting(self) -> None:
            if self.waits is not None:
                self.waits.cancel()
                self.waits = None

        def _stop_unread(self) -> None:
            if self.unread is not None:
                self.unread.cancel()
                self.unread = None

        def _give_up(self) -> None:
            self.waits = None
            if self._is_idle():
                self.transport.close()

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # uvicorn's handler raises the signal again before gRPC has answered its open requests.
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True
            on_exit()

    config.http = Timed
    config.limit_concurrency = MAX_CONNECTIONS
    config.timeout_keep_alive = IDLE_SECONDS
    config.timeout_graceful_shutdown = STOP_SECONDS
    return Server(config)


def _add_routes(app: "fastapi.FastAPI", plane: "DataPlane", current: CurrentModel) -> None:
    """Add our own routes for V1 and V2 before KServe's routes.

    Routes for versions and their status are the same as in TensorFlow Serving.

    KServe's routes read `"1"` and `true` as 1. These routes parse bodies on the event loop, and
    answer some malformed bodies with the status 500.
    """
    from fastapi import Request, Response
    from fastapi.responses import ORJSONResponse
    from kserve import InferRequest
    from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady

    async def answer(name: str, request: Request, version: str | None = None) -> Response:
        # A request for another version gets this error even if its body is malformed.
        if not current.now.answers_for(version):
            raise ModelNotFound(f"{name}, version {version}")
        headers = dict(request.headers.items())
        body = await request.body()
        content: V1Request | InferRequest = V1Request(body, version)
        if request.url.path.startswith("/v2"):
            try:
                content = await asyncio.to_thread(read_v2, body, headers, name, version)
            except ValueError as error:
                raise InvalidInput(str(error)) from error
        found, _ = await plane.infer(model_name=name, request=content, headers=headers)
        found, added = plane.encode(name, found, {}, {})  # empty headers: no cloud events
        if isinstance(found, bytes):
            return Response(found, headers=added)
        return ORJSONResponse(found)

    async def v1(model_name: str, request: Request) -> Response:
        return await answer(model_name, request)

    async def v2(model_name: str, request: Request) -> Response:
        return await answer(model_name, request)

    async def v1_version(model_name: str, version: str, request: Request) -> Response:
        return await answer(model_name, request, version)

    async def v2_version(model_name: str, version: str, request: Request) -> Response:
        return await answer(model_name, request, version)

    async def status(model_name: str) -> Response:
        if not await plane.model_ready(model_name):
            raise ModelNotReady(model_name)
        states = current.status()
        return ORJSONResponse({"name": model_name, "ready": True, "model_version_status": states})

    async def version_status(model_name: str, version: str) -> Response:
        await plane.model_ready(model_name)
        found = [state for state in current.status() if state["version"] == version]
        if not found:
            raise ModelNotFound(f"{model_name}, version {version}")
        return ORJSONResponse({"model_version_status": found})

    routes: dict[str, Callable[..., Awaitable[Response]]] = {
        "/v1/models/{model_name}/versions/{version}:predict": v1_version,
        "/v1/models/{model_name}:predict": v1,
        "/v2/models/{model_name}/infer": v2,
        "/v2/models/{model_name}/versions/{version}/infer": v2_version,
    }
    for path, route in routes.items():
        app.add_api_route(path, route, methods=["POST"], response_model=None)
    routes = {
        "/v1/models/{model_name}/versions/{version}": version_status,
        "/v1/models/{model_name}": status,
    }
    for path, route in routes.items():
        app.add_api_route(path, route, methods=["GET"], response_model=None)


def _refuse_in_words(app: "fastapi.FastAPI") -> None:
    """Add the limits on requests to an application, and shorten its errors for bad fields."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    async def refuse(_: "fastapi.Request", error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{place}: {first['msg']}"}, 400)

    app.add_exception_handler(RequestValidationError, refuse)
    app.add_middleware(
        Guard, max_bytes=MAX_BYTES, max_requests=MAX_REQUESTS, observe=metrics().status
    )
    logging.getLogger("kserve").addFilter(_is_no_refusal)


def _is_no_refusal(record: logging.LogRecord) -> bool:
    """Return `False` for a client's mistake, which goes to the client, not into the log."""
    from kserve.errors import InvalidInput, ModelNotFound

    return not (record.exc_info and isinstance(record.exc_info[1], (InvalidInput, ModelNotFound)))
