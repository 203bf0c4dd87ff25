"""A hub on this machine that takes uploads: what its library asks when it makes a commit."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secret"


class UploadHub:
    """Repositories by name: whether they are private, and the files of each branch."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.private: dict[str, Any] = {}
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.messages: list[str] = []
        self.refused: dict[str, int] = {}  # parts of paths -> the status that answers them
        self._large: dict[str, bytes] = {}

    def answer(self, path: str, body: bytes) -> Any:
        """Return what the hub answers to a request that it grants."""
        if path.startswith("/large/"):
            self._large[path.removeprefix("/large/")] = body
            return {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization', 'me')}/{asked['name']}"
            # From version 2 of its library on, "visibility" stands for "private".
            private = asked.get("private") or asked.get("visibility") == "private"
            self.private.setdefault(repo, private)
            return {"url": f"{self.url}/{repo}"}
        if path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = {one["oid"]: {"href": f"{self.url}/large/{one['oid']}"} for one in objects}
            return {"objects": [{**x, "actions": {"upload": upload[x["oid"]]}} for x in objects]}
        if path.startswith("/api/models/") and "/preupload/" in path:
            return {"files": [_mode(one["path"]) for one in json.loads(body)["files"]]}
        if found := re.match(r"/api/models/([^/]+/[^/]+)/commit/([^?]+)", path):
            self._commit(found[1], found[2], [json.loads(line) for line in body.splitlines()])
            return {"commitUrl": f"{self.url}/{found[1]}/commit/0", "commitOid": "0"}
        return {"id": path.removeprefix("/api/models/")}

    def _commit(self, repo: str, branch: str, lines: list[dict[str, Any]]) -> None:
        files = self.files.setdefault((repo, branch), {})
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self._large[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])


def _mode(path: str) -> dict[str, Any]:
    large = path.endswith((".safetensors", ".bin"))
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}


@contextmanager
def taking_uploads() -> Iterator[UploadHub]:
    """Run such a hub on a free port while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            refused = [code for part, code in hub.refused.items() if part in self.path]
            owned = self.path.startswith("/large/")  # a signed address: it takes no token
            if not owned and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                refused.append(401)
            if self.command == "GET":  # is there such a repository?
                refused += [] if self.path.removeprefix("/api/models/") in hub.private else [404]
            status = refused[0] if refused else 200
            answer = {"error": "no"} if refused else hub.answer(self.path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(data)

        do_PUT = do_GET = do_POST  # noqa: N815 - names that the base class looks up

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        hub = UploadHub(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            http.shutdown()
            thread.join()
