"""Checkpoints of strangers, whose descriptions are no descriptions or ask for too much: refused in words."""

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lorif_assets.config.limits import MIB, CheckpointLimits
from lorif_assets.config.settings import load_settings
from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.project import Project
from resources.checkpoints import CheckpointsResource


@pytest.fixture
def folder(tmp_path: Path, saved_model: Mapping[str, bytes]) -> Path:
    for name, content in saved_model.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def files(folder: Path) -> CheckpointFiles:
    return CheckpointFiles("c", folder, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"n_layer": 10**9},
        {"model_type": "llama", "num_hidden_layers": 10**9},
        {"model_type": "mixtral", "num_local_experts": 10**9},
        {"model_type": "qwen2", "text_config": {"num_hidden_layers": 10_001}},
    ],
)
def test_a_configuration_of_a_billion_layers_is_refused_before_one_is_made(
    folder: Path, fields: dict[str, Any]
) -> None:
    change(folder / "config.json", **fields)
    checkpoints = Checkpoints(path=str(folder))
    for read in (checkpoints.config, checkpoints.skeleton):
        with pytest.raises(CheckpointError, match=r"config\.json has n.* = 1.*`checkpoints\.limits\.layers` = 10000"):
            read(files(folder))


def test_numbers_that_count_no_layers_may_be_large(folder: Path) -> None:
    change(folder / "config.json", shared_expert_intermediate_size=20_480, layer_norm_epsilon=1e-5, vocab_sizes=[10**9])
    assert Checkpoints(path=str(folder)).config(files(folder)).n_layer == 2


def test_files_that_describe_it_are_refused_where_they_are_too_large(folder: Path) -> None:
    for name, read in (("config.json", "config"), ("tokenizer.json", "load_tokenizer")):
        checkpoints = Checkpoints(path=str(folder), limits=CheckpointLimits(description_mib=1))
        getattr(checkpoints, read)(files(folder))
        with (folder / name).open("ab") as file:
            file.write(b" " * MIB)
        with pytest.raises(
            CheckpointError, match=rf"{name} has 1,.* bytes, and `checkpoints\.limits\.description_mib` = 1"
        ):
            getattr(checkpoints, read)(files(folder))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"version": "9.0", "added_tokens": []}', ""),
        ("[" * 100_000, "recursion"),
        ('{"version": "1.0", "added_tokens": [{"id": -1}]}', ""),
        ("null", ""),
    ],
)
def test_a_tokenizer_that_is_none_is_refused_whatever_its_library_raises(
    folder: Path, content: str, reason: str
) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=f"cannot load the tokenizer of .*{reason}"):
        Checkpoints(path=str(folder)).load_tokenizer(files(folder))


@pytest.mark.parametrize("n", [8, 40])
def test_a_tokenizer_whose_replacements_double_a_text_again_and_again_is_refused(folder: Path, n: int) -> None:
    change(
        folder / "tokenizer.json",
        normalizer={
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * n,
        },
    )
    checkpoints = Checkpoints(path=str(folder))
    if n == 8:
        assert len(checkpoints.load_tokenizer(files(folder))("a")["input_ids"]) > 16
        return
    with pytest.raises(CheckpointError, match=r"normalizer .* 1,099,511,627,776 times as long, .*limits\.text_growth"):
        checkpoints.load_tokenizer(files(folder))


@pytest.mark.parametrize("content", ["[" * 100_000, "{}", "[]", '{"model_type": "gpt2", "torch_dtype": "float10000"}'])
def test_so_is_a_configuration(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"configuration of|causal language model"):
        Checkpoints(path=str(folder)).skeleton(files(folder))


@pytest.mark.parametrize(
    ("length", "header", "reason"),
    [
        (1 << 30, b"", "no model: .*header too large"),
        (1 << 62, b"", "no model: .*header too large"),
        (None, b'{"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}', "cut short"),
        (
            None,
            b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [4611686018427387904, 4611686018427387912]}}',
            "cut",
        ),
        (None, b'{"w": {"dtype": "F32", "shape": [4611686018427387904, 8], "data_offsets": [0, 8]}}', "cut short"),
        (None, b"[" * 100_000, "cut short"),
    ],
)
def test_weights_whose_header_claims_what_is_not_there_are_not_whole(
    folder: Path, length: int | None, header: bytes, reason: str
) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length or len(header)) + header + b"\0" * 8)
    fault = files(folder).fault() or ""
    assert re.search(rf"model\.safetensors is {reason}", fault)


def test_limits_of_the_settings_reach_the_checkpoints_of_a_project_and_of_dagster(tmp_path: Path) -> None:
    (tmp_path / "lorif.toml").write_text("[checkpoints.limits]\nlayers = 7\n")
    opened = Project.of(load_settings(tmp_path / "lorif.toml")).checkpoints
    assert opened.limits == CheckpointLimits(layers=7)
    assert CheckpointsResource.of(opened).limits == {"description_mib": 512, "text_growth": 10_000, "layers": 7}
