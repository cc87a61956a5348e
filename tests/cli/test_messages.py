"""What a person may get wrong around the project is one message, and no traceback."""

import logging
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lorif_assets.cli.main import _printed_lines
from lorif_assets.config.sources import Source
from lorif_assets.data.questions import completion_question, conversation_question
from lorif_assets.data.shards import list_shards
from lorif_assets.errors import SettingsError, SourceError
from lorif_assets.progress import LINES
from lorif_assets.tracking import Tracking
from tests.cli.conftest import Lorif

# What Python makes of an argument with a byte that is not UTF-8.
UNDECODABLE = "caf\udce9"


def said(result: Result) -> str:
    if result.exception and not isinstance(result.exception, SystemExit):
        pytest.fail("".join(traceback.format_exception(result.exception)))
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--completion", UNDECODABLE), "the completion is not valid Unicode: lone surrogate at character 3"),
        (
            ("--prompt", UNDECODABLE, "--completion", " file"),
            "the prompt is not valid Unicode: lone surrogate at character 3",
        ),
        (("--assistant", "a", "--user", UNDECODABLE), "content of message 0 is not valid Unicode"),
        (("--completion", " file", "--checkpoint", UNDECODABLE), "cannot be asked: it is not attributed"),
        (("--messages", UNDECODABLE), "No such file or directory"),
    ],
)
def test_arguments_of_attribute_that_are_not_utf_8(
    arguments: tuple[str, ...], message: str, lorif: Lorif, config: tuple[str, Path]
) -> None:
    result = lorif("attribute", *config, *arguments)
    assert result.exit_code != 0
    assert message in said(result)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"role": "user", "content": "\xff"}]', "is no JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"[" * 100_000, "is no JSON: lists and objects are nested more than 100 deep"),
        (b'[{"role": "assistant", "role": "user", "content": "a"}]', "is no JSON: the key 'role' is there 2 times"),
    ],
)
def test_a_file_of_messages_that_cannot_be_read(
    content: bytes, message: str, lorif: Lorif, config: tuple[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "chat.json").write_bytes(content)
    result = lorif("attribute", *config, "--messages", tmp_path / "chat.json")
    assert result.exit_code == 1
    assert message in said(result)


def test_questions_from_python_are_refused_alike() -> None:
    with pytest.raises(SourceError, match="the completion is not valid Unicode"):
        completion_question("", UNDECODABLE)
    deep: Any = "a"
    for _ in range(900):
        deep = [deep]
    with pytest.raises(SourceError, match="nested more than 100 deep"):
        conversation_question([{"role": "assistant", "content": "a", "more": deep}], "the chat")


def test_a_settings_file_may_have_any_name(lorif: Lorif, tmp_path: Path) -> None:
    assert "wrote" in said(lorif("init", str(tmp_path / UNDECODABLE)))


@pytest.mark.parametrize("command", ["materialize", "ui", "evaluate"])
def test_a_home_of_dagsters_that_is_a_file(
    command: str, lorif: Lorif, config: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("")
    for home, fault in ((tmp_path / "home", "it is a file"), (tmp_path / "home/below", "Not a directory")):
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        result = lorif(command, *config)
        assert result.exit_code == 1
        assert f"Dagster cannot keep its records in {home}: {fault}; correct $DAGSTER_HOME" in said(result)


def test_an_mlflow_experiment_that_was_deleted(mlflow_uri: str) -> None:
    from mlflow.tracking import MlflowClient

    tracking = Tracking(uri=mlflow_uri, experiment="deleted")
    with tracking.materialization("step-1", "query_scores", {}, {}):
        pass
    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("deleted")
    assert experiment
    client.delete_experiment(experiment.experiment_id)
    message = rf"'deleted' was deleted: restore it \(`mlflow experiments restore --experiment-id {experiment.experiment_id}`\)"
    with pytest.raises(SettingsError, match=message), tracking.materialization("step-1", "query_scores", {}, {}):
        pass
    client.restore_experiment(experiment.experiment_id)
    with tracking.materialization("step-1", "query_scores", {}, {}) as run:
        assert run


STATES: Mapping[str, bytes] = {
    "a list": b"[]",
    "a text": b'"state"',
    "null": b"null",
    "no JSON": b"{",
    "no text": b"\xff",
    "files of another shape": b'{"_data_files": 5}',
    "a file without a name": b'{"_data_files": [{}], "_fingerprint": "f", "_format_type": null}',
    "a file of a number": b'{"_data_files": [5]}',
    "nested too deep": b"[" * 100_000,
    "nothing": b"{}",
}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
def test_a_saved_dataset_whose_state_is_of_another_shape(name: str, kind: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / name).write_bytes(STATES[kind])
    source = Source(name="docs", path="saved")
    if name == "dataset_info.json" and STATES[kind].startswith(b"{") and kind != "no JSON":
        # An object of fields that `datasets` does not know says nothing wrong.
        assert list_shards(source, tmp_path)[0].rows == 1
        return
    with pytest.raises(SourceError, match=r"saved cannot be read as a saved `datasets` directory: .* Write it again"):
        list_shards(source, tmp_path)


@pytest.mark.parametrize("name", ["history/runs.db", "history/runs/index.db", "schedules/schedules.db"])
def test_a_damaged_database_of_dagster_is_named_with_what_mends_it(
    lorif: Lorif, config: tuple[str, Path], name: str
) -> None:
    assert lorif("materialize", *config).exit_code == 0
    file = config[1].parent / "dagster_home" / name
    file.write_bytes(b"no database" * 1_000)
    result = lorif("materialize", *config)
    assert result.exit_code == 1
    assert f"Dagster's records in {file} are damaged" in said(result)
    file.unlink()
    assert lorif("materialize", *config).exit_code == 0


def test_what_is_waited_for_is_printed_once_where_a_library_prints_all_logs_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    others = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(others)
    try:
        with _printed_lines():
            LINES.warning("a line")
    finally:
        logging.getLogger().removeHandler(others)
    assert capsys.readouterr().err == "a line\n"
