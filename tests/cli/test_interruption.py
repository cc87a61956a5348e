"""Ctrl-C in a terminal, which sends it to a command and to every process that it started."""

import os
import pty
import shutil
import signal
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Lorif
from tests.conftest import CHECKPOINTS, TinyProject

CTRL_C = b"\x03"


def interrupted(command: Sequence[str | Path], when: str, times: int = 1) -> tuple[int, str]:
    """Return how a command in a terminal of its own ends, and what it prints from where Ctrl-C is pressed.

    Raises:
        AssertionError: it ended before.

    It is pressed once `when` was printed, and again at whatever is printed next.
    """
    process, terminal = pty.fork()
    if process == 0:
        # Where tests run in the background, a shell has them ignore it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # Bars are drawn where there is room for them.
        termios.tcsetwinsize(0, (50, 200))
        os.environ |= {"PYTHONPATH": str(Path(__file__).parents[2]), "NO_COLOR": "1"}
        os.execv(sys.executable, [sys.executable, "-m", "lorif_assets", *map(str, command)])
    before = after = b""
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        while True:
            try:
                printed = screen.read(65_536)
            except OSError:
                break  # What Linux answers where the last process of a terminal is gone.
            if not printed:
                break
            if times and when.encode() in (before := before + printed):
                os.write(terminal, CTRL_C)
                times -= 1
            elif when.encode() in before:
                after += printed
    _, status = os.waitpid(process, 0)
    assert when.encode() in before, before.decode()
    return os.waitstatus_to_exitcode(status), after.decode()


def lines(printed: str) -> list[str]:
    """Return what stays on the screen of each line, without the bars that were drawn over and what the key shows."""
    shown = (
        line.rsplit("\r", 1)[-1].replace("\x1b[K", "").strip() for line in printed.replace("\r\n", "\n").split("\n")
    )
    return [line.removeprefix("^C") for line in shown if line.removeprefix("^C")]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_while_a_step_computes_it_prints_one_line_and_no_process_a_traceback(
    private_project: TinyProject, times: int
) -> None:
    for step in range(3, 8):
        first = private_project.root / "checkpoints" / CHECKPOINTS[0]
        shutil.copytree(first, first.with_name(f"step-000{step}00"))
    config = private_project.root / "lorif.toml"
    code, printed = interrupted(
        ["materialize", "--asset", "query_scores", "--config", config], "gradient_factors: ", times
    )
    assert code == 130, printed
    told = "interrupted: what was finished is stored, and the same command goes on from there"
    assert [line for line in lines(printed) if "gradient_factors" not in line] == [told]


def test_what_starts_over_is_gone_on_from_by_another_command(
    lorif: Lorif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lorif_assets.cli.demo.run_demo", interrupt)
    command = ["demo", "--fresh", "--directory", str(tmp_path / "demo")]
    monkeypatch.setattr("sys.argv", ["lorif", *command])
    result = lorif(*command)
    assert result.exit_code == 130
    assert result.stderr.endswith("and the same command goes on from there without --fresh\n")


@pytest.mark.slow
def test_it_ends_the_explorer_without_a_word(tiny_project: TinyProject) -> None:
    config = tiny_project.root / "lorif.toml"
    code, printed = interrupted(["explore", "--no-open", "--port", "0", "--config", config], "Ctrl-C ends it.")
    assert (code, lines(printed)) == (0, [])
