import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from lorif_assets.demo.losses import length_sorted_batches, mean_loss, summed_loss, unigram_loss

SEQUENCES = [[0, 5, 3, 7, 2], [0, 1], [0, 4, 4, 6, 1, 2, 3, 9]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=10, n_positions=8, n_embd=8, n_layer=1, n_head=2)).eval()


def test_unigram_loss_is_what_one_gets_by_hand():
    train = [[0, 1, 1, 2], [0, 1]]  # predicted: 1 three times, 2 once; with one added to each of four tokens: 1 4 2 1
    held_out = [[0, 1, 2], [0, 3]]
    assert unigram_loss(train, held_out, vocab_size=4) == pytest.approx(
        -(math.log(4 / 8) + math.log(2 / 8) + math.log(1 / 8)) / 3
    )


def test_summed_loss_of_a_batch_is_the_sum_over_its_sequences(model):
    alone = sum(model(torch.tensor([s]), labels=torch.tensor([s])).loss.item() * (len(s) - 1) for s in SEQUENCES)
    assert summed_loss(model, SEQUENCES).item() == pytest.approx(alone, rel=1e-5)


def test_mean_loss_is_per_predicted_token(model):
    expected = summed_loss(model, SEQUENCES).item() / (4 + 1 + 7)
    assert mean_loss(model, SEQUENCES) == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.integers(2, 60), min_size=1, max_size=40), st.integers(2, 200))
def test_batches_hold_every_sequence_once_within_the_token_limit(lengths, batch_tokens):
    batches = length_sorted_batches(lengths, batch_tokens, np.random.default_rng(0))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= batch_tokens


def test_batches_come_in_another_order_each_epoch():
    rng = np.random.default_rng(0)
    lengths = list(range(2, 60))
    assert length_sorted_batches(lengths, 64, rng) != length_sorted_batches(lengths, 64, rng)
