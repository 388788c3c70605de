"""Runs `keras-tokenlearner serve` in a process of its own, and asks it over the loopback."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


class Server:
    """A served model.

    Attributes:
        name: Of the model.
        port: Of HTTP.
        grpc_port: Of gRPC.
        pid: Of the process.
    """

    def __init__(self, name, port, grpc_port, pid):
        self.name = name
        self.port = port
        self.grpc_port = grpc_port
        self.pid = pid

    def ask(self, path, body=None, **headers):
        """Return the status and the JSON of the answer to a GET, or to a POST of a body."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def v1(self, body, **headers):
        """Return the status and the JSON of the answer to a V1 request."""
        return self.ask(f"/v1/models/{self.name}:predict", body, **headers)

    def v2(self, body, **headers):
        """Return the status and the JSON of the answer to a V2 request."""
        return self.ask(f"/v2/models/{self.name}/infer", body, **headers)

    def peak_memory(self):
        """Return the most memory that the process has had, in MiB, or `None` if unknown."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.is_file():
            return None
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


@contextlib.contextmanager
def serving(path, log, *options):
    """Serve an exported model while the context lasts."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, grpc_port = one.getsockname()[1], other.getsockname()[1]
    command = [sys.executable, "-m", "keras_tokenlearner.cli", "serve", str(path)]
    ports = ["--port", str(port), "--grpc-port", str(grpc_port)]
    with open(log, "w") as output:
        process = subprocess.Popen([*command, *ports, *options], stdout=output, stderr=output)
    try:
        server = Server(Path(path).name, port, grpc_port, process.pid)
        for _ in range(600):
            with contextlib.suppress(OSError):
                if server.ask("/v2/health/ready")[0] == 200:
                    break
            assert process.poll() is None, Path(log).read_text()
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(30)
