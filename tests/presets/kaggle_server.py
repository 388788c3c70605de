"""A server on loopback that speaks the protocol of Kaggle's models, for its real library."""

import http.server
import json
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        self.server.log.append((self.path, dict(self.headers)))
        if self.server.status != 200:
            error = {"code": self.server.status, "message": "refused"}
            return self.send(self.server.status, json.dumps(error).encode())
        verb = self.path.rpartition("/")[2]
        if verb == "StartBlobUpload":
            name = body["name"]
            answer = {"token": name, "createUrl": f"{self.server.address}/blobs/{name}"}
            return self.send(200, json.dumps(answer).encode())
        if verb == "CreateModelInstance":
            place = "/".join((body["ownerSlug"], body["modelSlug"], body["body"]["instanceSlug"]))
            tokens = [file["token"] for file in body["body"]["files"]]
            self.server.models[place] = {token: self.server.blobs[token] for token in tokens}
            return self.send(200, b'{"id": 1, "ref": "", "url": ""}')
        if verb == "GetModel":
            return self.send(200, b'{"id": 1}')
        place = "/".join((body["ownerSlug"], body["modelSlug"], body["instanceSlug"]))
        files = self.server.models.get(place)
        if files is None:
            return self.send(404, b'{"code": 404, "message": "not found"}')
        if verb == "GetModelInstance":
            return self.send(200, b'{"id": 1, "versionNumber": 1}')
        if verb == "ListModelInstanceVersionFiles":
            answer = {"files": [{"name": name} for name in files], "nextPageToken": ""}
            return self.send(200, json.dumps(answer).encode())
        content = files[body["path"]]
        if self.server.breaks > 0 and body["path"].endswith(".safetensors"):
            self.server.breaks -= 1
            self.close_connection = True
            return self.send(200, content[: len(content) // 2], "application/x", len(content))
        return self.send(200, content, "application/octet-stream")

    def do_PUT(self):
        name = self.path.rpartition("/")[2]
        self.server.blobs[name] = self.rfile.read(int(self.headers["Content-Length"]))
        return self.send(200, b"{}")

    def send(self, status, content, kind="application/json", length=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


class Kaggle(http.server.ThreadingHTTPServer):
    """The server; `models` are `"owner/model/variation"` to names and contents of files."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.models, self.blobs, self.log, self.status, self.breaks = {}, {}, [], 200, 0

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()
