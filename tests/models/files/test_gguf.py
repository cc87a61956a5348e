"""GGUF files are checkpoints: what is found, loaded, fingerprinted and refused."""

import shutil
from copy import deepcopy
from importlib import util
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import CheckpointFiles, Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files import gguf
from tests.models.gguf_model import trained_tokenizer, write_gguf

CPU = DeviceGroup.of("cpu")
TEXTS = ["The with statement opens a file and closes it when its block ends."] * 3


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(trained_tokenizer(TEXTS, 300).get_vocab()),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
        )
    ).eval()


@pytest.fixture
def folder(llama: LlamaForCausalLM, tmp_path: Path) -> Path:
    (tmp_path / "runs/tiny-7").mkdir(parents=True)
    write_gguf(llama, trained_tokenizer(TEXTS, 300), tmp_path / "runs/tiny-7/tiny.gguf")
    return tmp_path / "runs/tiny-7"


def checkpoints(path: Path) -> Checkpoints:
    return Checkpoints(path=str(path))


def test_a_folder_with_a_gguf_file_is_a_checkpoint_by_itself_and_among_others(folder: Path) -> None:
    for path in (folder, folder.parent):
        (found,) = checkpoints(path).find()
        assert (found.name, found.step, found.gguf_file) == ("tiny-7", 7, folder / "tiny.gguf")
        assert found.is_complete()


def test_the_model_of_a_gguf_file_says_what_the_converted_one_said(folder: Path, llama: LlamaForCausalLM) -> None:
    source = checkpoints(folder)
    loaded = source.load_model(source.get("tiny-7"), "float32", CPU)
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, llama(input_ids=ids).logits)


def test_quantised_blocks_become_dense_weights(folder: Path, llama: LlamaForCausalLM) -> None:
    kind = GGMLQuantizationType.Q4_1
    write_gguf(llama, trained_tokenizer(TEXTS, 300), folder / "tiny.gguf", kind)
    source = checkpoints(folder)
    loaded = source.load_model(source.get("tiny-7"), "float32", CPU)
    weight = llama.model.layers[1].mlp.down_proj.weight.detach().numpy()
    expected = torch.from_numpy(dequantize(quantize(weight, kind), kind))
    assert isinstance(loaded.model.layers[1].mlp.down_proj, torch.nn.Linear)
    torch.testing.assert_close(loaded.model.layers[1].mlp.down_proj.weight.detach(), expected)


def test_the_skeleton_has_the_layers_of_the_file(folder: Path) -> None:
    source = checkpoints(folder)
    skeleton = source.skeleton(source.get("tiny-7"))
    assert skeleton.model.layers[1].mlp.gate_proj.weight.shape == (96, 64)
    assert skeleton.device.type == "meta"


def test_the_tokenizer_and_its_chat_template_come_from_the_file(folder: Path) -> None:
    source = checkpoints(folder)
    tokenizer = source.load_tokenizer(source.get("tiny-7"))
    assert tokenizer.decode(tokenizer(TEXTS[0])["input_ids"]) == TEXTS[0]
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    assert rendered == "<|im_start|>user\nhello<|im_end|>\n"


def test_a_tokenizer_beside_the_file_goes_before_the_one_in_it(folder: Path) -> None:
    source = checkpoints(folder)
    tokenizer = source.load_tokenizer(source.get("tiny-7"))
    tokenizer.add_tokens(["<special>"])
    tokenizer.save_pretrained(folder)
    found = source.get("tiny-7")
    assert "<special>" in source.load_tokenizer(found).get_vocab()
    assert folder / "tiny.gguf" not in found.tokenizer_files


def test_the_fingerprint_is_that_of_the_file_alone(folder: Path) -> None:
    found = CheckpointFiles("tiny-7", folder, 7)
    weights, version = found.weights_hash(), found.version()
    (folder / "config.json").write_text("{}")
    (folder / "plugin.py").write_text("")
    assert (found.weights_hash(), found.version()) == (weights, version)
    with (folder / "tiny.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    assert found.weights_hash() != weights


def test_safetensors_go_before_a_gguf_file_beside_them(folder: Path, llama: LlamaForCausalLM) -> None:
    llama.save_pretrained(folder)
    found = CheckpointFiles("tiny-7", folder, 7)
    assert found.gguf_file is None
    assert [file.name for file in found.weight_files] == ["model.safetensors"]


def test_an_export_beside_the_steps_of_a_training_is_neither_a_checkpoint_nor_their_tokenizer(
    folder: Path, llama: LlamaForCausalLM
) -> None:
    for step in (20, 40):
        llama.save_pretrained(folder / f"checkpoint-{step}")
    later = deepcopy(llama)
    with torch.no_grad():
        later.model.norm.weight += 0.01
    later.save_pretrained(folder / "checkpoint-40")
    found = checkpoints(folder).look()
    assert [(one.name, one.step) for one in found.checkpoints] == [("checkpoint-20", 20), ("checkpoint-40", 40)]
    assert found.notes == [
        f"{folder / 'tiny.gguf'} is passed over (1 such): it is an export beside the steps of a training. Put it into a folder "
        "of its own, and set `checkpoints.path` to that, to attribute it"
    ]
    assert "has no tokenizer" in (found.checkpoints[-1].fault() or "")


def test_an_adapters_tokenizer_is_no_gguf_file_beside_it(folder: Path, llama: LlamaForCausalLM, tmp_path: Path) -> None:
    base = tmp_path / "base"
    llama.save_pretrained(base)
    (base / "tokenizer.json").write_text("{}")
    adapter = tmp_path / "adapter"
    get_peft_model(deepcopy(llama), LoraConfig(target_modules=["q_proj"])).save_pretrained(adapter)
    shutil.copy(folder / "tiny.gguf", adapter / "lora.gguf")
    assert CheckpointFiles("adapter", adapter, None, str(base)).tokenizer_files == [base / "tokenizer.json"]
    shutil.move(adapter, folder / "adapter")
    assert CheckpointFiles("adapter", folder / "adapter", None, str(base)).tokenizer_folder == base


@pytest.mark.parametrize("length", [0, 30, 2_000, -10])
def test_a_file_that_is_still_being_written_is_not_complete(folder: Path, length: int) -> None:
    file = folder / "tiny.gguf"
    file.write_bytes(file.read_bytes()[:length])
    assert not CheckpointFiles("tiny-7", folder, 7).is_complete()


def test_two_files_in_one_folder_are_refused_with_both_names(folder: Path) -> None:
    shutil.copy(folder / "tiny.gguf", folder / "other.gguf")
    with pytest.raises(CheckpointError, match=r"has 2 GGUF files \(other\.gguf, tiny\.gguf\).* a folder of its own"):
        checkpoints(folder).get("tiny-7")


def test_a_missing_library_is_named_with_its_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = util.find_spec
    monkeypatch.setattr(gguf, "find_spec", lambda name: None if name == "gguf" else present(name))
    with pytest.raises(CheckpointError, match=r"library gguf, which is not installed; .*'lorif-assets\[gguf\]'"):
        checkpoints(folder).get("tiny-7")
    assert not CheckpointFiles("tiny-7", folder, 7).is_complete()
