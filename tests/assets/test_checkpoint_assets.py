"""checkpoints: what is recorded of a checkpoint, and which layers are tracked."""

import json
import shutil

import pytest

from lorif_assets.errors import CheckpointError
from lorif_assets.lake.attribution_tables import CHECKPOINTS as CHECKPOINT_TABLE
from lorif_assets.mathematics.gradients.layers import LayerError
from tests.conftest import CHECKPOINTS, TinyProject

DATA_VERSION = "dagster/data_version"


def layers(project: TinyProject, checkpoint: str) -> list[str]:
    (recorded,) = project.table(CHECKPOINT_TABLE, checkpoint=checkpoint)["layers"]
    return [layer["layer"] for layer in json.loads(recorded)]


def test_a_checkpoint_is_recorded_with_its_fingerprints_and_layers(tiny_project: TinyProject) -> None:
    from transformers import GPT2LMHeadModel

    folder = tiny_project.root / "checkpoints" / CHECKPOINTS[1]
    (files,) = [c for c in tiny_project.opened.checkpoints.find() if c.name == CHECKPOINTS[1]]
    (row,) = tiny_project.table(CHECKPOINT_TABLE, checkpoint=CHECKPOINTS[1]).to_dicts()
    assert (row["uri"], row["step"], row["model_type"]) == (str(folder), 200, "gpt2")
    assert (row["weights_hash"], row["tokenizer_hash"]) == (files.weights_hash(), files.tokenizer_hash())
    assert row["n_parameters"] == GPT2LMHeadModel.from_pretrained(folder).num_parameters()
    assert json.loads(row["layers"])[0] == {
        "layer": "transformer.h.0.attn.c_attn",
        "d_in": 16,
        "d_out": 48,
        "d1": 8,
        "d2": 24,
    }
    figures = tiny_project.figures("checkpoints", CHECKPOINTS[1])
    assert figures["tracked_layers"] == 4
    assert figures["parameters"] == row["n_parameters"]


def test_tracked_layers_become_partitions(tiny_project: TinyProject) -> None:
    assert list(tiny_project.instance.get_dynamic_partitions("layers")) == layers(tiny_project, CHECKPOINTS[0])


def test_patterns_choose_the_layers(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"include_layers": ("*.h.1.*",), "exclude_layers": ("*.mlp.*",)})
    project.run("checkpoints", CHECKPOINTS[0])
    assert layers(project, CHECKPOINTS[0]) == ["transformer.h.1.attn.c_attn", "transformer.h.1.attn.c_proj"]


def test_a_pattern_that_matches_no_layer_is_named_and_the_table_stays(private_project: TinyProject) -> None:
    before = private_project.table(CHECKPOINT_TABLE)
    project = private_project.with_settings(recipe={"include_layers": ("*.attention.*",)})
    with pytest.raises(LayerError, match=r"layer pattern '\*\.attention\.\*' matches none"):
        project.run("checkpoints", CHECKPOINTS[0])
    assert project.table(CHECKPOINT_TABLE).equals(before)


def test_a_checkpoint_without_tokenizer_is_refused_and_the_table_stays(private_project: TinyProject) -> None:
    before = private_project.table(CHECKPOINT_TABLE)
    (private_project.root / "checkpoints" / CHECKPOINTS[0] / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        private_project.run("checkpoints", CHECKPOINTS[0])
    assert private_project.table(CHECKPOINT_TABLE).equals(before)


def test_the_data_version_covers_what_the_checkpoint_is_and_not_its_name_or_place(private_project: TinyProject) -> None:
    folder = private_project.root / "checkpoints"
    shutil.copytree(folder / CHECKPOINTS[0], folder / "step-000300")
    for name in ("step-000300", *CHECKPOINTS):
        private_project.run("checkpoints", name)
    versions = {
        name: (private_project.recorded("checkpoints", name).tags or {})[DATA_VERSION]
        for name in ("step-000300", *CHECKPOINTS)
    }
    assert versions["step-000300"] == versions[CHECKPOINTS[0]] != versions[CHECKPOINTS[1]]
