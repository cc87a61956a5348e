"""Blocks of streamed factors fit the free memory, whatever the settings leave open."""

import pytest
import torch

from lorif_assets.attribution.recipes import block_rows as module
from lorif_assets.attribution.recipes.block_rows import FEWEST_ROWS, MOST_ROWS, block_rows, scanned_numbers


@pytest.mark.parametrize("free", [1 << 28, 3 << 30, 100 << 30])
@pytest.mark.parametrize("numbers", [100, 5_000, 300_000])
def test_a_decoded_block_takes_a_32nd_of_the_free_memory_at_most(monkeypatch, free, numbers):
    monkeypatch.setattr(module, "free_memory", lambda devices: free)
    rows = block_rows(numbers, torch.device("cpu"))
    assert FEWEST_ROWS <= rows <= MOST_ROWS
    if rows > FEWEST_ROWS:
        assert rows * numbers * 4 <= free / 32
    if rows < MOST_ROWS:
        assert 2 * rows * numbers * 4 > free / 32


def test_small_changes_of_the_free_memory_change_no_block(monkeypatch):
    found = set()
    for free in range(10 << 30, 11 << 30, 1 << 27):
        monkeypatch.setattr(module, "free_memory", lambda devices, free=free: free)
        found.add(block_rows(50_000, torch.device("cpu")))
    assert len(found) == 1


def test_the_device_that_is_asked_for_is_the_one_whose_memory_counts(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "free_memory", lambda devices: asked.append(devices.first) or 1 << 30)
    block_rows(1_000, torch.device("cuda", 1))
    assert asked == [torch.device("cuda", 1)]


LAYERS = {"wide": 64_000, "narrow": 640}


def test_signs_that_are_scored_as_they_are_stored_take_a_32nd_and_one_decoded_layer():
    assert scanned_numbers(LAYERS, "sign", torch.device("cpu")) == 64_640 // 32 + 64_000


@pytest.mark.parametrize(("codec", "device"), [("bf16", "cpu"), ("int8", "cpu"), ("sign", "cuda")])
def test_factors_that_are_decoded_take_all_their_numbers(codec, device):
    assert scanned_numbers(LAYERS, codec, torch.device(device)) == 64_640
