"""A local HTTP server that serves files and, on demand, misbehaves; it can imitate the hub."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one GET; all of it at once, if need be."""

    status: int | None = None  # this answer in place of the file
    headers: dict[str, str | None] = field(default_factory=dict)  # None leaves one out
    break_after: int | None = None  # bytes of the body, then the connection is closed
    longer: int = 0  # how much more (or less) Content-Length promises than comes
    ignore_range: bool = False
    pause: float = 0  # seconds between two pieces of the body
    stall_after: int | None = None  # bytes, then nothing more comes for a while
    raw: bytes | None = None  # instead of all this: what comes over the wire, head and body


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    headers: dict[str, str]


class Server:
    """Files by path, faults for the next GETs in turn, and what was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.faults: list[Fault] = []
        self.always = Fault()
        self.broken: dict[str, int] = {}  # paths that are answered with a status only, also HEAD
        self.requests: list[Request] = []
        self.released = threading.Event()  # ends all stalling

    def add(self, path: str, body: bytes, **headers: str) -> str:
        """Serve ``body``; return its URL."""
        self.files[path] = body
        etag = '"' + hashlib.sha256(body).hexdigest()[:16] + '"'
        self.headers[path] = {"ETag": etag} | headers
        return self.url + path

    def add_hub_model(self, hub_id: str, files: dict[str, bytes]) -> None:
        """Serve a model as the hub does, under its branch and its commit."""
        for name, body in files.items():
            for revision in ("main", COMMIT):
                self.add(f"/{hub_id}/resolve/{revision}/{name}", body)

    def refuse_hub_model(self, hub_id: str, error: str) -> None:
        """Let nobody have that model any more."""
        for path, headers in self.headers.items():
            if path.startswith(f"/{hub_id}/"):
                self.broken[path] = 403
                headers["X-Error-Code"] = error

    def ranges(self) -> list[str | None]:
        """The Range of each GET."""
        return [one.headers.get("Range") for one in self.requests if one.method == "GET"]

    def fetched(self) -> list[str]:
        """The names of the hub's files that were asked for with GET."""
        paths = [one.path for one in self.requests if one.method == "GET"]
        return [path.rpartition("/")[2] for path in paths if "/resolve/" in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(Fault())

    def do_GET(self) -> None:
        served = self.served
        # The hub's library also asks for other things.
        fault = served.faults and unquote(self.path) in served.files
        self.answer(served.faults.pop(0) if fault else served.always)

    def answer(self, fault: Fault) -> None:
        served, path = self.served, unquote(self.path)
        served.requests.append(Request(self.command, path, dict(self.headers)))
        self.close_connection = True
        body, headers = served.files.get(path, b""), dict(served.headers.get(path, {}))
        status = fault.status or served.broken.get(path) or (200 if path in served.files else 404)
        hub = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/.+", path)
        if hub and status == 404:
            known = any(one.startswith(f"/{hub[1]}/") for one in served.files)
            headers["X-Error-Code"] = "EntryNotFound" if known else "RepoNotFound"
        if hub:
            headers["X-Repo-Commit"] = COMMIT
        if status == 200 and not fault.ignore_range:
            status, body = self.ranged(body, headers)
        length = len(body) + fault.longer
        if fault.raw is not None:
            self.send(fault.raw, fault)
            return
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(length)} | fault.headers).items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.send(body, fault)

    def ranged(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """The part of the body that Range names, if the file is still the one of If-Range."""
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        # A weak ETag (W/"...") never matches: it does not stand for the very same bytes.
        strong = condition is not None and not condition.startswith("W/")
        same = strong and condition in (headers.get("ETag"), headers.get("Last-Modified"))
        same = same or condition is None
        if not wanted or not same:
            return 200, body
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        if start >= len(body):
            headers["Content-Range"] = f"bytes */{len(body)}"
            return 416, b""
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return 206, body[start:]

    def send(self, body: bytes, fault: Fault) -> None:
        body = body[: fault.break_after]
        size = 1 << 14 if fault.pause else len(body)
        try:
            if fault.stall_after is not None:
                self.wfile.write(body[: fault.stall_after])
                self.wfile.flush()
                self.served.released.wait(30)
                return
            for start in range(0, len(body), size or 1):
                self.wfile.write(body[start : start + size])
                time.sleep(fault.pause)
        except OSError:
            pass  # the client has had enough


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of this machine, while the block runs."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        server = handler.served = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            http.shutdown()
            thread.join()
