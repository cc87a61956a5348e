"""A model's folder from the hub: the files that it is loaded from, and no others."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from lorif_assets.errors import CheckpointError, HubError
from lorif_assets.models.checkpoints import CheckpointFiles
from tests.hub_stand_in import HubStandIn, fetched


def test_a_model_at_a_branch_lies_where_that_at_its_commit_does(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    commit = hub.model("org/tiny").commit(saved_model)
    folder = fetched("hf://org/tiny")
    CheckpointFiles("tiny", folder, None).check()
    assert fetched("hf://org/tiny") == fetched(f"hf://org/tiny@{commit}") == folder


def test_of_weights_in_several_forms_those_that_transformers_loads_are_fetched(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    others = (
        "pytorch_model.bin",
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "original/model.pth",
        "tf_model.h5",
    )
    hub.model("org/tiny").commit({**saved_model, **dict.fromkeys(others, b"large")})
    folder = fetched("hf://org/tiny")
    assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert not {*others} & set(hub.downloads())


def test_weights_in_several_files_are_those_of_the_index(hub: HubStandIn, saved_model: Mapping[str, bytes]) -> None:
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.dumps({"weight_map": {"a": parts[0], "b": parts[1]}}).encode()
    rest = {name: content for name, content in saved_model.items() if name != "model.safetensors"}
    hub.model("org/tiny").commit(
        {**rest, **dict.fromkeys([*parts, "consolidated.safetensors"], b"x"), "model.safetensors.index.json": index}
    )
    assert sorted(file.name for file in fetched("hf://org/tiny").glob("*.safetensors")) == parts


@pytest.mark.parametrize(
    ("named", "taken"),
    [
        (None, "model.safetensors"),
        ("best.safetensors", "best.safetensors"),
        ("model.safetensors.index.json", "model-00001-of-00001.safetensors"),
    ],
)
def test_of_weights_in_one_file_and_in_several_those_are_fetched_that_transformers_takes(
    hub: HubStandIn, saved_model: Mapping[str, bytes], tmp_path: Path, named: str | None, taken: str
) -> None:
    shard, weights = "model-00001-of-00001.safetensors", saved_model["model.safetensors"]
    files = {
        **saved_model,
        **dict.fromkeys([shard, "best.safetensors"], weights),
        "config.json": json.dumps(json.loads(saved_model["config.json"]) | {"transformers_weights": named}).encode(),
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": shard}}).encode(),
    }
    hub.model("org/tiny").commit(files)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    folder = fetched("hf://org/tiny")
    assert [file.name for file in folder.glob("*.safetensors")] == [taken]
    assert [file.name for file in CheckpointFiles("tiny", tmp_path, None).taken_files] == [taken]


def test_a_model_in_a_folder_of_its_repository_is_fetched_alone(
    hub: HubStandIn, saved_model: Mapping[str, bytes]
) -> None:
    folders = {f"{folder}/{name}": content for folder in ("step-1", "step-2") for name, content in saved_model.items()}
    hub.model("org/run").commit(folders)
    folder = fetched("hf://org/run@main/step-2")
    CheckpointFiles("step-2", folder, 2).check()
    assert folder.name == "step-2"
    assert all(path.startswith(("step-2/", "README", ".git")) for path in hub.downloads())


def test_pickled_weights_are_refused_and_not_downloaded(hub: HubStandIn, saved_model: Mapping[str, bytes]) -> None:
    rest = {name: content for name, content in saved_model.items() if name != "model.safetensors"}
    hub.model("org/old").commit({**rest, "pytorch_model.bin": b"pickle"})
    with pytest.raises(
        CheckpointError, match=r"hf://org/old@\w{40} has no \*.safetensors weights; found pytorch_model.bin"
    ):
        fetched("hf://org/old")
    assert "pytorch_model.bin" not in hub.downloads()


def test_offline_a_model_in_the_cache_is_found(
    hub: HubStandIn, saved_model: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.model("org/tiny").commit(saved_model)
    folder = fetched("hf://org/tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.close()
    assert fetched("hf://org/tiny") == folder
    with pytest.raises(HubError, match=r"hf://org/other, revision 'main', is not in the cache .*offline mode"):
        fetched("hf://org/other")
