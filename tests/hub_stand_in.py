"""A stand-in for the hub on this machine: the routes of its API that huggingface_hub asks, for repositories made by tests."""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

import pytest

from lorif_assets.hub.connection import cache
from lorif_assets.hub.names import HubName
from lorif_assets.hub.snapshots import snapshot_of
from lorif_assets.models.files.hub import fetch_folder

TOKEN = "hf_only_for_tests_of_this_project"

_API = re.compile(r"/api/(models|datasets)/(gpt2|[^/]+/[^/]+)(?:/revision/([^/]+)|/tree/([^/]+))?")
_FILE = re.compile(r"/(datasets/)?(gpt2|[^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """One repository: the files of each commit, and the commits of its branches and tags."""

    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    is_gated: bool = False
    """Whether files need a token; as on the hub, what there is is told without one."""

    def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Add a commit and move a branch or tag to it."""
        content = repr(sorted(files.items())) + str(len(self.commits))
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = {".gitattributes": b"*.safetensors filter=lfs\n", **files}
        self.refs[ref] = sha
        return sha

    def commit_folder(self, folder: Path, ref: str = "main") -> str:
        """Add the files of a folder as a commit."""
        files = {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
        return self.commit(files, ref)

    def at(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


class HubStandIn:
    """The server; `requests` are those so far."""

    def __init__(self) -> None:
        self.models: dict[str, Repository] = {}
        self.datasets: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.sends_files = Event()
        """Cleared, downloads wait."""
        self.sends_files.set()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stand_in.answer(self, has_body=True)

            def do_HEAD(self) -> None:
                stand_in.answer(self, has_body=False)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def model(self, name: str) -> Repository:
        return self.models.setdefault(name, Repository())

    def dataset(self, name: str) -> Repository:
        return self.datasets.setdefault(name, Repository())

    def downloads(self) -> list[str]:
        """The paths in their repositories of the files that were downloaded."""
        return [found[4] for request in self.requests if (found := _FILE.fullmatch(request.removeprefix("GET ")))]

    def close(self) -> None:
        """Answer no longer; the port is closed."""
        self.sends_files.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler, has_body: bool) -> None:
        path = urlsplit(handler.path).path
        self.requests.append(f"{handler.command} {unquote(path)}")
        token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
        if found := _API.fullmatch(path):
            kind, name, revision, tree = found.groups()
            repositories = self.models if kind == "models" else self.datasets
            self._describe(
                handler, repositories.get(name), unquote(revision or tree or "main"), name, tree is not None, token
            )
        elif found := _FILE.fullmatch(path):
            prefix, name, revision, file = found.groups()
            repository = (self.datasets if prefix else self.models).get(name)
            self._file(handler, repository, unquote(revision), unquote(file), token, has_body)
        else:
            send(handler, 404, b"{}")

    def _describe(
        self,
        handler: BaseHTTPRequestHandler,
        repository: Repository | None,
        revision: str,
        name: str,
        tree: bool,
        token: str,
    ) -> None:
        if repository is None:
            # As the hub does: without a token it does not say what exists.
            send(handler, 404 if token else 401, b"{}", {"X-Error-Code": "RepoNotFound"} if token else {})
        elif (sha := repository.at(revision)) is None:
            send(handler, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif tree:
            files = repository.commits[sha]
            listing = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            send(handler, 200, json.dumps(listing).encode())
        else:
            siblings = [{"rfilename": path} for path in repository.commits[sha]]
            send(handler, 200, json.dumps({"id": name, "sha": sha, "siblings": siblings, "tags": []}).encode())

    def _file(
        self,
        handler: BaseHTTPRequestHandler,
        repository: Repository | None,
        revision: str,
        file: str,
        token: str,
        has_body: bool,
    ) -> None:
        sha = repository.at(revision) if repository else None
        if repository is None or sha is None:
            send(handler, 404, b"", {"X-Error-Code": "RepoNotFound" if repository is None else "RevisionNotFound"})
        elif repository.is_gated and token != TOKEN:
            send(handler, 403 if token else 401, b"", {"X-Error-Code": "GatedRepo"})
        elif file not in repository.commits[sha]:
            send(handler, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        else:
            if has_body and not file.startswith(("README", ".")):
                self.sends_files.wait()
            content = repository.commits[sha][file]
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
            send(handler, 200, content, headers, has_body)


def send(
    handler: BaseHTTPRequestHandler,
    status: int,
    content: bytes,
    headers: Mapping[str, str] | None = None,
    has_body: bool = True,
) -> None:
    handler.send_response(status)
    for name, value in {
        "Content-Type": "application/json",
        **(headers or {}),
        "Content-Length": str(len(content)),
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    if has_body and handler.command != "HEAD":
        handler.wfile.write(content)


def fetched(name: str) -> Path:
    """Return the folder in the hub's cache that holds a model and what it is loaded from."""
    found = HubName.parse(name)
    return fetch_folder(snapshot_of(found), found.path)


def bring_cache_without_lists(place: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool = True) -> None:
    """Go on with the hub's cache in another place, without lists of files: as older versions of huggingface_hub left it.

    Without links, files that are the same are there several times, as a file system may ask for that has none.
    """
    shutil.copytree(cache(), place, symlinks=links, ignore=shutil.ignore_patterns("trees"))
    monkeypatch.setenv("HF_HUB_CACHE", str(place))
