"""Dagster's web server in a process of its own: started, asked by GraphQL over HTTP, and its processor time."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from measurements import Seconds

from lorif_assets.config.settings import CONFIG_NAME, CONFIG_VARIABLE

STARTS_WITHIN = 120  # seconds


@dataclass(frozen=True)
class WebServer:
    """A web server that runs, and the server of the project's code below it."""

    address: str
    process: psutil.Process

    def ask(self, query: str, variables: Mapping[str, Any]) -> bytes:
        """Return the answer to a GraphQL query.

        Raises:
            ValueError: Dagster refused the query, or failed at it.
        """
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as response:
                answer: bytes = response.read()
        except urllib.error.HTTPError as error:
            raise ValueError(f"Dagster refused a query: {error.read()[:2_000]!r}") from error
        if "errors" in json.loads(answer):
            raise ValueError(f"Dagster failed at a query: {answer[:2_000]!r}")
        return answer

    def now(self) -> Seconds:
        """Return the time of the clock, and the processor time of the server's processes so far, to some 10 ms."""
        processes = [self.process, *self.process.children(recursive=True)]
        times = [process.cpu_times() for process in processes]
        return Seconds(time.perf_counter(), sum(spent.user + spent.system for spent in times))


@contextmanager
def web_server(root: Path) -> Iterator[WebServer]:
    """Start a web server on the project in a folder, whose instance is its subfolder `dagster`, and stop it in the end.

    Raises:
        TimeoutError: it does not answer in time, or stopped; its last words are part of the message.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "DAGSTER_HOME": str(root / "dagster"), CONFIG_VARIABLE: str(root / CONFIG_NAME)}
    program = [str(Path(sys.executable).with_name("dagster-webserver")), "-m", "lorif_assets.definitions"]
    log = root / "webserver.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*program, "--host", "127.0.0.1", "--port", str(port)], env=environment, stdout=output, stderr=output
        )
    server = WebServer(f"http://127.0.0.1:{port}", psutil.Process(process.pid))
    try:
        end = time.monotonic() + STARTS_WITHIN
        while not _answers(server.address):
            if process.poll() is not None or time.monotonic() > end:
                raise TimeoutError(f"dagster-webserver did not start: {log.read_text()[-2_000:]}")
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/server_info"):
            return True
    except urllib.error.URLError:
        return False
