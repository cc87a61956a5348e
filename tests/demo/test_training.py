import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorif_assets.demo.losses import mean_loss
from lorif_assets.demo.training import learning_rate_factor, train
from lorif_assets.errors import CheckpointError

from .conftest import TINY


def test_checkpoints_are_named_after_their_steps_and_nothing_else_is_left(trained):
    assert sorted(path.name for path in trained.directory.iterdir()) == ["step-000040", "step-000160"]
    assert [checkpoint.path.name for checkpoint in trained.summary.checkpoints] == ["step-000040", "step-000160"]


def test_checkpoints_hold_safetensors_and_no_pickle(trained):
    for checkpoint in trained.summary.checkpoints:
        assert (checkpoint.path / "model.safetensors").is_file()
        assert {file.suffix for file in checkpoint.path.iterdir()} <= {".safetensors", ".json"}


def test_checkpoints_load_with_transformers_and_give_the_loss_that_was_reported(trained):
    for checkpoint in trained.summary.checkpoints:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
        model = AutoModelForCausalLM.from_pretrained(checkpoint.path)
        tokens = tokenizer([passage.text for passage in trained.corpus.held_out], truncation=True)["input_ids"]
        assert mean_loss(model, tokens) == pytest.approx(checkpoint.held_out_loss, rel=1e-4)


def test_the_model_beats_the_unigram_model_and_gets_better(trained):
    first, last = trained.summary.checkpoints
    assert last.held_out_loss < first.held_out_loss
    assert last.train_loss < first.train_loss
    assert last.held_out_loss < trained.summary.unigram_loss < math.log(trained.summary.vocab_size)


def test_the_summary_counts_parameters_steps_and_tokens(trained):
    summary = trained.summary
    model = AutoModelForCausalLM.from_pretrained(summary.checkpoints[-1].path)
    assert summary.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert summary.steps == TINY.checkpoint_steps[-1]
    assert 0 < summary.tokens_seen <= summary.steps * TINY.batch_tokens
    assert summary.seconds > 0


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(small_corpus, trained, tmp_path):
    short = replace(TINY, checkpoint_steps=(3,))
    torch.manual_seed(99)  # what the caller did with torch's generator does not matter
    runs = {
        name: train(small_corpus, tmp_path / name, replace(short, seed=seed)).checkpoints[-1].path
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    }
    one, again, other = (load_file(path / "model.safetensors") for path in runs.values())
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_training_leaves_the_random_state_of_the_caller_alone(small_corpus, tmp_path):
    before = torch.random.get_rng_state()
    train(small_corpus, tmp_path, replace(TINY, checkpoint_steps=(1,)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_existing_checkpoint_is_not_overwritten(small_corpus, trained):
    with pytest.raises(CheckpointError, match="step-000040 exists already"):
        train(small_corpus, trained.directory, TINY)


def test_what_a_killed_run_left_half_written_is_replaced(small_corpus, tmp_path):
    unfinished = tmp_path / ".step-000001"
    unfinished.mkdir()
    (unfinished / "left_over").touch()
    train(small_corpus, tmp_path, replace(TINY, checkpoint_steps=(1,)))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert not (tmp_path / "step-000001" / "left_over").exists()


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing():
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0.0)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_both_architectures_train_and_are_what_they_are_called(trained, tmp_path, architecture):
    config = replace(TINY, architecture=architecture, checkpoint_steps=(40,))
    (checkpoint,) = train(trained.corpus, tmp_path, config).checkpoints
    model = AutoModelForCausalLM.from_pretrained(checkpoint.path)
    assert model.config.model_type == architecture
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert checkpoint.held_out_loss < math.log(trained.summary.vocab_size)
