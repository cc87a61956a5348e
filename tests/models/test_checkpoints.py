"""Checkpoints: which folders are taken for one, what is refused before anything runs, and what a fingerprint covers."""

import gc
import json
import os
import pickle
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.loading.vocabulary import check_vocabulary, vocabulary_size
from tests.conftest import CHECKPOINTS, TinyProject

CPU = DeviceGroup.of("cpu")


@pytest.fixture
def folder(tiny_project: TinyProject, tmp_path: Path) -> Path:
    """A sound checkpoint to damage."""
    return Path(shutil.copytree(tiny_project.root / "checkpoints" / CHECKPOINTS[0], tmp_path / "run/step-7"))


@pytest.fixture
def files(folder: Path) -> CheckpointFiles:
    return CheckpointFiles("step-7", folder, 7)


def checkpoints(path: Path) -> Checkpoints:
    return Checkpoints(path=str(path))


def with_other_weights(folder: Path, last_byte: int) -> None:
    """A model of its own, where a folder was copied: equal ones are taken once."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + bytes([last_byte]))


def edit_json(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


# --- Finding ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_directory_is_one_checkpoint_named_after_itself(folder: Path) -> None:
    assert checkpoints(folder).find() == [CheckpointFiles("step-7", folder, 7)]


def test_a_directory_of_checkpoints_is_all_of_them_in_order_of_step(folder: Path) -> None:
    for name in ("step-10", "step-9", "start", "epoch-1-step-200"):
        shutil.copytree(folder, folder.parent / name)
    with_other_weights(folder.parent / "start", ord("!"))
    found = checkpoints(folder.parent).find()
    assert [(checkpoint.name, checkpoint.step) for checkpoint in found] == [
        ("start", None),
        ("step-7", 7),
        ("step-9", 9),
        ("step-10", 10),
        ("epoch-1-step-200", 200),
    ]


@pytest.mark.parametrize(
    "name", [".step-8", "_step-8", "tmp-step-8", "temp", "TMP_step-8", "step-8.tmp", "step-8.temp"]
)
def test_hidden_and_temporary_names_are_no_checkpoints(folder: Path, name: str) -> None:
    shutil.copytree(folder, folder.parent / name)
    assert [checkpoint.name for checkpoint in checkpoints(folder.parent).find()] == ["step-7"]


@pytest.mark.parametrize("name", ["template-3", "temperature-0.7", "tmpl"])
def test_names_that_only_begin_like_temporary_ones_are_checkpoints(folder: Path, name: str) -> None:
    folder.rename(folder.parent / name)
    assert [checkpoint.name for checkpoint in checkpoints(folder.parent).find()] == [name]


def test_what_a_trainer_writes_beside_its_checkpoints_is_passed_over(folder: Path) -> None:
    (folder.parent / "runs").mkdir()
    (folder.parent / "runs/events.out").write_text("tensorboard")
    (folder.parent / "trainer_state.json").write_text("{}")
    assert [checkpoint.name for checkpoint in checkpoints(folder.parent).find()] == ["step-7"]


def test_a_directory_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere does not exist; correct `checkpoints\.path`"):
        checkpoints(tmp_path / "nowhere").find()


@pytest.mark.parametrize(
    ("folder_name", "name"),
    [("my step 7", "my_step_7"), ("a|b", "a_b"), ("50%", "50_"), ("ä", "ä"), ("模型-3", "模型-3")],
)
def test_a_name_keeps_what_a_partition_can_have_of_its_folders(folder: Path, folder_name: str, name: str) -> None:
    folder.rename(folder.parent / folder_name)
    (found,) = checkpoints(folder.parent).find()
    assert (found.name, found.path.name) == (name, folder_name)
    assert checkpoints(folder.parent).get(name) == found


def test_folders_whose_names_become_one_are_still_checkpoints_of_their_own(folder: Path) -> None:
    for name in ("step 7", "step_7"):
        other = Path(shutil.copytree(folder, folder.parent / name))
        with_other_weights(other, ord(name[4]))
    found = {checkpoint.name: checkpoint.path.name for checkpoint in checkpoints(folder.parent).find()}
    assert (found["step_7"], found["step-7"]) == ("step_7", "step-7")
    assert sorted(found.values()) == ["step 7", "step-7", "step_7"]


def test_asking_for_a_checkpoint_that_is_gone_tells_which_there_are(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint 'step-8' in .*; found step-7\. Was it moved away"):
        checkpoints(folder.parent).get("step-8")


def test_a_sound_checkpoint_is_found_by_its_name(folder: Path, files: CheckpointFiles) -> None:
    assert checkpoints(folder.parent).get("step-7") == files


# --- Refusals before loading -----------------------------------------------------------------------------------------


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _index(content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(content)


def _no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no configuration": (
        lambda folder: (folder / "config.json").unlink(),
        r"no config\.json.*found .*model\.safetensors",
    ),
    "nothing at all": (_empty, r"no config\.json.*found an empty folder"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"no \*\.safetensors weights; found "),
    "pickled weights only": (_pickled, r"only pytorch_model\.bin, which is a pickle and could run code when loaded"),
    "a part of the weights missing": (
        _index('{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}}'),
        r"lacks model-2\.safetensors, one of the 2 weight files that its index names: the copy is incomplete",
    ),
    "an index that is no JSON": (_index("{"), r"index\.json is not an index of weight files"),
    "an index of something else": (_index('{"weights": []}'), r"index\.json is not an index of weight files"),
    "an index that is a list": (_index("[]"), r"index\.json is not an index of weight files"),
    "no tokenizer": (_no_tokenizer, r"no tokenizer \(tokenizer\.json or the like\); save it beside the weights"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_folder_that_cannot_be_loaded_safely_is_refused(folder: Path, files: CheckpointFiles, what: str) -> None:
    damage, message = REFUSED[what]
    files.check()
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as refusal:
        files.check()
    assert str(folder) in str(refusal.value)


# --- Loading ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_loads_in_eval_mode_and_the_wanted_type(folder: Path, files: CheckpointFiles) -> None:
    resource = checkpoints(folder.parent)
    model = resource.load_model(files, "bfloat16", CPU)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in resource.load_model(files, "as_saved", CPU).parameters()} == {
        torch.float32
    }


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> DeviceGroup:
    """Two names of the CPU: weights and activations take the way that they take over two GPUs."""
    # Else a weight that is on the CPU is moved there, as it is not on `cpu:0`.
    monkeypatch.setattr("accelerate.utils.modeling.check_device_same", lambda one, other: one.type == other.type)
    return DeviceGroup.of("cpu:0", "cpu:1")


@pytest.fixture
def untied(tmp_path: Path) -> CheckpointFiles:
    """A checkpoint whose head has a weight of its own."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=17, hidden_size=8, intermediate_size=12, num_hidden_layers=4, num_attention_heads=2, dtype="float32"
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "untied")
    return CheckpointFiles("untied", tmp_path / "untied", None)


