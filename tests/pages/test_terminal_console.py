"""The terminal: what data say is shown, and what they would do to it is not done."""

import ast
import io
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from lorif_assets.pages.terminal_console import TerminalConsole

ROOT = Path(__file__).parents[2]
_STEERING = {
    "clear the screen": "\x1b[2J",
    "set the title": "\x1b]0;title\x07",
    "the same by one character": "\x9b2J",
    "go back": "\b\b\r",
    "turn round what follows": "\N{RIGHT-TO-LEFT OVERRIDE}",
    "turn round in an isolate": "\N{RIGHT-TO-LEFT ISOLATE}",
}


def printed(*what: object) -> str:
    file = io.StringIO()
    console = TerminalConsole(file=file, width=60)
    for one in what:
        console.print(one)
    return file.getvalue()


@pytest.mark.parametrize("text", _STEERING.values(), ids=_STEERING)
def test_text_does_not_steer_the_terminal(text: str) -> None:
    table = Table(title=Text(f"t{text}"), expand=True)
    table.add_column(Text(f"h{text}"))
    table.add_row(Text(f"before{text}after"))
    said = printed(Text(f"before{text}after"), f"before{text}after", table)
    assert not {*said} & {*text} - {*"[]2J0;title"}
    assert said.count("before") == said.count("after") == 3


@pytest.mark.parametrize("text", _STEERING.values(), ids=_STEERING)
def test_a_table_keeps_its_lines_whatever_stands_in_it(text: str) -> None:
    table = Table(expand=True)
    table.add_column("id")
    table.add_column("text")
    table.add_row(Text(f"{text}one{text}"), Text(text * 9 + "two"))
    assert {len(line) for line in printed(table).splitlines()} == {60}


def test_colours_of_the_program_stay() -> None:
    console = TerminalConsole(file=io.StringIO(), force_terminal=True, color_system="standard")
    with console.capture() as said:
        console.print(Text("red", style="red"))
    assert said.get() == "\x1b[31mred\x1b[0m\n"


def test_texts_of_every_script_and_emoji_stay() -> None:
    texts = "naïve שלום می‌خواهم 👩‍🔬\tend"
    assert printed(Text(texts, tab_size=8)).split() == texts.split()


def test_all_commands_print_by_it() -> None:
    for file in (ROOT / "lorif_assets").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            assert not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Console")) or (
                ast.unparse(node.func) == "TerminalConsole"
            ), f"{file}:{node.lineno} makes a console that data can steer"
