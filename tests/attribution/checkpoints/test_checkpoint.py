"""One object for a checkpoint that is attributed: read once, hashed once, and refused where its files changed."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.stored import factors as stored_factors
from lorif_assets.errors import MismatchError
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from tests.conftest import CHECKPOINTS, TinyProject

CHECKPOINT = CHECKPOINTS[0]


def stored(project: TinyProject) -> StoredCheckpoint:
    return StoredCheckpoint.read(project.lake, CHECKPOINT, project.settings.recipe)


def load(project: TinyProject, checkpoint: StoredCheckpoint | None = None) -> None:
    (checkpoint or stored(project)).load(project.opened.checkpoints, DeviceGroup.of("cpu"))


def weights(project: TinyProject) -> Path:
    return project.root / "checkpoints" / CHECKPOINT / "model.safetensors"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of which files the bytes were hashed."""
    found: list[str] = []
    plain = {"weights": CheckpointFiles.weights_hash, "tokenizer": CheckpointFiles.tokenizer_hash}

    def counting(what: str) -> object:
        def hashes(files: CheckpointFiles) -> str:
            found.append(what)
            return plain[what](files)

        return hashes

    for what in plain:
        monkeypatch.setattr(CheckpointFiles, f"{what}_hash", counting(what))
    return found


def test_files_that_stand_as_they_were_recorded_are_not_hashed_again(
    tiny_project: TinyProject, hashed: list[str]
) -> None:
    load(tiny_project)
    assert hashed == []


def test_files_that_were_only_touched_are_hashed_and_accepted(private_project: TinyProject, hashed: list[str]) -> None:
    os.utime(weights(private_project), ns=(1, 1))
    load(private_project)
    assert hashed == ["weights", "tokenizer"]


@pytest.mark.parametrize("what", ["weights", "tokenizer"])
def test_files_that_changed_are_refused_naming_what(private_project: TinyProject, what: str) -> None:
    file = weights(private_project)
    if what == "tokenizer":
        file = file.with_name("tokenizer.json")
    content = bytearray(file.read_bytes())
    # The same length: only the time of the file tells.
    content[-2] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        MismatchError, match=f"the {what} of checkpoint '{CHECKPOINT}' .* changed since it was recorded"
    ):
        load(private_project)


def test_a_record_without_sizes_and_times_has_its_files_hashed(tiny_project: TinyProject, hashed: list[str]) -> None:
    recorded = stored(tiny_project)
    load(tiny_project, replace(recorded, record=replace(recorded.record, files_version=None)))
    assert hashed == ["weights", "tokenizer"]


def test_what_changes_while_a_checkpoint_is_recorded_is_found_when_it_is_loaded(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer that writes between hashing and noting sizes and times must not have its new files trusted."""
    plain = CheckpointFiles.weights_hash

    def overtaken(files: CheckpointFiles) -> str:
        found = plain(files)
        content = bytearray(weights(private_project).read_bytes())
        content[-1] ^= 1
        weights(private_project).write_bytes(content)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFiles, "weights_hash", overtaken)
        private_project.run("checkpoints", CHECKPOINT)
    with pytest.raises(MismatchError, match="the weights of checkpoint"):
        load(private_project)


def test_factors_and_preconditioners_are_looked_up_once(
    tiny_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = stored(tiny_project)
    assert checkpoint.preconditioners.rows.keys() == checkpoint.record.layer_shapes.keys()
    monkeypatch.setattr(stored_factors, "file_constants", None)
    loaded = checkpoint.load(tiny_project.opened.checkpoints, DeviceGroup.of("cpu"))
    assert loaded.stored.factors is checkpoint.factors
    assert loaded.stored.preconditioners is checkpoint.preconditioners
