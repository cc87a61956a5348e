"""A training recipe is known by its name and version; that its file changed since models were retrained is told."""

import sys
from pathlib import Path

import polars as pl
import pytest

from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.evaluation.retraining.trainer_code import changed_trainer_notice, trainer_hash
from lorif_assets.lake.evaluation_tables import SUBSET_LOSSES
from tests.conftest import TinyProject


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of a trainer."""
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "a_training_recipe.py"
    file.write_text("def train(examples, seed, output): ...")
    return file


def trained_by(project: TinyProject, subset: str, code: str | None) -> None:
    """Store the losses of a model that was retrained on a subset by some code."""
    row = {"subset": subset, "seed": "0", "query_set": "a", "query_id": "q", "loss": 1.0, "n_target_tokens": 1}
    rows = pl.DataFrame([{**row, "seconds": 1.0, "computed_from": "x", "trainer_hash": code}])
    types = {"loss": pl.Float32, "n_target_tokens": pl.Int32, "trainer_hash": pl.String}
    project.lake.replace(SUBSET_LOSSES, {"subset": subset, "seed": "0"}, rows.cast(types).to_arrow())


def test_models_that_other_code_trained_are_counted_and_what_to_change_is_said(
    private_project: TinyProject, recipe: Path
) -> None:
    project = private_project.with_settings(evaluation={"trainer": "a_training_recipe:train"})
    trained_by(project, "0", trainer_hash(project.settings.evaluation))
    trained_by(project, "1", None)
    assert changed_trainer_notice(project.settings, project.lake) is None
    recipe.write_text("def train(examples, seed, output): 'otherwise'")
    notice = changed_trainer_notice(project.settings, project.lake) or ""
    assert f"{recipe} changed since 1 of 2 models were retrained" in notice
    assert "change `evaluation.trainer_version`" in notice


def test_of_a_command_the_files_that_it_names_are_its_code(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("1")
    command = EvaluationSettings(command=("python", str(script), "{output}"))
    before = trainer_hash(command)
    script.write_text("2")
    assert before is not None
    assert trainer_hash(command) != before


def test_what_has_no_file_has_no_hash() -> None:
    for settings in ({}, {"command": ("true",)}, {"trainer": "no.such.module:f"}, {"trainer": "sys:exit"}):
        assert trainer_hash(EvaluationSettings(**settings)) is None, (settings, sys.path)