def test_a_checkpoint_over_two_devices_has_its_blocks_on_both_and_the_same_logits(
    untied: CheckpointFiles, two_cpus: DeviceGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource, ids = checkpoints(untied.path), torch.tensor([[3, 1, 4, 1, 5]])
    whole = resource.load_model(untied, "float32", CPU)
    monkeypatch.setattr("lorif_assets.models.device_map.free_bytes", lambda device: 0.9 * whole.get_memory_footprint())
    spread = resource.load_model(untied, "float32", two_cpus)
    assert {str(device) for device in spread.hf_device_map.values()} == {"cpu:0", "cpu:1"}
    assert not spread.training
    assert torch.equal(spread(input_ids=ids).logits, whole(input_ids=ids).logits)


def test_a_spread_checkpoint_that_nobody_holds_leaves_its_memory_to_the_next_one(
    untied: CheckpointFiles, two_cpus: DeviceGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = checkpoints(untied.path)
    alive: list[bool] = []
    models: list[weakref.ref[torch.nn.Module]] = []

    def free(_device: torch.device) -> float:
        alive.extend(model() is not None for model in models)
        return 0.9 * resource.skeleton(untied).get_memory_footprint()

    monkeypatch.setattr("lorif_assets.models.device_map.free_bytes", free)
    gc.disable()
    try:
        models.extend(weakref.ref(resource.load_model(untied, "float32", two_cpus)) for _ in range(2))
    finally:
        gc.enable()
    assert alive
    assert not any(alive)


def test_what_the_devices_do_not_hold_in_the_wanted_type_is_refused_before_it_is_read(
    untied: CheckpointFiles, two_cpus: DeviceGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = checkpoints(untied.path)
    size = resource.skeleton(untied, "bfloat16").get_memory_footprint()
    monkeypatch.setattr("lorif_assets.models.device_map.free_bytes", lambda device: size)
    loaded = resource.load_model(untied, "bfloat16", two_cpus)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    (untied.path / "model.safetensors").unlink()
    for dtype in ("float32", "as_saved"):
        with pytest.raises(CheckpointError, match="GiB of weights"):
            resource.load_model(untied, dtype, two_cpus)


def test_damaged_weights_are_an_error_that_names_the_checkpoint(folder: Path, files: CheckpointFiles) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cannot load .*step-7"):
        checkpoints(folder.parent).load_model(files, "float32", CPU)


def test_weights_that_are_no_safetensors_are_not_loaded(folder: Path, files: CheckpointFiles) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(folder / "pickle-was-run"),)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError):
        checkpoints(folder.parent).load_model(files, "float32", CPU)
    assert not (folder / "pickle-was-run").exists()


def test_missing_weights_are_refused_not_made_up(folder: Path, files: CheckpointFiles) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("h.1.mlp.c_fc.weight"))
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no weight for transformer\.h\.1\.mlp\.c_fc\.weight \(1 such\)"):
        checkpoints(folder.parent).load_model(files, "float32", CPU)


