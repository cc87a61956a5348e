"""MLflow that is away, as it is met: nothing listens, nothing answers, an answer without its database, a locked database."""

import random
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

DATABASE = "mlflow.db"


class _WithoutDatabase(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(200 if self.path == "/health" else 500)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def absent_tracking(root: Path, rng: random.Random) -> Iterator[str]:
    """Take MLflow from a project for the block, whose tracking is a database beside its settings; yield its address then."""
    ways = [_unheard, _silent, _answering_without_database, _locked]
    with rng.choice(ways)(root) as address:
        yield address


@contextmanager
def _unheard(_root: Path) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def _silent(_root: Path) -> Iterator[str]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def _answering_without_database(_root: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _WithoutDatabase) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def _locked(root: Path) -> Iterator[str]:
    with closing(sqlite3.connect(root / DATABASE)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield f"sqlite:///{root / DATABASE}"
