"""Limits on HTTP requests, checked before a request is parsed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

MAX_BYTES = 32 * 2**20  # bytes of a body
MAX_ITEMS = 2**21  # values in JSON; clients send larger arrays as binary tensors
MAX_LISTS = 2**20  # number of lists and dictionaries in JSON
MAX_DEPTH = 32  # nested levels of JSON
MAX_REQUESTS = 256  # requests that are answered at the same time
# Bytes of the bodies of all requests as received, also of incomplete bodies. Copies take more.
MAX_HELD = 2**30
BODY_SECONDS = 30.0  # time until the last byte of a body
ANSWER_SECONDS = 120.0  # time until an answer; then the status is 503
PICTURE_PATH = "/page/answer"  # its requests have image files as bodies, not JSON
INLINE_BYTES = 2**16  # up to this size, JSON is checked on the event loop

Message: TypeAlias = dict[str, str | int | bytes | bool | list[tuple[bytes, bytes]]]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Scope: TypeAlias = Mapping[str, Any]  # as in ASGI
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


@contextlib.asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Raise `TimeoutError` if the `async with` block needs more than `ANSWER_SECONDS`.

    The message of the error is a reason for clients.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except TimeoutError as error:
        raise TimeoutError(
            f"the model did not answer within {ANSWER_SECONDS:g} s; retry"
        ) from error


def check_json(body: bytes) -> None:
    """Raise `ValueError` if JSON would take long to parse, or is nested too deep.

    A parser can create one object per three bytes, and blocks other threads meanwhile. Counting
    brackets and commas takes milliseconds. Brackets and commas in strings count too, but base64
    contains no such characters. Closing brackets in strings can make the count of the depth too
    small. The parser itself limits the depth then.

    Args:
        body: Bytes that should be JSON.

    Raises:
        ValueError: If the JSON has too many values or lists, or is nested too deep.

    Example:

    >>> check_json(b'{"instances": [[1, 2], [3, 4]]}')
    """
    lists = body.count(b"[") + body.count(b"{")
    items = body.count(b",") + lists
    if lists > MAX_LISTS or items > MAX_ITEMS:
        raise ValueError(
            f"a request must have at most {MAX_ITEMS} values in {MAX_LISTS} lists; send arrays as "
            f"binary tensors (V2). Received: {items} values in {lists} lists"
        )
    content = np.frombuffer(body, "uint8")
    opens = (content == ord("[")) | (content == ord("{"))
    closes = (content == ord("]")) | (content == ord("}"))
    steps = opens[opens | closes].astype("int32") * 2 - 1
    depth = int(np.cumsum(steps).max(initial=0))
    if depth > MAX_DEPTH:
        raise ValueError(
            f"JSON must have at most {MAX_DEPTH} nested levels. Received: {depth} levels"
        )


class Guard:
    """ASGI middleware that limits request bodies, and cancels requests of disconnected clients.

    A refused request gets one of these HTTP status codes:

    * 413 for bodies that are too large.
    * 408 for bodies that do not end in time.
    * 400 for JSON that would take long to parse.
    * 503 while the server answers too many other requests. A GET without a body is always answered.
    * 503 while the bodies of other requests leave too little memory.

    Args:
        app: An ASGI application.
        max_bytes: Integer, size of the largest body.
        max_requests: Integer, requests that are answered at the same time.
        max_held: Integer, bytes of the bodies of all requests together, without copies.
        body_seconds: Seconds until the last byte of a body.
        observe: Function that is called with the status code of each answer.
    """

    def __init__(
        self,
        app: Application,
        max_bytes: int = MAX_BYTES,
        max_requests: int = MAX_REQUESTS,
        max_held: int = MAX_HELD,
        body_seconds: float = BODY_SECONDS,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_requests = max_requests
        self.max_held = max_held
        self.body_seconds = body_seconds
        self.observe = observe
        self.running = 0
        self.held = 0  # bytes in the `parts` of all calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        parts: list[bytes] = []
        try:
            return await self._limited(parts, scope, receive, self._observed(send))
        finally:
            self._drop(parts)

    async def _limited(
        self, parts: list[bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Read the body of a request into `parts`, and answer or refuse the request."""
        try:
            async with asyncio.timeout(self.body_seconds):
                status = await self._read(parts, receive)
        except TimeoutError:
            reason = f"the whole body of a request must arrive within {self.body_seconds:g} s"
            return await _refuse(send, 408, reason)
        if status is None:
            return None
        if status == 413:
            reason = f"a request must have at most {self.max_bytes} bytes; send fewer images"
            return await _refuse(send, status, reason)
        if status == 503:
            reason = f"other requests hold most of the {self.max_held} bytes for bodies; retry"
            return await _refuse(send, status, reason)
        body = b"".join(parts)
        parts[:] = [body]
        if scope["method"] == "GET":  # a busy server still answers health checks and metrics
            return await self._answer(scope, body, receive, send)
        if self.running >= self.max_requests:
            reason = f"the server is answering {self.running} other requests; retry"
            return await _refuse(send, 503, reason)
        self.running += 1
        try:
            return await self._answer(scope, body, receive, send)
        finally:
            self.running -= 1

    def _observed(self, send: Send) -> Send:
        """Return a function that sends messages and reports their status codes to `observe`."""

        async def observed(message: Message) -> None:
            if self.observe is not None and message["type"] == "http.response.start":
                status = message["status"]
                assert isinstance(status, int)
                self.observe(status)
            await send(message)

        return observed

    async def _read(self, parts: list[bytes], receive: Receive) -> int | None:
        """Read the body of a request into `parts`, and count its bytes in `held`.

        Beyond a limit, all parts are dropped.

        Returns:
            The status code: 200, or 413 or 503 beyond a limit. `None` if the client disconnects.
        """
        status, size, more = 200, 0, True
        while more:  # read to the end: a client reads the answer only after it has sent everything
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part, more = message.get("body", b""), bool(message.get("more_body"))
            assert isinstance(part, bytes)
            size += len(part)
            if size > self.max_bytes:
                status = 413
            elif self.held + len(part) > self.max_held:
                status = 503
            if status == 200:
                parts.append(part)
                self.held += len(part)
            else:
                self._drop(parts)
        return status

    def _drop(self, parts: list[bytes]) -> None:
        self.held -= sum(map(len, parts))
        parts.clear()

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application on a request. Cancel the request if the client disconnects."""
        if not _is_binary(scope):
            try:
                if len(body) <= INLINE_BYTES:  # so health checks never wait for a thread
                    check_json(body)
                else:
                    await asyncio.to_thread(check_json, body)
            except ValueError as error:
                return await _refuse(send, 400, str(error))
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.ensure_future(receive())

        async def again() -> Message:
            return messages.pop() if messages else await asyncio.shield(gone)

        answering = asyncio.ensure_future(self.app(scope, again, send))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                return answering.result()
            answering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answering
        finally:
            gone.cancel()
            answering.cancel()
        return None


def _is_binary(scope: Scope) -> bool:
    """Return whether a body is an image file, or JSON that is followed by binary tensors.

    For binary tensors, `read_v2` checks the JSON.
    """
    names = {name for name, _ in scope["headers"]}
    is_v2 = scope["path"].startswith("/v2/")
    return scope["path"] == PICTURE_PATH or (is_v2 and b"inference-header-content-length" in names)


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": reason}).encode()})
