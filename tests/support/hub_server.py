"""A server on loopback that speaks the hub's protocol for the files of data sets: commits, trees, ranges of files.

`huggingface_hub` pushes and reads through it, and `datasets` streams rows from it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_test_token_of_no_one"


@dataclass
class Repo:
    """private: needs the token. commits: files by path of each commit, the last one is the branch main.

    gated: nothing may be read; gated_files: all may look at it, and its files may not be read. names: tags and other
    branches, each with its commit.
    """

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False
    gated_files: bool = False
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit({})

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def named(self, revision: str) -> str:
        """The commit of a revision; one that there is not stays as it is."""
        return self.head if revision == "main" else self.names.get(revision, revision)

    def commit(self, files: dict[str, bytes]) -> str:
        number = str(len(self.commits))
        contents = [number, *(f"{path} {hashlib.sha256(data).hexdigest()}" for path, data in sorted(files.items()))]
        name = hashlib.sha1("\n".join(contents).encode(), usedforsecurity=False).hexdigest()
        self.commits[name] = files
        return name


class Hub(ThreadingHTTPServer):
    """repos: by name. asked: method, path and Range of each request. large: bytes from which files go through LFS.

    failing: of the next requests, so many are answered with 503. dies_after: hang up on every request once so many
    ranges of files were sent; None to go on.
    """

    daemon_threads = True

    def __init__(self, large: int = 2000) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.blobs: dict[str, bytes] = {}
        self.large = large
        self.failing = 0
        self.dies_after: int | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def hub_server() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *anything: Any) -> None:
        pass

    def _read(self) -> bytes:
        """What was sent: whole, or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json")

    def _missing(self, what: str) -> None:
        self._send(404, b"{}", X_Error_Code=what, Content_Type="application/json")

    def _repo(self, name: str) -> Repo | None:
        """A repository that the asker may read; None once the refusal was sent."""
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self._send(401, b"{}", X_Error_Code="RepoNotFound", Content_Type="application/json")
            return None
        if repo.gated:
            self._send(403, b"{}", X_Error_Code="GatedRepo", Content_Type="application/json")
            return None
        return repo

    def _handle(self) -> None:
        split = urlsplit(self.path)
        self.body = self._read()
        parts = unquote(split.path).strip("/").split("/")
        self.server.asked.append((self.command, unquote(split.path), self.headers.get("Range", "")))
        if self.server.dies_after is not None and self.server.dies_after <= 0:
            self.close_connection = True
            self.connection.close()
            return
        if self.server.failing:
            self.server.failing -= 1
            self._send(503)
            return
        if parts[:2] == ["api", "datasets"] and len(parts) == 4:
            self._api("/".join(parts[2:4]), "revision", [], {})
        elif parts[:2] == ["api", "datasets"] and len(parts) > 4:
            self._api("/".join(parts[2:4]), parts[4], parts[5:], parse_qs(split.query))
        elif parts[:3] == ["api", "repos", "create"]:
            self._create()
        elif parts[:2] == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[0] == "datasets" and parts[-3:] == ["lfs", "objects", "batch"]:
            self._batch()
        elif parts[0] == "lfs":
            self.server.blobs[parts[1]] = self.body
            self._send(200)
        elif parts[0] == "datasets" and parts[3:4] == ["resolve"]:
            self._resolve("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        else:
            self._send(404)

    do_GET = do_POST = do_PUT = do_HEAD = _handle

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "unauthorized"}, 401)
        elif name in self.server.repos:
            self._json({"error": "exists", "url": f"{self.server.endpoint}/datasets/{name}"}, 409)
        else:
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.server.repos[name] = Repo(private)
            self._json({"url": f"{self.server.endpoint}/datasets/{name}"})

    def _api(self, name: str, what: str, rest: list[str], query: dict[str, list[str]]) -> None:
        body, repo = self.body, self._repo(name)
        if repo is None:
            return
        revision = rest[0] if rest else "main"
        commit = repo.named(revision)
        if commit not in repo.commits:
            self._missing("RevisionNotFound")
            return
        files = repo.commits[commit]
        if what == "revision":
            self._json({"id": name, "sha": commit, "private": repo.private, "tags": [], "siblings": []})
        elif what == "tree":
            self._tree(files, "/".join(rest[1:]), query.get("recursive", ["False"])[0].lower() == "true")
        elif what == "paths-info":
            asked = parse_qs(body.decode())["paths"] if body[:1] != b"{" else json.loads(body)["paths"]
            self._json([_entry(path, files[path]) for path in asked if path in files])
        elif what == "preupload":
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] >= self.server.large else "regular"}
                for f in json.loads(body)["files"]
            ]
            self._json({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
        else:
            self._commit(name, repo, body)

    def _tree(self, files: dict[str, bytes], folder: str, recursive: bool) -> None:
        inside = [path for path in files if not folder or path.startswith(f"{folder}/")]
        if folder and not inside:
            self._missing("EntryNotFound")
            return
        found: dict[str, dict[str, Any]] = {}
        for path in inside:
            steps = path.removeprefix(f"{folder}/" if folder else "").split("/")
            for depth in range(1, len(steps)):
                if depth == 1 or recursive:
                    place = "/".join([*([folder] if folder else []), *steps[:depth]])
                    found[place] = {"type": "directory", "path": place, "oid": "0" * 40, "size": 0}
            if len(steps) == 1 or recursive:
                found[path] = _entry(path, files[path])
        self._json(list(found.values()))

    def _commit(self, name: str, repo: Repo, body: bytes) -> None:
        files = dict(repo.commits[repo.head])
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = repo.commit(files)
        url = f"{self.server.endpoint}/datasets/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _batch(self) -> None:
        asked = json.loads(self.body)["objects"]
        upload = [
            {**each, "actions": {"upload": {"href": f"{self.server.endpoint}/lfs/{each['oid']}"}}} for each in asked
        ]
        self._json({"transfer": "basic", "objects": upload})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name)
        if repo is None:
            return
        if repo.gated_files:
            self._send(403, b"{}", X_Error_Code="GatedRepo", Content_Type="application/json")
            return
        commit = repo.named(revision)
        if path not in repo.commits.get(commit, {}):
            self._missing("EntryNotFound")
            return
        data = repo.commits[commit][path]
        facts = {"X_Repo_Commit": commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept_Ranges": "bytes"}
        asked = self.headers.get("Range")
        if not asked:
            self._send(200, data, **facts)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= len(data):
            self._send(416)
            return
        if self.server.dies_after is not None:
            self.server.dies_after -= 1
        self._send(206, data[start:stop], **facts, Content_Range=f"bytes {start}-{stop - 1}/{len(data)}")


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha256(data).hexdigest()[:40]}
