"""Servers for the time of a `with` block: Postgres, and an object store that speaks S3; both of this machine alone."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lorif_assets.errors import LorifError

_ADDRESS = "127.0.0.1"
_USER = "lorif"
_STARTS_WITHIN = 120.0
_ENDS_WITHIN = 30.0
_DEBIAN = Path("/usr/lib/postgresql")
_PACKAGES = {
    "dagster_postgres": "dagster-postgres",
    "psycopg2": "psycopg2-binary",
    "moto": "moto[server]",
    "ray": "ray",
}
_BUCKET = "lake"
_OPEN_TO_ALL = "/tmp"  # noqa: S108
_WATCHER = """
import os, shutil, signal, sys
# It ends with the process that has started this one.
sys.stdin.read()
try:
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


@dataclass(frozen=True)
class Database:
    """A Postgres server that takes connections by password."""

    port: int
    password: str = field(repr=False)

    def url(self, name: str) -> str:
        """Return the address of one of its databases, with the password, for SQLAlchemy and the driver that is installed."""
        return f"postgresql+psycopg2://{_USER}:{self.password}@{_ADDRESS}:{self.port}/{name}"

    def content(self, name: str) -> str:
        """Return all rows of one of its databases, as text.

        Raises:
            LorifError: it cannot be read.
        """
        place = ["-h", _ADDRESS, "-p", str(self.port), "-U", _USER]
        command = [_postgres_program("pg_dump"), *place, "--data-only", name]
        return _finished(command, None, {"PGPASSWORD": self.password, "PATH": os.environ.get("PATH", "")})


@dataclass(frozen=True)
class Bucket:
    """A bucket of an S3 server, and what programs have in their environment to reach it."""

    root: str
    environment: Mapping[str, str] = field(repr=False)


def require_programs() -> None:
    """Look for what the servers need.

    Raises:
        LorifError: Postgres or a package is not installed; it says what to install.
    """
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise LorifError(
            f"the demo on a cluster needs {', '.join(missing)}: `make cluster-demo` installs them, or "
            'pip install "lorif-assets[cluster-demo]"'
        )
    _postgres_program("initdb")


@contextmanager
def postgres(names: Sequence[str]) -> Iterator[Database]:
    """Start Postgres in a folder of its own, with these databases, and stop it and remove the folder in the end.

    As root it runs as another user, `postgres` or `nobody`: it refuses to run as root.

    Raises:
        LorifError: it is not installed, or does not start.
    """
    database = Database(free_port(), secrets.token_urlsafe(24))
    account = _account()
    # Another user may be kept out of the folder of root's temporary files.
    folder = Path(tempfile.mkdtemp(prefix="lorif-postgres-", dir=_OPEN_TO_ALL if account else None))
    try:
        (folder / "password").write_text(database.password)
        for path in (folder, folder / "password"):
            path.chmod(0o700)
            if account:
                os.chown(path, account.pw_uid, account.pw_gid)
        made = [_postgres_program("initdb"), "-D", f"{folder}/data", "-U", _USER, "-A", "scram-sha-256"]
        _finished([*made, f"--pwfile={folder}/password", "-E", "UTF8", "--no-locale", "--no-sync"], account)
        options = {
            "port": database.port,
            "listen_addresses": _ADDRESS,
            "unix_socket_directories": "",
            # Nothing of it outlives the demo.
            "fsync": "off",
            "max_connections": 200,
        }
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [_postgres_program("postgres"), "-D", f"{folder}/data", *settings]
        # It ends at once on SIGINT; on SIGTERM it would wait for all connections to close.
        with (
            _served(command, folder / "log", lambda: _takes_connections(database), account, signal.SIGINT) as process,
            _watched(process, folder),
        ):
            _make_databases(database, names)
            yield database
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def object_store(folder: Path) -> Iterator[Bucket]:
    """Start an S3 server with an empty bucket, and stop it in the end; its log is written to the folder.

    Raises:
        LorifError: it does not start.
    """
    port = free_port()
    address = f"http://{_ADDRESS}:{port}"
    start = f"from moto.server import main; main(['-H', '{_ADDRESS}', '-p', '{port}'])"
    log = folder / "object-store.log"
    with _served([sys.executable, "-c", start], log, lambda: _answers(address)) as process, _watched(process):
        request = urllib.request.Request(f"{address}/{_BUCKET}", method="PUT")  # noqa: S310
        with urllib.request.urlopen(request):  # noqa: S310
            yield Bucket(
                f"s3://{_BUCKET}/demo",
                {
                    "AWS_ACCESS_KEY_ID": "lorif-demo",
                    "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(24),
                    "AWS_REGION": "us-east-1",
                    "AWS_ENDPOINT_URL": address,
                    "AWS_ALLOW_HTTP": "true",
                },
            )


def ended(process: "subprocess.Popen[bytes]", first: signal.Signals = signal.SIGTERM) -> None:
    """End a process and all of its session: by a signal, and those that do not heed it by SIGKILL."""
    for number in (first, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDS_WITHIN)
    process.wait()


@contextmanager
def _served(
    command: Sequence[str],
    log: Path,
    answers: Callable[[], bool],
    account: pwd.struct_passwd | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> "Iterator[subprocess.Popen[bytes]]":
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **_as(account)
        )
    try:
        end = time.monotonic() + _STARTS_WITHIN
        while not answers():
            if process.poll() is not None or time.monotonic() > end:
                raise LorifError(f"{Path(command[0]).name} did not start: {log.read_text(errors='replace')[-2_000:]}")
            time.sleep(0.2)
        yield process
    finally:
        ended(process, stop)


@contextmanager
def _watched(process: "subprocess.Popen[bytes]", folder: Path | None = None) -> Iterator[None]:
    """Have a server killed, and its folder removed, where this process is killed in the block."""
    watcher = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _WATCHER, str(process.pid), str(folder or "")],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        watcher.kill()
        watcher.communicate()


def _finished(
    command: Sequence[str], account: pwd.struct_passwd | None, environment: Mapping[str, str] | None = None
) -> str:
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, errors="replace", check=False, env=environment, **_as(account)
    )
    if done.returncode:
        raise LorifError(f"{Path(command[0]).name} failed: {done.stderr[-2_000:] or done.stdout[-2_000:]}")
    return done.stdout


def _account() -> pwd.struct_passwd | None:
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LorifError("Postgres does not run as root, and there is no user `postgres` or `nobody` to run it as")


def _as(account: pwd.struct_passwd | None) -> dict[str, Any]:
    if account is None:
        return {}
    # Its own folder is the one that it may be in.
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}


def _postgres_program(name: str) -> str:
    places = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: path.parts[-3].zfill(4))
    found = shutil.which(name) or (str(places[-1]) if places else None)
    if found is None:
        raise LorifError(
            f"the demo on a cluster needs Postgres, of which there is no {name} here: install it (on Debian: apt-get install "
            "postgresql), or add its folder of programs to PATH"
        )
    return found


def _make_databases(database: Database, names: Sequence[str]) -> None:
    connection = _connected(database)
    try:
        connection.autocommit = True
        for name in names:
            connection.cursor().execute(f'CREATE DATABASE "{name}"')
    finally:
        connection.close()


def _takes_connections(database: Database) -> bool:
    import psycopg2

    try:
        _connected(database).close()
    except psycopg2.OperationalError:
        return False
    return True


def _connected(database: Database) -> Any:
    import psycopg2

    return psycopg2.connect(
        host=_ADDRESS, port=database.port, user=_USER, password=database.password, dbname="postgres"
    )


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def free_port() -> int:
    """Return a port of this machine that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        return int(probe.getsockname()[1])
