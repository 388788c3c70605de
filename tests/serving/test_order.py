"""The order in which the real server answers: a held request delays no other request."""

import base64
import concurrent.futures
import json
import queue
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.serving.answers import JPEG, b64, check, encode
from tests.serving.server import Server

pytest.importorskip("tensorflow", reason="SavedModels are TensorFlow's")
pytest.importorskip("kserve", reason="the server is KServe")

from keras_tokenlearner.serving.local import _free_ports, _is_ready  # noqa: E402

pytestmark = pytest.mark.once("tensorflow")

# Serves a model. The line "hold MODULE:NAME LENGTH" names a function. The next call of the function
# with a first argument of at least LENGTH items waits for the line "go".
PROGRAM = """
import importlib, sys, threading

path, port, grpc_port = sys.argv[1:]
go = threading.Event()

def hold(place, least):
    module, _, name = place.partition(":")
    owner = importlib.import_module(module)
    function = getattr(owner, name)

    def held(*arguments, **options):
        if len(arguments[0]) >= least:
            setattr(owner, name, function)
            print("held", flush=True)
            go.wait(300)
        return function(*arguments, **options)

    go.clear()
    setattr(owner, name, held)
    print("armed", flush=True)

def obey():
    for line in sys.stdin:
        order, *words = line.split()
        if order == "hold":
            hold(words[0], int(words[1]))
        elif order == "go":
            go.set()
        else:
            print("said", flush=True)

threading.Thread(target=obey, daemon=True).start()

from keras_tokenlearner.serving import batching, serve

answer = batching.Batcher.answer

async def seen(self, *arguments):
    print("queued", flush=True)
    try:
        return await answer(self, *arguments)
    except BaseException as error:
        print("dropped", type(error).__name__, flush=True)
        raise

batching.Batcher.answer = seen
work = batching.Batcher._try

async def batch(self, key, rows, futures):
    print("batch of", len(rows), flush=True)
    return await work(self, key, rows, futures)

batching.Batcher._try = batch
serve(path, port=int(port), grpc_port=int(grpc_port), warm_up=False)
"""


class Held(Server):
    """A server that holds a request, and the lines that it prints."""

    def until(self, text):
        """Wait until the server prints a line with a text, and return the lines before it."""
        lines = []
        while True:
            try:
                line = self.lines.get(timeout=120)
            except queue.Empty:
                pytest.fail(f"the server did not print {text!r}, but {lines}")
            if text in line:
                return lines
            lines.append(line)

    def hold(self, place, least=1):
        """Hold the next call of a function whose first argument has at least `least` items."""
        self._say(f"hold {place} {least}")
        self.until("armed")

    def release(self):
        self._say("go")

    def said(self):
        """Return all lines that the server printed since the last wait."""
        self._say("say")
        return self.until("said")

    def _say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def holding(exported_pico):
    """The model, and a server of it that holds calls."""
    model, folder = exported_pico
    port, grpc_port = _free_ports(2)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(port), str(grpc_port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    server = Held("pico", port, grpc_port, process.pid)
    server.process, server.lines = process, queue.Queue()
    reader = threading.Thread(target=lambda: [*map(server.lines.put, process.stdout)], daemon=True)
    reader.start()
    try:
        end = time.monotonic() + 300
        while not _is_ready(server):
            assert process.poll() is None and time.monotonic() < end, [*server.lines.queue]
            time.sleep(0.1)
        yield model, server
    finally:
        process.kill()
        process.wait()


NOISE = encode(np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype("uint8"), "PNG")
SERVING = "keras_tokenlearner.serving"
FIELD = {"name": "encoded", "shape": [1], "datatype": "BYTES"}


def ask_v1(server):
    return server.v1({"instances": [b64(NOISE)]})[0]


def ask_v2(server):
    data = base64.b64encode(NOISE).decode()
    return server.v2({"inputs": [FIELD | {"data": [data]}]})[0]


def ask_grpc(server):
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as protocol

    raw = struct.pack("<I", len(NOISE)) + NOISE
    request = messages.ModelInferRequest(
        model_name=server.name, inputs=[FIELD], raw_input_contents=[raw]
    )
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = protocol.GRPCInferenceServiceStub(channel)
        return 200 if stub.ModelInfer(request, timeout=200).outputs else 0


@pytest.mark.parametrize(
    ("ask", "place", "least"),
    [
        (ask_v1, "guard:check_json", 2**16),
        (ask_v1, "payloads:v1_body", 1),
        (ask_v1, "payloads:v1_request", 1),
        (ask_v2, "kserve_server:read_v2", 1),
        (ask_grpc, "grpc_server:read_grpc", 2**16),
        (ask_v1, "served_model:decode_image", 2**16),
    ],
)
def test_large_valid_request_paused_in_any_step_does_not_block_other_requests(
    holding, ask, place, least
):
    """A step on the event loop would delay all other requests until it ends."""
    model, server = holding
    server.hold(f"{SERVING}.{place}", least)
    with concurrent.futures.ThreadPoolExecutor(1) as client:
        large = client.submit(ask, server)
        try:
            server.until("held")
            assert server.ask("/v2/health/live")[0] == 200
            check(model, server.v1({"instances": [b64(JPEG)]})[1]["predictions"][0])
            assert not large.done()
        finally:
            server.release()
        assert large.result() == 200


def test_queued_request_of_a_disconnected_client_never_runs(holding):
    """The model works on another request while a client sends its own and closes its socket."""
    _, server = holding
    good = {"instances": [b64(JPEG)]}
    body = json.dumps(good).encode()
    head = "POST /v1/models/pico:predict HTTP/1.1\r\nHost: x\r\n"
    server.hold(f"{SERVING}.served_model:require")  # the first call in the model's thread
    with concurrent.futures.ThreadPoolExecutor(1) as client:
        first = client.submit(server.v1, good)
        try:
            server.until("held")
            with socket.create_connection(("127.0.0.1", server.port)) as leaving:
                leaving.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                server.until("queued")
            server.until("dropped CancelledError")
        finally:
            server.release()
        assert first.result()[0] == 200
    assert server.v1(good)[0] == 200
    batches = [line for line in server.said() if "batch" in line]
    assert batches == ["batch of 1\n"]  # the last request alone
