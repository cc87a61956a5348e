"""Fine-tuning: adapters in a trainer's folders, on the tokens that are attributed, and going on where it stopped."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.tokens.chat import encode_conversations
from lorif_assets.demo.real.corpus import build_chats
from lorif_assets.demo.real.fine_tune import FineTuneConfig, adapter_path, fine_tune
from lorif_assets.models.checkpoints import Checkpoints

CHATS = build_chats().chats[:20]
CONFIG = FineTuneConfig(epochs=2, batch_chats=8, rank=2, alpha=4)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    directory = tmp_path_factory.mktemp("fine-tune")
    fine_tune(base, CHATS, directory, CONFIG)
    return directory


def weights(directory, step):
    return load_file(adapter_path(directory, step) / "adapter_model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_adapter_is_kept_after_every_epoch(trained):
    assert CONFIG.steps(len(CHATS)) == [3, 6]
    assert sorted(folder.name for folder in trained.iterdir()) == ["checkpoint-3", "checkpoint-6"]


def test_adapters_are_checkpoints_with_their_base_as_step_0(base, trained):
    found = Checkpoints(path=str(trained)).find()
    assert [(one.name, one.step) for one in found] == [("base", 0), ("checkpoint-3", 3), ("checkpoint-6", 6)]
    assert all(one.is_complete() for one in found)
    assert found[0].path == base


def test_every_linear_layer_of_the_blocks_has_an_adapter_and_no_other_layer(trained):
    names = set(weights(trained, 6))
    assert len(names) == 2 * 2 * 7
    assert not any("lm_head" in name or "embed" in name for name in names)


def test_the_learning_rates_are_in_the_trainers_state(trained):
    history = json.loads((adapter_path(trained, 6) / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "learning_rate" in entry] == [1, 2, 3, 4, 5, 6]


def test_the_same_seed_gives_the_same_adapters(base, trained, tmp_path):
    fine_tune(base, CHATS, tmp_path, CONFIG)
    assert same(weights(tmp_path, 6), weights(trained, 6))


def test_a_training_that_was_interrupted_goes_on_and_ends_at_the_same_adapters(base, trained, tmp_path):
    shutil.copytree(adapter_path(trained, 3), adapter_path(tmp_path, 3))
    # A checkpoint that was being written when the process died.
    shutil.copytree(adapter_path(trained, 6), adapter_path(tmp_path, 6))
    (adapter_path(tmp_path, 6) / "trainer_state.json").unlink()
    (adapter_path(tmp_path, 6) / "adapter_model.safetensors").write_bytes(b"")
    before = (adapter_path(tmp_path, 3) / "adapter_model.safetensors").stat().st_mtime_ns
    fine_tune(base, CHATS, tmp_path, CONFIG)
    assert (adapter_path(tmp_path, 3) / "adapter_model.safetensors").stat().st_mtime_ns == before
    for name, weight in weights(tmp_path, 6).items():
        torch.testing.assert_close(weight, weights(trained, 6)[name], rtol=1e-3, atol=1e-5)


def test_a_finished_training_is_left_as_it_is(base, trained):
    files = {file: file.stat().st_mtime_ns for file in trained.rglob("*") if file.is_file()}
    fine_tune(base, CHATS, trained, CONFIG)
    assert {file: file.stat().st_mtime_ns for file in trained.rglob("*") if file.is_file()} == files


def test_tool_chats_and_conversations_carry_loss_on_each_answer(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    chats = [chat for chat in build_chats().chats if chat.kind in {"tool", "conversation"}]
    encoded = encode_conversations([Conversation(list(chat.messages)) for chat in chats], tokenizer)
    for chat, tokens in zip(chats, encoded, strict=True):
        spoken = tokenizer.decode(tokens.input_ids[tokens.labels != -100])
        answers = [message["content"] for message in chat.messages if message["role"] == "assistant"]
        assert len(answers) == 2
        assert all(answer in spoken for answer in answers)
        assert not any(m["content"] in spoken for m in chat.messages if m["role"] != "assistant")
