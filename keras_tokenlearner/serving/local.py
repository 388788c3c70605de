import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keras_tokenlearner._extras import require
from keras_tokenlearner._json import JSON
from keras_tokenlearner.serving.serve import default_name
from keras_tokenlearner.serving.versions import newest_version

SECONDS = 300  # time to start on a busy machine
ASK_SECONDS = 150  # time to answer, longer than the server's own limit
EXIT_SECONDS = 40  # time to exit after SIGTERM, longer than the server's own limit
# Without the proxies of the environment: they would also get the requests to 127.0.0.1.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class LocalServer:
    """A running server for a model, on this machine.

    Attributes:
        name: Name of the model in URLs.
        port: HTTP port.
        grpc_port: gRPC port.
        pid: Process id.
    """

    name: str
    port: int
    grpc_port: int
    pid: int

    def ask(
        self, path: str, body: bytes | JSON = None, **headers: str
    ) -> tuple[int, dict[str, JSON]]:
        """Send a GET, or a POST if `body` is passed. Return the status code and JSON of the answer.

        Args:
            path: Path of the URL.
            body: Bytes, or values to encode as JSON.
            **headers: Headers of the request.
        """
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers)
        try:
            with _OPENER.open(request, timeout=ASK_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextlib.contextmanager
def local_server(path: str | os.PathLike[str], *options: str) -> Iterator[LocalServer]:
    """Run `keras-tokenlearner serve` in another process while the context lasts.

    Args:
        path: Path of an exported model, the argument of `serve`.
        *options: Options of the command `keras-tokenlearner serve`.

    Yields:
        A `LocalServer` that is ready.

    Raises:
        RuntimeError: If the server does not start; the message contains its output.
        ImportError: If kserve, the extra `serve`, is not installed.
    """
    require("kserve", "serve")
    name = urllib.parse.quote(default_name(newest_version(Path(path)) or path), safe="")
    port, grpc_port = _free_ports(2)
    # -P: code in the current folder must not replace a library.
    command = [sys.executable, "-P", "-m", "keras_tokenlearner.cli", "serve", str(path), *options]
    command += ["--port", str(port), "--grpc-port", str(grpc_port)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        server = LocalServer(name, port, grpc_port, process.pid)
        try:
            end = time.monotonic() + SECONDS
            while not _is_ready(server):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise RuntimeError(
                        "local_server: the server did not start; its output ends with:\n"
                        + log.read()[-2000:]
                    )
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _is_ready(server: LocalServer) -> bool:
    try:
        return server.ask("/v2/health/ready")[0] == 200
    except OSError:
        return False