def test_weights_of_another_shape_are_refused(folder: Path, files: CheckpointFiles) -> None:
    shape = load_file(folder / "model.safetensors")["transformer.h.0.mlp.c_fc.weight"].shape
    edit_json(folder / "config.json", n_inner=40)
    with pytest.raises(CheckpointError) as raised:
        checkpoints(folder.parent).load_model(files, "float32", CPU)
    assert str(raised.value) == (
        f"{folder} holds transformer.h.0.mlp.c_fc.bias as {shape[1]}, and its config.json describes 40 (6 such weights); is "
        "config.json that of these weights? Where tokens were added, save the model as it is used"
    )


@pytest.mark.parametrize("content", ['{"max_new_tokens": -1}', '{"early_stopping": 5}', "[]", "{"])
def test_how_a_model_writes_is_not_attributed_and_stops_nothing(
    folder: Path, files: CheckpointFiles, content: str
) -> None:
    (folder / "generation_config.json").write_text(content)
    assert checkpoints(folder.parent).load_model(files, "float32", CPU).config.model_type == "gpt2"


def test_a_tokenizer_that_does_not_load_is_an_error_that_names_the_checkpoint(
    folder: Path, files: CheckpointFiles
) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot load the tokenizer of .*step-7"):
        checkpoints(folder.parent).load_tokenizer(files)


def test_a_tokenizer_with_ids_beyond_the_embeddings_is_warned_of_as_no_row_may_have_them(
    folder: Path, files: CheckpointFiles, caplog: pytest.LogCaptureFixture
) -> None:
    resource = checkpoints(folder.parent)
    model, tokenizer = resource.load_model(files, "float32", CPU), resource.load_tokenizer(files)
    assert check_vocabulary(files, model, tokenizer) is None
    rows = vocabulary_size(model)
    tokenizer.add_tokens(["<new>"])
    notice = check_vocabulary(files, model, tokenizer)
    assert notice is not None
    assert f"ids up to {rows}, but the model embeds only {rows} tokens; rows with such tokens are set aside" in notice
    assert notice in caplog.text


# --- Code that a checkpoint carries ----------------------------------------------------------------------------------

_CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import GPT2Config, GPT2LMHeadModel
class Config(GPT2Config):
    model_type = "lorif-test"
class Model(GPT2LMHeadModel):
    config_class = Config
