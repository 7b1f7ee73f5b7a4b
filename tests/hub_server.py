"""Enough of Hugging Face's and Kaggle's APIs to fetch one data set, on 127.0.0.1."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the hub has, how it misbehaves, and what it was asked.

    Attributes:
        files: content of the Hugging Face repository, by path.
        archive: what Kaggle sends.
        refuses: the status that every request gets.
        damages: paths whose content is sent with one byte changed.
        stalls: paths of which half is sent, and then nothing for as long as `released` is not set.
        cuts: whether Kaggle's archive ends in the middle, the connection closed.
        inflates: paths whose size is said to be a million terabytes.
    """

    files: dict[str, bytes]
    archive: bytes = b""
    refuses: int | None = None
    damages: set[str] = field(default_factory=set)
    stalls: set[str] = field(default_factory=set)
    cuts: bool = False
    inflates: set[str] = field(default_factory=set)
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def fetched(self) -> list[str]:
        """The files and byte ranges that were sent, in order."""
        return [line for line in self.asked if line.startswith("GET ") and "/api/" not in line]

    def size(self, path: str) -> int:
        return 10**18 if path in self.inflates else len(self.files[path])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked has gone away, or was killed."""


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    with _Server(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.released.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer()

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        ranged = self.headers.get("Range", "")
        self.hub.asked.append(" ".join(filter(None, (self.command, path, ranged))))
        if self.hub.refuses is not None:
            self.send(self.hub.refuses, b"{}", **{"Content-Type": "application/json"})
        elif path.startswith("/api/datasets/") and "/tree/" in path:
            self.send_json([self.entry(name) for name in self.hub.files])
        elif path.startswith("/api/datasets/"):
            self.send_json({"id": "some/cars", "sha": REVISION, "tags": [], "siblings": []})
        elif "/resolve/" in path:
            self.send_file(path.partition(f"/resolve/{REVISION}/")[2])
        elif path.endswith("/GetDataset"):
            self.send_json({"currentVersionNumber": 3})
        elif path.endswith("/DownloadDataset"):
            self.send(302, b"", Location=f"{self.hub.url}/storage/archive")
        elif path == "/storage/archive":
            self.send_archive(int(ranged.partition("=")[2].partition("-")[0] or 0))
        else:
            self.send(404, b"{}", **{"Content-Type": "application/json"})

    def entry(self, name: str) -> dict[str, object]:
        content, size = self.hub.files[name], self.hub.size(name)
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": blob}
        if name.endswith(".parquet"):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 134}
        return entry

    def send_file(self, name: str) -> None:
        content = self.hub.files.get(name)
        if content is None:
            self.send(404, b"", **{"X-Error-Code": "EntryNotFound"})
            return
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": REVISION,
            "Content-Type": "application/octet-stream",
        }
        if name in self.hub.damages:
            content = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
        self.send(
            200, content, length=self.hub.size(name), stall=name in self.hub.stalls, **headers
        )

    def send_archive(self, start: int) -> None:
        whole = self.hub.archive
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Type": "application/zip",
            "x-goog-hash": "md5=" + base64.b64encode(hashlib.md5(whole).digest()).decode(),
        }
        if "archive" in self.hub.damages:
            whole = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
        self.send(206 if start else 200, whole[start:], cut=self.hub.cuts, **headers)

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def send(
        self,
        status: int,
        content: bytes,
        *,
        length: int | None = None,
        stall: bool = False,
        cut: bool = False,
        **headers: str,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command == "HEAD":
            return
        # Who asked may have gone away, or been killed.
        with contextlib.suppress(ConnectionError):
            if stall or cut:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self.close_connection = True
                if stall:
                    self.hub.released.wait(60)
            else:
                self.wfile.write(content)
