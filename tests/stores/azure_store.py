"""A container in Azurite, Microsoft's emulator of its blob store, from the npm package `azurite`."""

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.conftest import free_port

ACCOUNT = "devstoreaccount1"
# Every Azurite has it, and it opens nothing else.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONTAINER = "lake"


# Older ones list from the beginning, wherever a listing is to start, and delta-rs takes that for another table's log.
OLDEST = (3, 37)


def azurite() -> str:
    """The emulator's program: $AZURITE, or one on PATH."""
    program = os.environ.get("AZURITE") or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs Azurite: npm install --global azurite@3.37.0, or name its `azurite-blob` in $AZURITE")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        pytest.fail(
            f"{program} is Azurite {version}; the tests need 3.37 or newer: npm install --global azurite@3.37.0"
        )
    return program


@contextmanager
def container(folder: Path) -> Iterator[dict[str, str]]:
    """Start the emulator, make a container, and yield delta-rs's options for it."""
    port = free_port()
    command = [azurite(), "--location", str(folder), "--blobPort", str(port), "--skipApiVersionCheck", "--silent"]
    with (folder / "azurite.log").open("wb") as log:
        server = subprocess.Popen([*command, "--disableTelemetry"], stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    try:
        for _ in range(600):
            try:
                _make(endpoint)
                break
            except urllib.error.HTTPError:
                raise
            except OSError:
                assert server.poll() is None, (folder / "azurite.log").read_text()
                time.sleep(0.1)
        yield {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": endpoint,
            "AZURE_ALLOW_HTTP": "true",
        }
    finally:
        server.terminate()
        server.wait(30)


def _make(endpoint: str) -> None:
    """Make the container, by a request that is signed with the account's key."""
    version, date = "2021-08-06", formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:{version}\n"
    resource = f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
    signed = "PUT" + "\n" * 12 + headers + resource
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(f"{endpoint}/{CONTAINER}?restype=container", method="PUT", data=b"")
    request.add_header("x-ms-date", date)
    request.add_header("x-ms-version", version)
    request.add_header("Authorization", f"SharedKey {ACCOUNT}:{signature}")
    # Else urllib adds one, which would have to be signed.
    request.add_header("Content-Type", "")
    urllib.request.urlopen(request, timeout=10).close()
