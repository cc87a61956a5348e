import subprocess
import sys
import time

import polars as pl
import pyarrow.parquet as pq
import pytest

from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.errors import RetrainingError, SettingsError
from lorif_assets.evaluation.retraining.training_recipe import retrain, retrained_model, training_recipe
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.machine_locks import WAITS
from tests import toy_recipe

CALLABLE = EvaluationSettings(trainer="tests.toy_recipe:retrain")
COMMAND = EvaluationSettings(command=(sys.executable, toy_recipe.__file__, "{examples}", "{seed}", "{output}"))


@pytest.fixture
def examples(private_project):
    return private_project.table(TRAINING_EXAMPLES).head(5).to_arrow()


@pytest.mark.parametrize("settings", [CALLABLE, COMMAND], ids=["callable", "command"])
def test_the_recipe_gets_the_examples_and_the_seed_and_leaves_a_checkpoint(private_project, examples, settings):
    checkpoint = retrain(settings, examples, 3, private_project.root / "retrained")
    assert checkpoint.name == "step-000007"
    assert checkpoint.is_complete()
    assert (private_project.root / toy_recipe.CALLS).read_text() == "5 3"
    given = pl.from_arrow(pq.read_table(private_project.root / "retrained/examples.parquet"))
    assert given["text"].to_list() == pl.from_arrow(examples)["text"].to_list()


def test_a_recipe_that_raises_is_named_with_what_it_said(private_project, examples):
    (private_project.root / "fail").write_text("0")
    with pytest.raises(RetrainingError, match=r"tests.toy_recipe:retrain' failed with RuntimeError: the machine"):
        retrain(CALLABLE, examples, 0, private_project.root / "retrained")


def test_a_command_that_fails_is_shown_with_its_last_lines(private_project, examples):
    (private_project.root / "fail").write_text("0")
    with pytest.raises(RetrainingError, match=r"ended with 1; its last lines (?s:.*)the machine is on fire"):
        retrain(COMMAND, examples, 0, private_project.root / "retrained")


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"trainer": "tests.toy_recipe:nothing"}, RetrainingError, "left no complete checkpoint"),
        ({"trainer": "tests.toy_recipe:absent"}, SettingsError, "names 'tests.toy_recipe:absent', which cannot"),
        ({"trainer": "no.such.module:f"}, SettingsError, "expected 'package.module:function'"),
        ({"command": ("/no/such/program",)}, SettingsError, "`evaluation.command` cannot be started"),
        ({}, SettingsError, "retraining needs a training recipe"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_an_error_that_says_what_to_do(
    private_project, examples, settings, error, words
):
    with pytest.raises(error, match=words):
        retrain(EvaluationSettings(**settings), examples, 0, private_project.root / "retrained")


def test_a_model_that_is_there_is_not_trained_again_until_its_version_changes(private_project, examples):
    folder, calls = private_project.root / "retrained", private_project.root / toy_recipe.CALLS
    first = retrained_model(CALLABLE, examples, 0, folder, "one")
    again = retrained_model(CALLABLE, examples, 0, folder, "one")
    assert (again.checkpoint.path, again.seconds) == (first.checkpoint.path, first.seconds)
    assert len(calls.read_text().splitlines()) == 1
    retrained_model(CALLABLE, examples, 0, folder, "two")
    assert len(calls.read_text().splitlines()) == 2


def test_what_an_interrupted_attempt_left_is_not_taken_for_a_model(private_project, examples):
    folder = private_project.root / "retrained"
    retrain(CALLABLE, examples, 0, folder)
    retrained_model(CALLABLE, examples, 0, folder, "one")
    assert len((private_project.root / toy_recipe.CALLS).read_text().splitlines()) == 2


def test_recipes_are_told_apart_by_name_and_version():
    assert training_recipe(CALLABLE) != training_recipe(CALLABLE.model_copy(update={"trainer_version": "2"}))
    with pytest.raises(ValueError, match="not both"):
        EvaluationSettings(trainer="a:b", command=("c",))


# Says that it has started, waits for a word, and then leaves something where checkpoints are expected.
LASTING = """
import pathlib, sys, time
word, output = map(pathlib.Path, sys.argv[1:])
(word / "started").touch()
while not (word / "go on").exists():
    time.sleep(0.05)
(output / "of the first").touch()
"""
KILLED = """
import sys
from pathlib import Path
import pyarrow as pa
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.evaluation.retraining.training_recipe import retrain
word, folder, lasting = sys.argv[1:]
command = (sys.executable, "-c", lasting, word, "{output}")
retrain(EvaluationSettings(command=command), pa.table({"row": [1]}), 0, Path(folder))
"""


def test_a_training_that_outlives_the_run_that_started_it_is_waited_for(private_project, examples, monkeypatch):
    folder, word = private_project.root / "retrained", private_project.root / "word"
    word.mkdir()
    first = subprocess.Popen([sys.executable, "-c", KILLED, str(word), str(folder), LASTING])
    while not (word / "started").exists():
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.wait()
    said = []

    def then_ends(sentence):
        said.append(sentence)
        assert (folder / "model").is_dir(), "nothing is removed under the one that still trains"
        (word / "go on").touch()

    monkeypatch.setattr(WAITS, "warning", then_ends)
    second = "import os, sys; sys.exit(len(os.listdir(sys.argv[1])))"
    with pytest.raises(RetrainingError, match="left no complete checkpoint"):
        retrain(EvaluationSettings(command=(sys.executable, "-c", second, "{output}")), examples, 0, folder)
    assert len(said) == 1
    assert str(folder / "training.log") in said[0]
