"""A loopback server with the protocol of the Hugging Face hub, for tests with `huggingface_hub`."""

import base64
import hashlib
import json
import urllib.parse

from tests.presets import loopback

COMMIT = "a" * 40


class Handler(loopback.Handler):
    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer()

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.log.append((self.path, dict(self.headers)))
        if self.path == "/api/repos/create":
            if self.server.how == "read_only":
                return self.send(403, {"error": "read only"})
            name = json.loads(content)["name"]
            self.server.repos.setdefault(f"me/{name}", {})
            return self.send(200, {"url": f"{self.server.address}/me/{name}"})
        if self.path == "/api/validate-yaml":
            return self.send(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(content)["files"]
            answer = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False,
                       "oid": None} for f in files]  # fmt: skip
            return self.send(200, {"files": answer})
        if "/commit/" in self.path:
            repo = "/".join(self.path.split("/")[3:5])
            for line in content.splitlines():
                one = json.loads(line)
                if one["key"] == "deletedFile":
                    del self.server.repos[repo][one["value"]["path"]]
                if one["key"] == "file":
                    value = base64.b64decode(one["value"]["content"])
                    self.server.repos.setdefault(repo, {})[one["value"]["path"]] = value
            url = f"{self.server.address}/{repo}/commit/{COMMIT}"
            return self.send(200, {"commitUrl": url, "commitOid": COMMIT, "success": True})
        return self.send(404, {})

    def answer(self, body=True):
        self.server.log.append((self.path, dict(self.headers)))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        if self.server.how == "gated":
            return self.send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        if parts[:2] == ["api", "models"]:
            repo = "/".join(parts[2:4])
            if repo not in self.server.repos:
                return self.send(404, {}, {"X-Error-Code": "RepoNotFound"})
            if parts[4:5] == ["tree"]:
                tree = [{"type": "file", "path": name, "oid": COMMIT, "size": len(content)}
                        for name, content in self.server.repos[repo].items()]  # fmt: skip
                return self.send(200, json.dumps(tree).encode())
            files = [{"rfilename": name} for name in self.server.repos[repo]]
            return self.send(200, {"id": repo, "sha": COMMIT, "siblings": files})
        if path.startswith("/api/whoami"):
            return self.send(200, {"name": "me", "type": "user", "orgs": []})
        if len(parts) < 5 or parts[2] != "resolve":
            return self.send(404, {})
        repo, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if repo not in self.server.repos:
            return self.send(404, {}, {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", "v1", COMMIT):
            return self.send(404, {}, {"X-Error-Code": "RevisionNotFound"})
        headers = {"X-Repo-Commit": COMMIT}
        content = self.server.repos[repo].get(name)
        if content is None:
            return self.send(404, {}, headers | {"X-Error-Code": "EntryNotFound"})
        headers |= {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]
        whole, start = content, int(start or 0)
        content = content[start:]
        status = 206 if "Range" in self.headers else 200
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        breaks = body and self.server.how == "broken" and name.endswith(".safetensors")
        if breaks and self.server.breaks > 0:
            self.server.breaks -= 1
            self.send(status, content[: len(content) // 2], headers, length=len(content))
            self.close_connection = True
            return None
        return self.send(status, content if body else b"", headers, length=len(content))


class Hub(loopback.Server):
    """The server. `repos` maps each repository to the names and contents of its files."""

    def __init__(self):
        super().__init__(Handler)
        self.repos, self.how = {}, "right"
