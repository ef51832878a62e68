"""A hub of one data set on this machine: what the hub's clients ask for, over HTTP, from a folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(name: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve `folder` as data set `name` at commit COMMIT; yields the endpoint and the paths that were asked for."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            api, files = f"/api/datasets/{name}", f"/datasets/{name}/resolve/{COMMIT}/"
            if path in (api, f"{api}/revision/{COMMIT}"):
                return self._json(_info(name, folder))
            if path.startswith(f"{api}/tree/{COMMIT}"):
                return self._json(_tree(folder, path.removeprefix(f"{api}/tree/{COMMIT}").strip("/")))
            if path.startswith(files) and (folder / path.removeprefix(files)).is_file():
                return self._file(folder / path.removeprefix(files))
            return self._nothing()

        do_HEAD = do_GET

        def _json(self, value: Any) -> None:
            self._send(json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _file(self, path: Path) -> None:
            body = path.read_bytes()
            self._send(body, {"ETag": f'"{_digest(body)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})

        def _nothing(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if name in self.path else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, body: bytes, headers: dict[str, str]) -> None:
            start, end = 0, len(body)
            if part := self.headers.get("Range"):
                first, _, last = part.removeprefix("bytes=").partition("-")
                start, end = int(first), min(end, int(last) + 1 if last else end)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")
            else:
                self.send_response(200)
            for key, value in {**headers, "Content-Length": str(end - start)}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[start:end])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def _digest(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def _info(name: str, folder: Path) -> dict[str, Any]:
    return {
        "_id": "0", "id": name, "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0,
        "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
        "siblings": [{"rfilename": e["path"]} for e in _tree(folder, "") if e["type"] == "file"],
    }  # fmt: skip


def _tree(folder: Path, under: str) -> list[dict[str, Any]]:
    """Files and folders below `under`, with sizes and git's object ids."""
    found = []
    for path in sorted((folder / under).rglob("*")):
        body = path.read_bytes() if path.is_file() else b""
        kind = "file" if path.is_file() else "directory"
        found.append({"type": kind, "path": path.relative_to(folder).as_posix(), "size": len(body), "oid": _digest(body)})
    return found
