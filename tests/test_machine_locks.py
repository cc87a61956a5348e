"""Locks of a machine: a folder that is the user's own, and a word from whoever waits."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lorif_assets import machine_locks
from lorif_assets.cli.main import main
from lorif_assets.errors import SettingsError
from lorif_assets.machine_locks import MachineLock, lock_folder

HOLDER = """
import sys
from lorif_assets.machine_locks import MachineLock
with MachineLock("tracking"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"lorif-locks-{os.getuid()}"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_folder_is_the_users_alone(folder: Path) -> None:
    assert lock_folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert lock_folder().stat().st_mode & 0o777 == 0o700


def test_a_link_in_its_place_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match=r"lorif-locks-\d+, .* is a symbolic link; remove it, or set TMPDIR"):
        MachineLock("tracking")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_in_its_place_is_refused(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(SettingsError, match=r"cannot be made|is no folder"):
        lock_folder()


def test_a_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    user = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: user + 1)
    folder.rename(folder.with_name(f"lorif-locks-{user + 1}"))
    with pytest.raises(SettingsError, match=rf"belongs to another user \(id {user}, not {user + 1}\)"):
        lock_folder()


def test_a_folder_for_temporary_files_that_is_read_only_is_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(SettingsError, match=r"cannot be made .*TMPDIR"):
        lock_folder()


def test_whoever_waits_says_for_which_process(
    holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine_locks, "NOTICE_SECONDS", 0.1)
    said = machine_locks.WAITS.warning

    def then_freed(message: str) -> None:
        said(message)
        holder.kill()

    monkeypatch.setattr(machine_locks.WAITS, "warning", then_freed)
    with MachineLock("tracking") as lock:
        assert lock.holder == f"process {os.getpid()}"
    assert f"waiting for process {holder.pid}, which holds the lock 'tracking'" in caplog.text


def test_the_command_line_prints_what_is_waited_for(
    holder: "subprocess.Popen[str]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_locks, "NOTICE_SECONDS", 0.1)
    monkeypatch.setenv("LORIF_CONFIG", "")

    def waiting() -> None:
        from threading import Timer

        Timer(1, holder.kill).start()
        with MachineLock("tracking"):
            pass

    monkeypatch.setattr("lorif_assets.cli.status.project_of_settings", waiting)
    monkeypatch.setattr("lorif_assets.cli.status.project_status", lambda project: 1 / 0)
    monkeypatch.chdir(tmp_path)
    assert f"waiting for process {holder.pid}" in CliRunner().invoke(main, ["status"]).output
