"""A stopping server answers its open requests and ends with status 0."""

import asyncio
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest

pytest.importorskip("kserve", reason="the server is KServe")

pytestmark = pytest.mark.once("tensorflow")

PROGRAM = """
import asyncio, sys, threading
from types import SimpleNamespace

import kserve
import numpy as np
from keras_tokenlearner.serving.kserve_server import run

class Slow(kserve.Model):
    async def predict(self, payload, headers=None, response_headers=None):
        print("begun", flush=True)
        await asyncio.sleep(1.5)
        if not isinstance(payload, kserve.InferRequest):
            return {"predictions": [1]}
        output = kserve.InferOutput("y", [1], "FP32")
        output.set_data_from_numpy(np.ones(1, "float32"), binary_data=True)
        return kserve.InferResponse("", "slow", [output])

class Current:  # one version, without a successor
    now = SimpleNamespace(answers_for=lambda version: True)

    def __init__(self):
        self.stopping = threading.Event()

    def warm_up(self):
        if sys.argv[3:] == ["warm"]:
            print("warming up", flush=True)
            assert self.stopping.wait(60)
        if sys.argv[3:] == ["broken"]:
            raise MemoryError("no memory for the warm-up")

    async def follow(self):
        await asyncio.Event().wait()

for _ in range(2 if sys.argv[3:] == ["warm"] else 1):
    asyncio.run(run(Slow("slow"), Current(), "127.0.0.1", int(sys.argv[1]), int(sys.argv[2])))
"""


def start(port, grpc_port, *options):
    """Start a server, and stop it after 200 seconds, so that no test waits for its output."""
    command = [sys.executable, "-c", PROGRAM, str(port), str(grpc_port), *options]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    limit = threading.Timer(200, process.kill)
    limit.daemon = True
    limit.start()
    return process


def read_until(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError("".join(lines) + process.stderr.read())


def test_sigterm_lets_running_requests_finish_and_a_taken_grpc_port_raises():
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as protocol

    from keras_tokenlearner.serving.grpc_server import start_grpc
    from keras_tokenlearner.serving.local import _free_ports

    ports = _free_ports(2)
    process = start(*ports)
    try:
        read_until(process, "over gRPC")
        with pytest.raises(OSError, match=f"grpc_port={ports[1]}"):
            asyncio.run(start_grpc(None, None, "127.0.0.1", ports[1]))
        statuses = []

        def post():
            url = f"http://127.0.0.1:{ports[0]}/v1/models/slow:predict"
            with urllib.request.urlopen(url, b'{"instances": [1]}', timeout=200) as answer:
                statuses.append(answer.status)

        with grpc.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
            stub = protocol.GRPCInferenceServiceStub(channel)
            field = {"name": "x", "shape": [1], "datatype": "FP32"}
            request = messages.ModelInferRequest(
                model_name="slow", inputs=[field | {"contents": {"fp32_contents": [1.0]}}]
            )
            calls = [stub.ModelInfer.future(request, timeout=200) for _ in range(6)]
            clients = [threading.Thread(target=post) for _ in range(2)]
            for client in clients:
                client.start()
            for _ in range(8):
                read_until(process, "begun")
            process.send_signal(signal.SIGTERM)
            names = [call.result().outputs[0].name for call in calls]
            for client in clients:
                client.join(200)
        assert names == ["y"] * 6
        assert statuses == [200, 200]
        assert process.wait(200) == 0
    finally:
        process.kill()
        process.wait()


def test_sigterm_during_the_warm_up_stops_the_server_and_the_next_server_of_the_process():
    from keras_tokenlearner.serving.local import _free_ports

    process = start(*_free_ports(2), "warm")
    try:
        for _ in range(2):
            read_until(process, "warming up")
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_server_whose_warm_up_fails_exits_with_the_error():
    from keras_tokenlearner.serving.local import _free_ports

    process = start(*_free_ports(2), "broken")
    try:
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode != 0 and "no memory for the warm-up" in errors
