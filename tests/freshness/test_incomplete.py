"""A checkpoint that lost a file is never left out in silence: it is said everywhere, and its stored results are marked."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from lorif_assets.api.status import project_status
from lorif_assets.checks.freshness import attribution_is_fresh
from lorif_assets.errors import LorifError, SettingsError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, REPORTS
from tests.automation.test_re_attribution import evaluate
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

OLD, NEW = CHECKPOINTS
LOSSES: dict[str, Callable[[Path], object]] = {
    "weights deleted": lambda folder: (folder / "model.safetensors").unlink(),
    "weights emptied": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "weights cut": lambda folder: os.truncate(folder / "model.safetensors", 1_000),
    "tokenizer deleted": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer emptied": lambda folder: (folder / "tokenizer.json").write_bytes(b""),
    "configuration emptied": lambda folder: (folder / "config.json").write_bytes(b""),
}


def page(project: TinyProject, checkpoint: str) -> str:
    (uri,) = project.table(REPORTS, checkpoint=checkpoint, query_set=QUERY_SET)["uri"]
    return Path(uri).read_text()


def lose(project: TinyProject, what: str = "weights deleted", *, seconds_ago: int = 0) -> None:
    """Let the newest checkpoint lose a file, so long ago."""
    folder = project.root / "checkpoints" / NEW
    LOSSES[what](folder)
    if seconds_ago:
        for path in (*folder.iterdir(), folder):
            time = path.stat().st_mtime - seconds_ago
            os.utime(path, (time, time))


@pytest.mark.parametrize("what", LOSSES)
@pytest.mark.parametrize("seconds_ago", [0, 3_600])
def test_it_is_said_which_checkpoint_newest_means_and_what_the_other_lacks(
    private_project: TinyProject, what: str, seconds_ago: int
) -> None:
    lose(private_project, what, seconds_ago=seconds_ago)
    project = private_project.with_settings(active={"checkpoints": "newest"})
    assert list(project.freshness.active_checkpoints) == [OLD]
    status = project_status(project.opened)
    said = " ".join([*status.notes, *(f"checkpoint {fault}" for fault in status.faults.values())])
    assert f"the newest checkpoint is {OLD} now, as {NEW} cannot be attributed" in said
    assert str(project.root / "checkpoints" / NEW) in said
    for sensor in ("discovery", "re_attribution_sensor"):
        answer = evaluate(project, sensor)
        if isinstance(answer, dg.SkipReason):
            assert NEW in str(answer.skip_message)


def test_among_all_checkpoints_it_is_said_that_one_is_left_out(private_project: TinyProject) -> None:
    lose(private_project)
    (note,) = project_status(private_project.opened).notes
    assert note.startswith(f"the checkpoint {NEW} is left out: ")
    assert note.endswith("what was computed of it stays, and follows no change")
    result = attribution_is_fresh(private_project.settings, private_project.lake, private_project.opened.checkpoints)
    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    assert f"checkpoint {NEW}" in (result.description or "")


@pytest.mark.parametrize("seconds_ago", [3_600, -86_400], ids=["an hour ago", "by a clock that is a day ahead"])
def test_materialize_ends_with_the_fault_once_nobody_can_be_writing_the_checkpoint(
    private_project: TinyProject, seconds_ago: int
) -> None:
    lose(private_project, seconds_ago=seconds_ago)
    with pytest.raises(LorifError, match=rf"checkpoint {NEW}: .* has no \*\.safetensors weights"):
        private_project.update()


def test_its_results_stay_and_reports_are_marked_until_the_file_is_back(private_project: TinyProject) -> None:
    shutil.copytree(private_project.root / "checkpoints" / NEW, private_project.root / "copy")
    scores = private_project.table(QUERY_SCORES, checkpoint=NEW)
    lose(private_project)
    assert private_project.update() == {"attribution_report": {f"{OLD}|{QUERY_SET}", f"{NEW}|{QUERY_SET}"}}
    assert "Files of this checkpoint are missing now (" in page(private_project, NEW)
    assert f"This is the newest checkpoint that is complete: {NEW} is not (" in page(private_project, OLD)
    assert private_project.table(QUERY_SCORES, checkpoint=NEW).equals(scores)
    assert private_project.update() == {}
    shutil.copy2(private_project.root / "copy/model.safetensors", private_project.root / "checkpoints" / NEW)
    assert private_project.update() == {"attribution_report": {f"{OLD}|{QUERY_SET}", f"{NEW}|{QUERY_SET}"}}
    assert "missing now" not in page(private_project, NEW) + page(private_project, OLD)


def test_a_new_checkpoint_that_is_still_being_written_marks_nothing(private_project: TinyProject) -> None:
    new = private_project.root / "checkpoints/step-000300"
    shutil.copytree(private_project.root / "checkpoints" / NEW, new)
    os.truncate(new / "model.safetensors", 1_000)
    assert private_project.update() == {}
    (note,) = project_status(private_project.opened).notes
    assert note.startswith("the checkpoint step-000300 is left out: ")
    assert "cut short, or still being written" in note


def test_one_that_the_settings_name_is_refused_with_what_it_lacks(private_project: TinyProject) -> None:
    lose(private_project)
    named = private_project.with_settings(active={"checkpoints": (NEW,)})
    with pytest.raises(SettingsError, match=rf"names '{NEW}', which cannot be used: .*no \*\.safetensors weights"):
        _ = named.freshness.active_checkpoints
