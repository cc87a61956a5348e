"""Spreading a checkpoint: blocks stay whole, the first device keeps room, and nothing goes to the CPU or the disk."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lorif_assets.errors import CheckpointError
from lorif_assets.models.device_map import free_bytes, spread_over
from lorif_assets.models.devices import DeviceGroup

BLOCKS = 8
WHERE = Path("run/step-7")


@pytest.fixture(scope="module")
def skeleton() -> GPT2LMHeadModel:
    with torch.device("meta"):
        return GPT2LMHeadModel(GPT2Config(n_layer=BLOCKS, n_embd=64, n_head=2, vocab_size=300, n_positions=16))


def cards(n: int) -> DeviceGroup:
    return DeviceGroup.of(*(f"cuda:{i}" for i in range(2, 2 + n)))


def with_free(monkeypatch: pytest.MonkeyPatch, *sizes: float) -> None:
    by_device = dict(zip(cards(len(sizes)).devices, map(int, sizes), strict=True))
    monkeypatch.setattr("lorif_assets.models.device_map.free_bytes", by_device.__getitem__)


def filled(skeleton: GPT2LMHeadModel, found: dict[str, str]) -> Counter[str]:
    """Bytes by device; tied weights count once."""
    seen: Counter[str] = Counter()
    for name, parameter in skeleton.named_parameters():
        (device,) = {where for part, where in found.items() if name.startswith(f"{part}.") or name == part or not part}
        seen[device] += parameter.nbytes
    return seen


@pytest.mark.parametrize("share", [0.5, 0.7, 1.0])
def test_blocks_and_tied_weights_stay_whole_and_every_part_has_a_device(
    skeleton: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    free = share * skeleton.get_memory_footprint()
    with_free(monkeypatch, free, free, free)
    found = spread_over(skeleton, cards(3), WHERE)
    assert {part for part in found if ".h." in part} == {f"transformer.h.{i}" for i in range(BLOCKS)}
    assert found["transformer.wte"] == found["lm_head"] == "cuda:2"
    assert set(filled(skeleton, found)) <= {"cuda:2", "cuda:3", "cuda:4"}
    assert sum(filled(skeleton, found).values()) == sum(p.nbytes for p in skeleton.parameters())
    assert max(filled(skeleton, found).values()) <= 0.9 * free


def test_the_first_device_is_filled_less_the_more_room_there_is(
    skeleton: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []
    for room in (0.8, 1.0, 1.5):
        with_free(monkeypatch, *[room * skeleton.get_memory_footprint()] * 2)
        bytes_on = filled(skeleton, spread_over(skeleton, cards(2), WHERE))
        shares.append(bytes_on["cuda:2"] / bytes_on.total())
        assert 0 < bytes_on["cuda:2"] < bytes_on["cuda:3"]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]


def test_a_device_with_little_memory_gets_little(skeleton: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch) -> None:
    size = skeleton.get_memory_footprint()
    with_free(monkeypatch, size, size, 0.3 * size)
    bytes_on = filled(skeleton, spread_over(skeleton, cards(3), WHERE))
    assert bytes_on["cuda:4"] <= 0.3 * size < bytes_on["cuda:3"]


def test_a_checkpoint_that_one_device_holds_easily_is_not_cut(
    skeleton: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 1e12, 1e12)
    assert spread_over(skeleton, cards(2), WHERE) == {"": "cuda:2"}


def test_what_the_devices_do_not_hold_is_refused_and_not_offloaded(
    skeleton: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 0.5 * skeleton.get_memory_footprint()
    with_free(monkeypatch, free, free)
    monkeypatch.setattr(GPT2LMHeadModel, "get_memory_footprint", lambda self: 30 * 2**30)
    with pytest.raises(CheckpointError, match=r"step-7 has 30\.0 GiB of weights") as refused:
        spread_over(skeleton, cards(2), WHERE)
    assert "0.0 of cuda:2, 0.0 of cuda:3" in str(refused.value)
    assert "Raise `devices.per_checkpoint`" in str(refused.value)


def test_a_model_that_does_not_say_what_must_stay_whole_is_refused(
    skeleton: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 1e12, 1e12)
    monkeypatch.setattr(skeleton, "_no_split_modules", set())
    with pytest.raises(CheckpointError, match=r"GPT2LMHeadModel, whose class .* set `devices.per_checkpoint = 1`"):
        spread_over(skeleton, cards(2), WHERE)


def test_memory_that_this_process_holds_unused_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    assert free_bytes(torch.device("cuda:1")) == 140
