"""A disk that takes nothing more: one error in plain words from whatever library writes, and nothing left behind."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lorif_assets.errors import CannotWriteError, LorifError, unwritable
from lorif_assets.lake.lake import Lake
from tests.lake.test_lake import counts, replace_rejected

# In a process of its own: the limit holds for all that a process writes.
SCRIPT = """
import json, resource, signal, sys
import torch
from lorif_assets.lake.lake import Lake
from tests.lake.test_lake import replace_rejected

lake = Lake(root=sys.argv[1])
found = {}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for what, write in {
    "table": lambda: replace_rejected(lake, "a", 200),
    "tensors": lambda: lake.write_tensors("states", {"a": torch.ones(2_000)}),
    "page": lambda: lake.write_page("reports/a.html", b"x" * 5_000),
}.items():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        write()
    except Exception as error:
        found[what] = [type(error).__name__, str(error)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(json.dumps(found))
"""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(root=str(tmp_path / "lake"))
    replace_rejected(lake, "a", 1)
    return lake


def test_what_cannot_be_written_is_one_error_that_says_what_to_do(lake: Lake) -> None:
    here = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, lake.root], cwd=here, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == {"table", "tensors", "page"}
    for kind, words in found.values():
        assert kind == "CannotWriteError"
        assert words.startswith(f"nothing more can be written to {lake.root}") or lake.root in words
        assert "Make room there, then start this again: what was finished is stored" in words
    assert counts(lake) == {"a": 1}


def test_a_file_that_was_begun_is_taken_away_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, content: bytes) -> int:
        with file.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    before = sorted(Path(lake.root).rglob("*"))
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CannotWriteError, match="the disk is full"):
        lake.write_file("pages.html", b"x" * 100)
    assert sorted(Path(lake.root).rglob("*")) == before


SAID = {
    "delta-rs": (
        OSError("Generic LocalFileSystem error\n ↳ No space left on device (os error 28)"),
        "the disk is full",
    ),
    "SQLite": (RuntimeError("(sqlite3.OperationalError) database or disk is full"), "the disk is full"),
    "a read-only database": (RuntimeError("attempt to write a readonly database"), "the file system is read-only"),
    "a quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "the quota of disk space is used up"),
    "a file that is not there": (FileNotFoundError(errno.ENOENT, "No such file"), None),
    "anything else": (ValueError("wrong"), None),
}


@pytest.mark.parametrize("library", SAID)
def test_libraries_say_it_in_words_of_their_own(library: str) -> None:
    error, reason = SAID[library]
    assert unwritable(error) == reason
    behind = ValueError("failed to parse")
    behind.__cause__ = error
    assert unwritable(behind) == reason


def test_it_is_no_error_of_one_partition_that_others_go_on_after() -> None:
    assert not issubclass(CannotWriteError, LorifError)
