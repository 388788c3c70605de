"""The request guard limits size, time and nesting of requests before the server parses them."""

import asyncio
import json
import socket
import time

import pytest

from keras_tokenlearner.serving import guard, kserve_server
from keras_tokenlearner.serving.guard import Guard, check_json

pytestmark = pytest.mark.once("tensorflow")

SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": []}
BINARY = [(b"inference-header-content-length", b"1")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" + b"[]," * 10_000_000 + b"[]]", "10000002 lists"),
        (b"[" + b"1," * 5_000_000 + b"1]", "values"),
        (b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}", "501"),
    ],
    ids=["many lists", "many values", "deep lists"],
)
def test_check_json_of_deep_or_long_bodies_raises(body, reason):
    start = time.monotonic()
    with pytest.raises(ValueError, match=reason):
        check_json(body)
    assert time.monotonic() - start < 10  # parsing the first body takes 44 s and 2 GB


def test_check_json_accepts_an_image_and_plain_text():
    check_json(json.dumps({"instances": [[[[1, 2, 3]] * 224] * 224] * 4}).encode())
    check_json(b"")
    check_json(b"]]}}")


def run(app, parts, scope=SCOPE, **limits):
    """Return the messages that a guarded application sends to a client that sends some parts.

    A part is the bytes of a body, seconds to wait, or `None` if the client disconnects.
    """
    sent, waiting = [], list(parts)

    async def receive():
        while waiting and isinstance(waiting[0], float):
            await asyncio.sleep(waiting.pop(0))
        if not waiting:
            await asyncio.sleep(30)
        part = waiting.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        more = any(isinstance(left, bytes) for left in waiting)
        return {"type": "http.request", "body": part, "more_body": more}

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app, **limits)(scope, receive, send))
    return sent


async def echo(scope, receive, send):
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def test_request_guard_passes_a_body_within_the_limits_unchanged():
    assert run(echo, [b"[1,", b"2]"])[1]["body"] == b"[1,2]"


@pytest.mark.parametrize(
    ("parts", "limits", "status"),
    [
        ([b"x" * 60, b"x" * 60], {"max_bytes": 100}, 413),
        ([b"[1,", 1.0, b"2]"], {"body_seconds": 0.05}, 408),
        ([b"[" * 100], {}, 400),
        ([b"[]"], {"max_requests": 0}, 503),
        ([b"x" * 60, b"x" * 60, b""], {"max_held": 100}, 503),
        ([b"x" * 60, b"x" * 60, b"x" * 60], {"max_held": 100, "max_bytes": 150}, 413),
    ],
    ids=["large body", "slow body", "deep body", "busy server", "full memory", "both sizes"],
)
def test_request_guard_refuses_a_request_beyond_a_limit_with_its_status(parts, limits, status):
    sent = run(echo, parts, **limits)
    assert sent[0]["status"] == status
    assert list(json.loads(sent[1]["body"])) == ["error"]


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/models/pets:predict", 400), ("/v2/models/pets/infer", 200)]
)
def test_request_guard_checks_v1_bodies_that_have_the_header_of_binary_tensors(path, status):
    """Only V2 has binary tensors. In V1, the header must not turn off the check."""
    sent = run(echo, [b"[" * 100], SCOPE | {"path": path, "headers": BINARY})
    assert sent[0]["status"] == status


def test_request_guard_of_a_busy_server_answers_health_checks():
    sent = run(echo, [b""], SCOPE | {"method": "GET", "path": "/v2/health/live"}, max_requests=0)
    assert sent[0]["status"] == 200


def test_request_guard_cancels_the_request_of_a_disconnected_client():
    ended = []

    async def slow(scope, receive, send):
        try:
            await asyncio.sleep(20)
        finally:
            ended.append(time.monotonic() - start)

    start = time.monotonic()
    assert run(slow, [b"[]", 0.05, None]) == []
    assert len(ended) == 1 and ended[0] < 10


def test_request_guard_waiting_for_a_body_lets_other_requests_through():
    async def both():
        guarded = Guard(echo, max_requests=1)
        sent = []

        async def never():
            await asyncio.sleep(30)

        async def receive():
            return {"type": "http.request", "body": b"1"}

        async def send(message):
            sent.append(message)

        slow = asyncio.create_task(guarded(SCOPE, never, send))
        await asyncio.sleep(0)
        await asyncio.wait_for(guarded(SCOPE, receive, send), 10)
        slow.cancel()
        return sent

    assert asyncio.run(both())[0]["status"] == 200


@pytest.mark.parametrize("end", ["body", "disconnect", "cancel"])
def test_request_guard_counts_bytes_of_a_body_from_its_arrival_to_the_end_of_its_request(end):
    """The first body fills 60 of 100 bytes, while it arrives and while it is answered."""

    async def ask():
        answering = asyncio.Event()

        async def slow(scope, receive, send):
            if (await receive())["body"].startswith(b"x" * 60):
                await answering.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        guarded, rest = Guard(slow, max_held=100), asyncio.Queue()

        def request(messages, method="POST"):
            sent = []

            async def send(message):
                sent.append(message)

            call = guarded(SCOPE | {"method": method}, messages.get, send)
            return sent, asyncio.create_task(call)

        async def status(size, method="POST"):
            messages = asyncio.Queue()
            messages.put_nowait({"type": "http.request", "body": b"y" * size})
            sent, asked = request(messages, method)
            await asyncio.wait_for(asked, 10)
            return sent[0]["status"]

        rest.put_nowait({"type": "http.request", "body": b"x" * 60, "more_body": True})
        _, first = request(rest)
        await asyncio.sleep(0.01)
        found = [guarded.held, await status(50), await status(40), await status(0, "GET")]
        if end == "cancel":
            first.cancel()
        elif end == "disconnect":
            rest.put_nowait({"type": "http.disconnect"})
        else:
            rest.put_nowait({"type": "http.request", "body": b"x" * 10})
            await asyncio.sleep(0.01)
            assert (guarded.held, await status(40)) == (70, 503)
            answering.set()
        await asyncio.wait({first}, timeout=10)
        return [*found, guarded.held, await status(100)]

    assert asyncio.run(ask()) == [60, 503, 200, 200, 0, 200]


