"""Checkpoints from MLflow's model registry: which versions count, how they are named, fetched once and assembled."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lorif_assets.config.sections import CheckpointSettings
from lorif_assets.config.settings import Settings, load_settings
from lorif_assets.errors import CheckpointError, SettingsError
from lorif_assets.lake.attribution_tables import QUERY_SCORES
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.artifact_bases import _LOCAL_BASE
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.places.registry import RegisteredCheckpoints
from lorif_assets.project import Project
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject, tiny_tokenizer
from tests.models.tiny_adapters import lora, with_peft, write_adapter, write_base


@dataclass(frozen=True)
class Registry:
    """A registered model of its own in the tests' MLflow database, and copies of the tiny project's checkpoints."""

    client: Any
    uri: str
    model: str
    folder: Path
    sources: Path

    def copy(self, checkpoint: str = CHECKPOINTS[0]) -> Path:
        path = self.folder / f"artifact-{len(list(self.folder.iterdir()))}"
        shutil.copytree(self.sources / checkpoint, path)
        return path

    def register(self, source: Path, **options: Any) -> str:
        return str(self.client.create_model_version(self.model, str(source), **options).version)

    def checkpoints(self, **options: Any) -> RegisteredCheckpoints:
        given = {
            "path": "",
            "registered_model": self.model,
            "registry_uri": self.uri,
            "cache": str(self.folder / "cache"),
        }
        return RegisteredCheckpoints(**{**given, **options})


@pytest.fixture
def registry(mlflow_uri: str, tiny_project: TinyProject, tmp_path: Path, request: pytest.FixtureRequest) -> Registry:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_uri, registry_uri=mlflow_uri)
    model = f"model-{abs(hash(request.node.nodeid)) % 10**8}"
    client.create_registered_model(model)
    return Registry(client, mlflow_uri, model, tmp_path, tiny_project.root / "checkpoints")


def names(found: Sequence[CheckpointFiles]) -> list[str]:
    return [checkpoint.name for checkpoint in found]


# --- Which versions --------------------------------------------------------------------------------------------------


def test_versions_are_named_after_model_and_number_and_come_in_their_order(registry: Registry) -> None:
    for _ in range(11):
        registry.register(registry.sources / CHECKPOINTS[0])
    found = registry.checkpoints().find()
    assert names(found) == [f"{registry.model}:{version}" for version in range(1, 12)]
    assert all(checkpoint.is_complete() for checkpoint in found)
    assert not (registry.folder / "cache").exists()


def test_a_version_that_is_not_ready_is_left_for_later(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register(registry.sources / CHECKPOINTS[0])
    from mlflow.tracking import MlflowClient

    pending = registry.client.search_model_versions(f"name = '{registry.model}'")
    pending[0]._status = "PENDING_REGISTRATION"
    monkeypatch.setattr(MlflowClient, "search_model_versions", lambda _self, _filter: pending)
    assert registry.checkpoints().find() == []


def test_the_step_is_told_by_the_version_else_by_its_run_else_it_is_the_number(registry: Registry) -> None:
    experiment = registry.client.create_experiment(registry.model)
    run = registry.client.create_run(experiment, tags={"step": "400"}).info.run_id
    source = registry.sources / CHECKPOINTS[0]
    registry.register(source, run_id=run)
    registry.register(source, tags={"step": "150"})
    registry.register(source, run_id=run, tags={"step": "300"})
    registry.register(source, tags={"step": "last"})
    found = registry.checkpoints().find()
    assert [(c.name.split(":")[1], c.step) for c in found] == [("4", 4), ("2", 150), ("3", 300), ("1", 400)]


@pytest.mark.parametrize(("tag", "step"), [("1e3", 1000), ("1000.0", 1000), ("step-2000", 2000), ("1,500", 1500)])
def test_a_step_is_read_as_people_write_it(registry: Registry, tag: str, step: int) -> None:
    source = registry.sources / CHECKPOINTS[0]
    registry.register(source, tags={"step": tag})
    registry.register(source, tags={"step": "900"})
    found = registry.checkpoints().look()
    assert [(c.name.split(":")[1], c.step) for c in found.checkpoints] == [("2", 900), ("1", step)]
    assert not found.notes


@pytest.mark.parametrize("tag", ["last", "-5", "²", "0.5"])
def test_a_tag_that_says_no_step_is_said_with_what_stands_in_for_it(registry: Registry, tag: str) -> None:
    registry.register(registry.sources / CHECKPOINTS[0], tags={"step": tag})
    found = registry.checkpoints().look()
    assert [checkpoint.step for checkpoint in found.checkpoints] == [1]
    assert found.notes == [
        f"{registry.model}:1 has the tag `step` = {tag!r}, which is no whole number of steps: it is ordered by its version, "
        "as step 1. Correct the tag"
    ]


def test_with_an_alias_only_the_version_that_has_it_counts(registry: Registry) -> None:
    source = registry.sources / CHECKPOINTS[0]
    for _ in range(2):
        registry.register(source)
    registry.client.set_registered_model_alias(registry.model, "champion", "1")
    assert names(registry.checkpoints(alias="champion").find()) == [f"{registry.model}:1"]
    registry.client.set_registered_model_alias(registry.model, "champion", "2")
    assert names(registry.checkpoints(alias="champion").find()) == [f"{registry.model}:2"]


def test_versions_stand_beside_the_checkpoints_of_a_directory(registry: Registry) -> None:
    registry.register(registry.sources / CHECKPOINTS[0], tags={"step": "150"})
    found = registry.checkpoints(path=str(registry.sources)).find()
    assert names(found) == [CHECKPOINTS[0], f"{registry.model}:1", CHECKPOINTS[1]]


def test_a_model_or_alias_that_is_not_there_is_an_error_that_names_the_settings(registry: Registry) -> None:
    for options in ({"registered_model": "nothing"}, {"alias": "champion"}):
        with pytest.raises(CheckpointError, match=r"cannot be read; correct `checkpoints\.registered_model`"):
            registry.checkpoints(**options).find()


def test_a_name_keeps_what_a_partition_can_have_of_it(registry: Registry) -> None:
    registry.client.create_registered_model(f"{registry.model} |ü")
    registry.client.create_model_version(f"{registry.model} |ü", str(registry.sources / CHECKPOINTS[0]))
    assert names(registry.checkpoints(registered_model=f"{registry.model} |ü").find()) == [f"{registry.model}__ü:1"]


# --- Files -----------------------------------------------------------------------------------------------------------


def test_a_version_is_downloaded_once_whole_with_the_hashes_of_its_files(registry: Registry) -> None:
    artifact = registry.copy()
    registry.register(artifact)
    files = registry.checkpoints().get(f"{registry.model}:1")
    original = CheckpointFiles("x", registry.sources / CHECKPOINTS[0], None)
    assert (files.weights_hash(), files.tokenizer_hash()) == (original.weights_hash(), original.tokenizer_hash())
    assert files.path.parent == registry.folder / "cache"
    shutil.rmtree(artifact)
    assert registry.checkpoints().get(f"{registry.model}:1").weights_hash() == original.weights_hash()


def as_flavour(folder: Path) -> Path:
    """Sort a checkpoint's files into the folders of MLflow's transformers flavour."""
    model, tokenizer = folder / "model", folder / "components/tokenizer"
    model.mkdir()
    tokenizer.mkdir(parents=True)
    for file in [file for file in folder.iterdir() if file.is_file()]:
        file.rename((tokenizer if file.name.startswith("tokenizer") else model) / file.name)
    (folder / "MLmodel").write_text("flavors: {transformers: {}}")
    return folder


def in_a_folder(folder: Path) -> Path:
    files = list(folder.iterdir())
    (folder / "checkpoint").mkdir()
    for file in files:
        file.rename(folder / "checkpoint" / file.name)
    return folder


@pytest.mark.parametrize("layout", [as_flavour, in_a_folder])
def test_model_and_tokenizer_are_found_wherever_the_artifact_has_them(
    registry: Registry, layout: Callable[[Path], Path]
) -> None:
    registry.register(layout(registry.copy()))
    checkpoints = registry.checkpoints()
    files = checkpoints.get(f"{registry.model}:1")
    original = CheckpointFiles("x", registry.sources / CHECKPOINTS[0], None)
    assert (files.weights_hash(), files.tokenizer_hash()) == (original.weights_hash(), original.tokenizer_hash())
    assert len(checkpoints.load_tokenizer(files)) == 280


@pytest.mark.slow
def test_what_mlflows_transformers_flavour_saves_is_loaded(registry: Registry) -> None:
    import mlflow
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = registry.sources / CHECKPOINTS[0]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    saved = registry.folder / "saved"
    mlflow.transformers.save_model(
        {"model": model, "tokenizer": tokenizer}, str(saved), task="text-generation", pip_requirements=["torch"]
    )
    registry.register(saved)
    checkpoints = registry.checkpoints()
    loaded = checkpoints.load_model(checkpoints.get(f"{registry.model}:1"), "float32", DeviceGroup.of("cpu"))
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


# --- Adapters --------------------------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "llama", tiny_tokenizer())


def as_peft_flavour(adapter: Path, into: Path, description: str = "") -> Path:
    """Sort an adapter and its base's tokenizer into the folders of MLflow's transformers flavour."""
    shutil.copytree(adapter, into / "peft")
    tiny_tokenizer().save_pretrained(into / "components/tokenizer")
    (into / "MLmodel").write_text(f"flavors:\n  transformers:\n    peft_adaptor: peft\n{description}")
    return into


def same_as_merged(registry: Registry, base: Path, adapter: Path) -> RegisteredCheckpoints:
    import torch

    checkpoints = registry.checkpoints()
    files = checkpoints.get(f"{registry.model}:1")
    model = checkpoints.load_model(files, "float32", DeviceGroup.of("cpu"))
    expected = with_peft(base, adapter).merge_and_unload().state_dict()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in expected.items())
    assert len(checkpoints.load_tokenizer(files)) == 280
    return checkpoints


def test_an_adapter_in_the_registry_comes_with_the_base_that_it_names(registry: Registry, base: Path) -> None:
    adapter = write_adapter(registry.folder / "adapter", base)
    registry.register(as_peft_flavour(adapter, registry.folder / "artifact"), tags={"step": "40"})
    checkpoints = registry.checkpoints()
    # Until it is downloaded, nobody knows that it is an adapter.
    assert names(checkpoints.find()) == [f"{registry.model}:1"]
    same_as_merged(registry, base, adapter)
    assert [(c.name, c.step) for c in checkpoints.find()] == [("base-llama", 0), (f"{registry.model}:1", 40)]


def test_a_folder_of_an_adapter_in_the_registry_is_one(registry: Registry, base: Path) -> None:
    adapter = write_adapter(registry.folder / "adapter", base)
    registry.register(adapter)
    same_as_merged(registry, base, adapter)


def test_the_base_of_an_adapter_in_the_registry_is_part_of_its_fingerprint(registry: Registry, base: Path) -> None:
    registry.register(write_adapter(registry.folder / "adapter", base))
    files = registry.checkpoints().get(f"{registry.model}:1")
    before = files.version(), files.weights_hash()
    write_base(base, tiny_tokenizer(), seed=1)
    assert files.version() != before[0]
    assert files.weights_hash() != before[1]


def test_a_base_that_mlflow_was_told_is_found_where_the_adapters_own_is_gone(registry: Registry, base: Path) -> None:
    adapter = write_adapter(registry.folder / "adapter", base)
    artifact = as_peft_flavour(adapter, registry.folder / "artifact", f"    local_base_model_path: {base}\n")
    config = artifact / "peft/adapter_config.json"
    config.write_text(config.read_text().replace(str(base), "/training/machine/llama"))
    registry.register(artifact)
    same_as_merged(registry, base, adapter)


def test_an_adapter_in_the_registry_whose_base_is_gone_is_refused_with_the_setting(
    registry: Registry, base: Path
) -> None:
    adapter = write_adapter(registry.folder / "adapter", base)
    registry.register(as_peft_flavour(adapter, registry.folder / "artifact"))
    moved = base.rename(base.with_name("moved"))
    with pytest.raises(CheckpointError, match=r"Set `checkpoints\.base_model`"):
        registry.checkpoints().get(f"{registry.model}:1")
    assert registry.checkpoints(base_model=str(moved)).get(f"{registry.model}:1").base.path == moved


@pytest.mark.slow
def test_what_mlflow_saves_of_a_peft_model_is_loaded_without_the_machine_it_was_trained_on(
    registry: Registry, base: Path
) -> None:
    import mlflow

    for step in (20, 40):
        adapter = write_adapter(registry.folder / f"adapter-{step}", base, lora(modules_to_save=["lm_head"]), seed=step)
        saved = registry.folder / f"saved-{step}"
        mlflow.transformers.save_model(
            {"model": with_peft(base, adapter), "tokenizer": tiny_tokenizer()},
            str(saved),
            task="text-generation",
            pip_requirements=["torch"],
        )
        registry.register(saved, tags={"step": str(step)})
    kept = shutil.copytree(base, base.with_name("kept"))
    shutil.rmtree(base)
    checkpoints = same_as_merged(registry, Path(kept), registry.folder / "adapter-20")
    checkpoints.get(f"{registry.model}:2")
    first, *others = checkpoints.find()
    assert (first.step, first.name.startswith("base-")) == (0, True)
    assert names(others) == [f"{registry.model}:1", f"{registry.model}:2"]
    import torch
    from transformers import AutoModelForCausalLM

    plain = checkpoints.load_model(first, "float32", DeviceGroup.of("cpu")).state_dict()
    expected = AutoModelForCausalLM.from_pretrained(kept).state_dict()
    assert all(torch.equal(plain[name], tensor) for name, tensor in expected.items())


def test_a_base_model_that_cannot_be_loaded_out_of_its_artifact_is_refused_by_the_artifacts_name(
    registry: Registry, base: Path
) -> None:
    from safetensors.torch import load_file, save_file

    adapter = write_adapter(registry.folder / "adapter", base)
    artifact = as_peft_flavour(adapter, registry.folder / "artifact")
    with_peft(base, adapter).base_model.model.save_pretrained(artifact / "model")
    weights = artifact / "model/model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.wrapped_otherwise.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    registry.register(artifact)
    shutil.rmtree(base)
    checkpoints = registry.checkpoints()
    files = checkpoints.get(f"{registry.model}:1")
    with pytest.raises(CheckpointError) as error:
        checkpoints.load_model(files, "float32", DeviceGroup.of("cpu"))
    assert str(error.value).startswith(
        f"{registry.model}:1 cannot be loaded with the base model that its artifact in MLflow holds"
    )
    assert "holds no weight for model.norm.weight" in str(error.value)
    assert str(error.value).endswith("`checkpoints.base_model` can name the model that the training began with")


def without_weights(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "model.pkl").write_bytes(b"pickle")
    return folder


def twice(folder: Path) -> Path:
    shutil.copytree(folder, folder / "again")
    return folder


@pytest.mark.parametrize(("layout", "found"), [(without_weights, "found none"), (twice, r"found \., again")])
def test_an_artifact_that_is_not_one_checkpoint_is_refused(
    registry: Registry, layout: Callable[[Path], Path], found: str
) -> None:
    registry.register(layout(registry.copy()))
    with pytest.raises(CheckpointError, match=rf"has to hold one folder with config\.json.*{found}"):
        registry.checkpoints().get(f"{registry.model}:1")
    assert list((registry.folder / "cache").iterdir()) == []


def test_a_lost_artifact_is_an_error_and_leaves_nothing_half_downloaded(registry: Registry) -> None:
    artifact = registry.copy()
    registry.register(artifact)
    shutil.rmtree(artifact)
    with pytest.raises(CheckpointError, match=f"{registry.model}:1 cannot be downloaded from"):
        registry.checkpoints().get(f"{registry.model}:1")
    assert list((registry.folder / "cache").iterdir()) == []


def test_a_version_of_a_model_that_was_made_again_is_another_one(registry: Registry) -> None:
    registry.register(registry.copy(CHECKPOINTS[0]))
    (first,) = registry.checkpoints().find()
    first.check()
    registry.client.delete_registered_model(registry.model)
    registry.client.create_registered_model(registry.model)
    registry.register(registry.copy(CHECKPOINTS[1]))
    (second,) = registry.checkpoints().find()
    second.check()
    assert second.name == first.name
    assert second.version() != first.version()
    assert second.weights_hash() != first.weights_hash()


def test_a_version_whose_positions_an_earlier_version_counted_otherwise_is_another_one(registry: Registry) -> None:
    registry.register(registry.copy(CHECKPOINTS[0]))
    (checkpoint,) = registry.checkpoints().find()
    checkpoint.check()
    assert checkpoint.version() == checkpoint.fingerprint
    (checkpoint.path / "config.json").write_text('{"model_type": "camembert"}')
    assert checkpoint.version() != checkpoint.fingerprint


# --- Settings and the whole ------------------------------------------------------------------------------------------


def test_a_registered_model_replaces_the_default_directory_and_stands_beside_a_chosen_one() -> None:
    alone = Project.of(Settings(checkpoints=CheckpointSettings(registered_model="m"))).checkpoints
    both = Project.of(Settings(checkpoints=CheckpointSettings(registered_model="m", path="here")))
    assert isinstance(alone, RegisteredCheckpoints)
    assert alone.path == ""
    assert both.checkpoints.path.endswith("/here")


def test_a_registered_model_without_a_registry_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lorif.toml"
    file.write_text('[checkpoints]\nregistered_model = "m"\n[tracking]\nuri = "none"')
    with pytest.raises(SettingsError, match=r"set `checkpoints\.registry_uri`, as `tracking\.uri` is \"none\""):
        load_settings(file)


def test_the_newest_version_is_attributed_like_any_checkpoint(registry: Registry, private_project: TinyProject) -> None:
    for checkpoint in CHECKPOINTS:
        registry.register(registry.copy(checkpoint))
    settings = private_project.settings
    chosen = CheckpointSettings(registered_model=registry.model, registry_uri=registry.uri)
    resources = Project.of(
        settings.model_copy(
            update={"checkpoints": chosen, "active": settings.active.model_copy(update={"checkpoints": "newest"})}
        )
    )
    project = TinyProject(private_project.root, resources.settings, resources, private_project.instance)
    updates = project.update()
    newest = f"{registry.model}:2"
    assert updates["gradient_factors"] == {f"{newest}|{shard}" for shard in SHARDS}
    assert updates["query_scores"] == {f"{newest}|{QUERY_SET}"}
    assert project.update() == {}
    columns = ["query_id", "side", "rank", "example_id", "score"]
    same = project.table(QUERY_SCORES, checkpoint=CHECKPOINTS[1]).select(columns)
    assert project.table(QUERY_SCORES, checkpoint=newest).select(columns).equals(same)


def test_a_description_is_searched_line_by_line_however_many_it_has() -> None:
    """White space across lines would be gone through from each of them again."""
    assert _LOCAL_BASE.search("\n" * 1_000_000 + "other: x") is None
    assert _LOCAL_BASE.search("local_base_model: " + " " * 1_000_000) is None
    found = _LOCAL_BASE.search("flavors:\n  peft: 1\n    local_base_model_path:  'a b'  \r\nrun_id: x\n")
    assert found
    assert found[1].strip(" \t\r\"'") == "a b"
