"""Folders of the moment: gone at the end of the block, and those of a killed process as soon as another one starts."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from lorif_assets import scratch_folders
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake
from lorif_assets.scratch_folders import scratch_folder
from tests.killed_writers import killed_while_writing
from tests.lake.test_written_rows import PARTITION, factors

HOLDER = """
import sys
from pathlib import Path
from lorif_assets.scratch_folders import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "large").write_bytes(b"0" * 1_000)
    print(folder, flush=True)
    sys.stdin.read()
"""
Holding = Callable[[], "tuple[subprocess.Popen[str], Path]"]


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Holding]:
    """Start a process that has a folder in that of the test, with a file."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], Path]:
        command = [sys.executable, "-c", HOLDER, str(tmp_path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, Path(open_pipe(process.stdout).readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def open_pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def start_as_another_process(home: Path) -> None:
    """Have a folder, as the first of a process."""
    scratch_folders._remove_left_ones.cache_clear()
    with scratch_folder(home):
        pass


def test_a_folder_is_empty_and_hidden_and_gone_in_the_end(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        assert list(folder.iterdir()) == []
        (hidden,) = tmp_path.iterdir()
        assert hidden.name.startswith(".")
        assert hidden.stat().st_mode & 0o077 == 0, "it is for this user alone"
        (folder / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_it_is_gone_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(KeyError), scratch_folder(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_what_is_made_in_it_can_be_moved_out_with_the_folder_itself(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        (folder / "file").touch()
        folder.rename(tmp_path / "whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["whole", "file"]


def test_without_a_place_it_is_in_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder() as folder:
        assert folder.is_relative_to(tmp_path)


def test_a_killed_process_leaves_a_folder_that_the_next_one_removes(tmp_path: Path, holding: Holding) -> None:
    process, folder = holding()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / "large").exists()
    start_as_another_process(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_process_that_lives_is_left_alone(tmp_path: Path, holding: Holding) -> None:
    process, folder = holding()
    _, another = holding()
    start_as_another_process(tmp_path)
    assert (folder / "large").exists()
    assert (another / "large").exists()
    process.communicate("")
    assert not folder.exists()


def test_a_folder_of_another_machine_is_left_to_it(
    tmp_path: Path, holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, folder = holding()
    process.kill()
    process.wait()
    name = socket.gethostname()
    monkeypatch.setattr("socket.gethostname", lambda: f"not-{name}")
    start_as_another_process(tmp_path)
    assert (folder / "large").exists()


def test_a_folder_that_is_found_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_locked = scratch_folders._is_locked
    taken: list[Path] = []

    def too_late(lock: int, *, ours_where_unknown: bool) -> bool:
        if ours_where_unknown and not taken:
            taken.extend(tmp_path.iterdir())
            scratch_folders._remove_if_left(taken[0])
        return is_locked(lock, ours_where_unknown=ours_where_unknown)

    monkeypatch.setattr(scratch_folders, "_is_locked", too_late)
    with scratch_folder(tmp_path) as folder:
        assert taken
        assert folder.parent not in taken
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_where_a_file_system_has_no_locks_nothing_is_removed_but_ones_own(
    tmp_path: Path, holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, folder = holding()
    process.kill()
    process.wait()

    def refused(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refused)
    start_as_another_process(tmp_path)
    assert list(tmp_path.iterdir()) == [folder.parent]


def test_a_worker_that_is_killed_while_it_writes_factors_leaves_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    killed_while_writing(
        f"""
        from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
        from lorif_assets.lake.lake import Lake
        from tests.lake.test_written_rows import PARTITION, factors
        Lake({str(tmp_path / "lake")!r}).write_ahead(GRADIENT_FACTORS, PARTITION, factors("l", 100_000))
        """
    )
    assert list((tmp_path / "temporary").rglob("*.parquet*"))
    scratch_folders._remove_left_ones.cache_clear()
    Lake(str(tmp_path / "lake")).write_ahead(GRADIENT_FACTORS, PARTITION, factors("l", 3))
    assert list((tmp_path / "temporary").iterdir()) == []