def test_server_closes_idle_and_slow_connections_and_answers_other_clients(monkeypatch):
    """Sockets that send nothing or half a header are closed. Other requests are answered."""
    uvicorn = pytest.importorskip("uvicorn", reason="the server is KServe")
    monkeypatch.setattr(kserve_server, "HEADER_SECONDS", 0.4)

    async def serve():
        with kserve_server._listen("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            server = kserve_server._server(uvicorn.Config(Guard(echo), log_config=None))
            running = asyncio.create_task(server.serve(sockets=[listener]))
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
            good, asking = await asyncio.open_connection("127.0.0.1", port)
            asking.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]")
            status = await asyncio.wait_for(good.readline(), 20)
            ends = [await asyncio.wait_for(one[0].read(), 20) for one in silent]
            ends.append(await asyncio.wait_for(reader.read(), 20))
            server.should_exit = True
            for _, one in [*silent, (reader, writer), (good, asking)]:
                one.close()
            await asyncio.wait_for(running, 20)
            return status, ends

    status, ends = asyncio.run(serve())
    assert b"200" in status
    assert ends == [b""] * 51


def attacked(attack, app=echo):
    """Run an attack over loopback. Return its result and another client's status line."""
    uvicorn = pytest.importorskip("uvicorn", reason="the server is KServe")

    async def serve():
        with kserve_server._listen("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            server = kserve_server._server(uvicorn.Config(Guard(app), log_config=None))
            running = asyncio.create_task(server.serve(sockets=[listener]))
            found = await asyncio.wait_for(attack(port), 60)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]")
            status = await asyncio.wait_for(reader.readline(), 60)
            server.should_exit = server.force_exit = True
            writer.close()
            await asyncio.wait_for(running, 60)
            return found, status

    return asyncio.run(serve())


ASK = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"


@pytest.mark.parametrize("before", [b"", ASK + b"1"], ids=["first request", "second request"])
@pytest.mark.parametrize(
    "start",
    [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n"],
    ids=["request line", "one header", "many headers"],
)
def test_server_closes_a_connection_whose_request_headers_never_end(start, before):
    """uvicorn alone stores headers of any size. A client can fill a gigabyte within seconds.

    The second request arrives while the server still answers the first.
    """

    async def slow(scope, receive, send):
        message = await receive()
        await asyncio.sleep(60 if message["body"] == b"1" else 0)
        await echo(scope, lambda: asyncio.sleep(0, message), send)

    async def attack(port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(before + start)
        sent, part = 0, (b"X: " + b"a" * 1000 + b"\r\n") * 60
        try:
            while sent < 30 * 2**20:
                writer.write(part if start.endswith(b"\n") else b"a" * len(part))
                await writer.drain()
                sent += len(part)
        except OSError:
            pass
        writer.close()
        return sent

    sent, status = attacked(attack, slow)
    assert b"200" in status
    assert sent < 20 * 2**20  # system buffers take some bytes after the close


def test_server_disconnects_a_client_that_never_reads_its_answer(monkeypatch):
    monkeypatch.setattr(kserve_server, "UNREAD_SECONDS", 0.3)
    ended = []

    async def large(scope, receive, send):
        message = await receive()
        size = 2 if message["body"] == b"[]" else 40 * 2**20
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * size})
        ended.append(size)

    async def attack(port):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")
            while not ended:
                await asyncio.sleep(0.05)
        return ended[0]

    found, status = attacked(attack, large)
    assert found == 40 * 2**20 and b"200" in status


@pytest.mark.parametrize("sent", [b"", b"P"], ids=["idle", "half a request"])
def test_server_closes_a_connection_whose_second_request_stays_incomplete(monkeypatch, sent):
    """The client is idle after an answer, or stops within the headers of the next request."""
    monkeypatch.setattr(kserve_server, "IDLE_SECONDS", 1 if not sent else 60)
    monkeypatch.setattr(kserve_server, "HEADER_SECONDS", 1 if sent else 60)

    async def attack(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]")
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        rest = await asyncio.wait_for(reader.read(), 4)  # uvicorn's own limit is 5 s
        writer.close()
        return answer, rest

    (answer, rest), status = attacked(attack)
    assert b"200" in answer and rest.startswith(b"2") and b"200" in status


def test_listening_on_a_taken_port_raises_os_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port={port}"):
            kserve_server._listen("127.0.0.1", port)


def test_server_limits_of_body_size_and_json_depth_equal_the_documented_limits():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    assert f"{guard.MAX_BYTES // 2**20} MiB" in page
    assert f"| bodies of all HTTP requests | {guard.MAX_HELD // 2**30} GiB" in page
    assert f"{guard.MAX_DEPTH} deep" in page