"""


@pytest.fixture
def code_was_run(folder: Path, tmp_path: Path) -> Path:
    """A file that the checkpoint's own code makes when it is run."""
    marker = tmp_path / "code-was-run"
    (folder / "custom.py").write_text(_CODE.format(marker=str(marker)))
    edit_json(
        folder / "config.json",
        model_type="lorif-test",
        auto_map={"AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model"},
    )
    return marker


@pytest.mark.parametrize("way", ["load_model", "skeleton"])
def test_code_of_a_checkpoint_is_not_run_unless_the_settings_say_so(
    folder: Path, files: CheckpointFiles, code_was_run: Path, way: str
) -> None:
    resource = checkpoints(folder.parent)
    files.check()
    with pytest.raises(CheckpointError, match="trust_remote_code"):
        resource.skeleton(files) if way == "skeleton" else resource.load_model(files, "float32", CPU)
    assert not code_was_run.exists()


def test_code_of_a_trusted_checkpoint_is_run(
    folder: Path, files: CheckpointFiles, code_was_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    trusted = Checkpoints(path=str(folder.parent), trust_remote_code=True)
    assert type(trusted.skeleton(files)).__name__ == "Model"
    assert code_was_run.exists()


# --- Skeletons -------------------------------------------------------------------------------------------------------


def test_a_skeleton_has_the_models_layers_and_no_memory_for_weights(folder: Path, files: CheckpointFiles) -> None:
    resource = checkpoints(folder.parent)
    skeleton, model = resource.skeleton(files), resource.load_model(files, "float32", CPU)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    assert {n: p.shape for n, p in skeleton.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def test_a_skeleton_has_the_type_of_the_weights_where_the_configuration_says_none(
    folder: Path, files: CheckpointFiles
) -> None:
    half = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", dtype=None, torch_dtype=None)
    source = checkpoints(folder.parent)
    loaded = source.load_model(files, "as_saved", CPU)
    assert source.skeleton(files).dtype == loaded.dtype == torch.bfloat16
    assert source.skeleton(files, "float64").dtype == torch.float64


def test_a_configuration_of_no_language_model_is_refused(folder: Path, files: CheckpointFiles) -> None:
    edit_json(folder / "config.json", model_type="vit")
    with pytest.raises(CheckpointError, match="not a causal language model that transformers knows"):
        checkpoints(folder.parent).skeleton(files)


# --- Fingerprints ----------------------------------------------------------------------------------------------------


def _flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "modeling.py"])
def test_the_weights_hash_changes_with_one_byte_of_what_the_model_is_loaded_from(
    folder: Path, files: CheckpointFiles, name: str
) -> None:
    (folder / "modeling.py").write_text("# 1")
    weights, tokenizer = files.weights_hash(), files.tokenizer_hash()
    _flip_last_byte(folder / name)
    assert files.weights_hash() != weights
    assert files.tokenizer_hash() == tokenizer


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_the_tokenizer_hash_changes_with_one_byte_of_its_files(folder: Path, files: CheckpointFiles, name: str) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    weights, tokenizer = files.weights_hash(), files.tokenizer_hash()
    _flip_last_byte(folder / name)
    assert files.tokenizer_hash() != tokenizer
    assert files.weights_hash() == weights


def test_bytes_that_move_from_one_file_to_another_change_the_hash(folder: Path, files: CheckpointFiles) -> None:
    (folder / "a.safetensors").write_bytes(b"12")
    (folder / "b.safetensors").write_bytes(b"3")
    before = files.weights_hash()
    (folder / "a.safetensors").write_bytes(b"1")
    (folder / "b.safetensors").write_bytes(b"23")
    assert files.weights_hash() != before


def test_time_changes_the_version_and_not_the_hashes(folder: Path, files: CheckpointFiles) -> None:
    hashes, version = (files.weights_hash(), files.tokenizer_hash()), files.version()
    assert files.version() == version
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert files.version() != version
    assert (files.weights_hash(), files.tokenizer_hash()) == hashes


def test_other_files_beside_the_checkpoint_change_nothing(folder: Path, files: CheckpointFiles) -> None:
    before = (files.weights_hash(), files.tokenizer_hash(), files.version())
    (folder / "optimizer.pt").write_bytes(b"...")
    (folder / "README.md").write_text("...")
    assert (files.weights_hash(), files.tokenizer_hash(), files.version()) == before
