"""A loopback server with the protocol of Kaggle's models, for tests with `kagglehub`."""

import json

from tests.presets import loopback


class Handler(loopback.Handler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        self.server.log.append((self.path, dict(self.headers)))
        if self.server.status != 200:
            error = {"code": self.server.status, "message": "refused"}
            return self.send(self.server.status, error)
        verb = self.path.rpartition("/")[2]
        if verb == "StartBlobUpload":
            name = body["name"]
            answer = {"token": name, "createUrl": f"{self.server.address}/blobs/{name}"}
            return self.send(200, answer)
        if verb == "CreateModelInstance":
            place = "/".join((body["ownerSlug"], body["modelSlug"], body["body"]["instanceSlug"]))
            tokens = [file["token"] for file in body["body"]["files"]]
            self.server.models[place] = {token: self.server.blobs[token] for token in tokens}
            return self.send(200, {"id": 1, "ref": "", "url": ""})
        if verb == "GetModel":
            return self.send(200, {"id": 1})
        place = "/".join((body["ownerSlug"], body["modelSlug"], body["instanceSlug"]))
        files = self.server.models.get(place)
        if files is None:
            return self.send(404, {"code": 404, "message": "not found"})
        if verb == "GetModelInstance":
            return self.send(200, {"id": 1, "versionNumber": 1})
        if verb == "ListModelInstanceVersionFiles":
            answer = {"files": [{"name": name} for name in files], "nextPageToken": ""}
            return self.send(200, answer)
        content, kind = files[body["path"]], {"Content-Type": "application/octet-stream"}
        if self.server.breaks > 0 and body["path"].endswith(".safetensors"):
            self.server.breaks -= 1
            self.close_connection = True
            return self.send(200, content[: len(content) // 2], kind, len(content))
        return self.send(200, content, kind)

    def do_PUT(self):
        name = self.path.rpartition("/")[2]
        self.server.blobs[name] = self.rfile.read(int(self.headers["Content-Length"]))
        return self.send(200, {})


class Kaggle(loopback.Server):
    """The server. `models` maps `"owner/model/variation"` to the names and contents of files."""

    def __init__(self):
        super().__init__(Handler)
        self.models, self.blobs, self.status = {}, {}, 200
