"""The code in the documentation works: settings load, commands and options exist, programs run."""

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lorif_assets.cli.main import main
from lorif_assets.config.settings import load_settings
from tests.conftest import CHECKPOINTS, TinyProject
from tests.docs.pages import PAGES, ROOT, Block, blocks, spans


def _lines(block: Block) -> Iterator[list[str]]:
    joined = block.code.replace("\\\n", " ")
    yield from (words for line in joined.splitlines() if (words := shlex.split(line, comments=True)))


def _assert_command_exists(words: list[str]) -> None:
    commands = [list(words)]
    if "&&" in words:
        at = words.index("&&")
        commands = [words[:at], words[at + 1 :]]
    for program, *arguments in commands:
        match program:
            case "lorif":
                _assert_options_exist(arguments)
            case "make":
                targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
                assert set(arguments) <= set(targets)
            case "python":
                assert (ROOT / arguments[0]).is_file()
            case "pip":
                extra = re.search(r"\[(\w+)\]", arguments[-1])
                project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
                assert extra
                assert extra[1] in project["optional-dependencies"]
            case "ray":
                _assert_ray_takes(arguments)
            case _:
                pytest.fail(f"{program} is no program that this test knows; teach it, or write the line as text")


def _assert_ray_takes(arguments: list[str]) -> None:
    name, *rest = arguments
    ray = pytest.importorskip("ray.scripts.scripts", reason="needs ray")
    command = ray.cli.commands[name]
    _, left, _ = command.make_parser(click.Context(command)).parse_args(args=list(rest))
    assert not left, f"ray {name} takes no {left}"


def _assert_options_exist(arguments: list[str]) -> None:
    name, *rest = arguments
    command = main.get_command(click.Context(main), name)
    assert command, f"lorif has no command {name}"
    context = click.Context(command)
    _, left, _ = command.make_parser(context).parse_args(args=list(rest))
    assert not left, f"lorif {name} takes no {left}"


@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_commands_and_their_options_exist(block: Block) -> None:
    for words in _lines(block):
        _assert_command_exists(words)


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_exist(page: str) -> None:
    for span in spans(page):
        if re.match(r"(lorif|make) [a-z]", span) and "..." not in span:
            _assert_command_exists(shlex.split(re.sub(r"\[.*\]", "", span)))


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_settings_load(block: Block, tmp_path: Path) -> None:
    (tmp_path / "lorif.toml").write_text(block.code)
    settings = load_settings(tmp_path / "lorif.toml")
    assert settings.model_fields_set - {"base"} == tomllib.loads(block.code).keys()


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    assert json.loads(block.code)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_programs_run(block: Block, tiny_project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the pages take to be there: a project in the folder, the demo's lake, a model.
    folder = tmp_path / "project"
    shutil.copytree(tiny_project.root, folder, ignore=shutil.ignore_patterns("dagster"))
    (folder / "demo").symlink_to(folder)
    (folder / "my-model").symlink_to(folder / "checkpoints" / CHECKPOINTS[-1])
    monkeypatch.chdir(folder)
    exec(compile(block.code, str(block), "exec"), {})
