"""The command `lorif`: its commands by name, each in a file of its own that is loaded when it is needed."""

import logging
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any, NoReturn

import click
from rich.markup import escape

from lorif_assets.errors import CannotWriteError, LorifError, unwritable
from lorif_assets.machine_locks import WAITS
from lorif_assets.pages.terminal_console import TerminalConsole
from lorif_assets.process_environment import set_process_environment
from lorif_assets.progress import LINES

COMMANDS: Mapping[str, str] = {
    "demo": "Train a small model on Python's documentation and attribute what it says, start to finish.",
    "init": "Write a settings file for what lies in a folder, and what makes the folder a Dagster project.",
    "doctor": "Show what is configured, what was found, what is missing, and what attribution will cost.",
    "preview": "Show the tokens that the model gets of each example: which carry loss, what was cut, what was set aside.",
    "status": "Show which partitions are up to date, missing or out of date, and why.",
    "materialize": "Bring everything active up to date, in this process; Dagster's UI shows the runs.",
    "attribute": "Show which training examples made the model say a completion.",
    "select": "Write the training data that matter most for queries, or all but those, as their sources have them.",
    "report": "Open the newest report, and print where it is.",
    "explore": "Walk through influences: pages, a JSON API, or an assistant's tools.",
    "ui": "Open Dagster's UI on this project.",
    "evaluate": "Check the scores against retraining: LoRIF beside other methods. Goes on where it was interrupted.",
    "tune": "Try recipes on a sample of the data, and show what quality costs how many bytes.",
    "withdraw": "Take stored shards that no source names any more out of the scores, or record that they stay.",
    "verify": "Read all of the lake, and name what is damaged and what makes it again; ends with 1 where something is.",
    "vacuum": "Delete files of the lake that nothing points to any more and that are older than `vacuum.retention_hours`.",
    "scenario": "Change data and checkpoints under a running daemon, and show that attributions stay up to date.",
}
"""What `lorif --help` says of each command; loading all commands for it would take seconds."""
_RESUMED = {"demo", "materialize", "evaluate"}
_INTERRUPTED = 130
_ROOM_FOR_RECORDS = 65_536


class _Commands(click.Group):
    """Commands whose expected errors are messages, not tracebacks."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        finally:
            # Pressed again while the process ends, Ctrl-C would print a traceback of whatever that is at.
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def invoke(self, ctx: click.Context) -> object:
        set_process_environment()
        try:
            with _printed_lines():
                return super().invoke(ctx)
        except (LorifError, CannotWriteError) as error:
            _end_with(str(error))
        except Exception as error:
            if fault := _fault_of_records(error):
                _end_with(fault)
            if (reason := unwritable(error)) is None:
                raise
            # Outside of the lake: a copy, a selection.
            file = getattr(error, "filename", None) or "a file"
            _end_with(f"{file} cannot be written: {reason}. Make room there, and start this again ({error})")
        except KeyboardInterrupt:
            resumed = ": what was finished is stored, and the same command goes on from there"
            anew = " without --fresh" if "--fresh" in sys.argv else ""
            click.echo(f"interrupted{resumed + anew if ctx.invoked_subcommand in _RESUMED else ''}", err=True)
            sys.exit(_INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        # Libraries may take seconds to load. A shell that completes words has its own line there.
        with nullcontext() if ctx.resilient_parsing else TerminalConsole(stderr=True).status("starting"):
            command: click.Command = getattr(import_module(f"lorif_assets.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _fault_of_records(error: Exception) -> str | None:
    """Return what is to be said of Dagster's databases, where an error is of one that is damaged or has no room."""
    if type(error).__module__.partition(".")[0] not in {"sqlalchemy", "dagster"}:
        return None
    from lorif_assets.automation.dagster_home import named_home
    from lorif_assets.automation.damaged_databases import damage_in_words, damaged_databases
    from lorif_assets.config.settings import settings_file

    home = named_home(settings_file())
    if damaged := damaged_databases(home):
        return damage_in_words(damaged)
    # SQLite itself speaks of an input or output error where it finds no room for what it works with.
    is_full = home.is_dir() and shutil.disk_usage(home).free < _ROOM_FOR_RECORDS
    reason = unwritable(error) or ("the disk is full" if is_full else None)
    return reason and (
        f"Dagster's records, of the home {home}, cannot be written: {reason}. Make room there, and start this again: what was "
        "finished is stored"
    )


def _end_with(message: str) -> NoReturn:
    TerminalConsole(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    sys.exit(1)


@contextmanager
def _printed_lines() -> Iterator[None]:
    """Print what a command waits for and, where standard error is no terminal that shows a bar, how far long work is."""
    lines = logging.StreamHandler(sys.stderr)
    LINES.setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    for log in (LINES, WAITS):
        log.addHandler(lines)
        # A library may have all logs printed that reach the root.
        log.propagate = False
    try:
        yield
    finally:
        for log in (LINES, WAITS):
            log.removeHandler(lines)
            log.propagate = True


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lorif-assets")
def main() -> None:
    """Which training examples made the model say this?"""
