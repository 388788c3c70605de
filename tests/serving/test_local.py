"""The client of a local server."""

import http.server
import threading

import pytest

from keras_tokenlearner.serving.local import LocalServer

pytestmark = pytest.mark.once("torch")


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"ready": true}')

    def log_message(self, *arguments):
        """Keep the output of the tests short."""


def test_local_server_client_ignores_the_proxy_of_the_environment(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("no_proxy", raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        local = LocalServer("pets", server.server_port, 0, 0)
        assert local.ask("/v2/health/ready") == (200, {"ready": True})
        thread.join(10)
