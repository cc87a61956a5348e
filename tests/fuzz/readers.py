"""A process that reads folders of strangers' files, one after another, under limits of its own, and what becomes of it.

A crash of a library ends the process and not the test; a read without end is ended by the processor time that it takes.
"""

import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tests.fuzz.files import Use

_CPU_SECONDS = 60
_GIBIBYTES = 6
_SILENT_SECONDS = 1_200


@dataclass
class ReaderProcess:
    """Starts when it is first needed, and anew when a file has ended it."""

    process: SpawnProcess | None = None
    connection: Connection | None = None
    outcomes: dict[str, int] = field(default_factory=dict)

    def fault(self, use: Use, files: Mapping[str, bytes]) -> str | None:
        """Read a folder of files, and return what is wrong with how it went: None if it was read, or refused in words."""
        connection = self._started()
        try:
            connection.send((use, dict(files)))
            if not connection.poll(_SILENT_SECONDS):
                return self.end() or "nothing was heard of it"
            outcome = connection.recv()
        except (EOFError, OSError):
            return self.end()
        self.outcomes[outcome.partition(":")[0]] = self.outcomes.get(outcome.partition(":")[0], 0) + 1
        return None if outcome in ("read", "refused") else outcome

    def _started(self) -> Connection:
        if self.connection is None:
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
            self.connection.recv()
        return self.connection

    def end(self) -> str:
        """End the process, and return how it ended if it did by itself."""
        process, connection = self.process, self.connection
        self.process = self.connection = None
        if process is None or connection is None:
            return ""
        connection.close()
        process.join(10)
        code = process.exitcode
        process.kill()
        process.join()
        if code == -signal.SIGPROF:
            return f"it took more than {_CPU_SECONDS} seconds of the processor"
        return f"it ended the process ({signal.strsignal(-code) if code and code < 0 else code})"


def _serve(connection: Connection) -> None:
    from lorif_assets.data.tokens import tokenization  # noqa: F401
    from lorif_assets.models import checkpoints  # noqa: F401

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    _limit_memory()
    connection.send("ready")
    while True:
        try:
            use, files = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
        outcome = _outcome(use, files)
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(outcome)


def _outcome(use: Use, files: Mapping[str, bytes]) -> str:
    from lorif_assets.errors import LorifError

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        for name, content in files.items():
            (file := folder / name).parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        _READ[use](folder)
    except LorifError:
        return "refused"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-4:]
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(last))
        return f"{type(error).__name__}: {str(error)[:200]} ({where})"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return "read"


def _read_source(folder: Path) -> None:
    """List and read every shard, and make examples of the rows, as the asset does."""
    from lorif_assets.config.limits import ReadLimits
    from lorif_assets.config.sources import Columns, Source
    from lorif_assets.data.examples import normalise
    from lorif_assets.data.shards import read_shard, survey

    is_table = (folder / "rows/_delta_log").is_dir()
    limits = ReadLimits(rows=100_000, shard_mib=512)
    columns = Columns(id="id" if is_table else None)
    source = Source(name="s", path="rows", columns=columns, limits=limits, passages="paragraph")
    for piece in survey([source], folder).shards:
        if not piece.fault:
            normalise(read_shard(source, piece, folder), source.columns, piece.shard)


def _read_checkpoint(folder: Path) -> None:
    """Look for checkpoints, and load what seems whole; tokenize a text."""
    from lorif_assets.models.checkpoints import Checkpoints
    from lorif_assets.models.devices import DeviceGroup

    checkpoints = Checkpoints(path=str(folder))
    for files in checkpoints.look().checkpoints:
        if files.fault() is None:
            tokenizer = checkpoints.load_tokenizer(files)
            tokenizer(["the with statement opens", "  a\n\n\tfile é", ""])
            checkpoints.skeleton(files)
            checkpoints.load_model(files, "float32", DeviceGroup.of("cpu"))


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (_GIBIBYTES << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


_READ = {Use.SOURCE: _read_source, Use.CHECKPOINT: _read_checkpoint}
