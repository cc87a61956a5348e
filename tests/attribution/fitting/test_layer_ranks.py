"""Ranks by layer: of one sample always the same, whether gradients are formed or taken as their tokens."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.waiting_gradients import WaitingGradients
from lorif_assets.attribution.fitting.fit_bases import KfacFit, fit_layers, fit_tokens
from lorif_assets.attribution.fitting.layer_ranks import _SpectrumSums
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.mathematics.curvature import whitened_spectra
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress

WIDTH, VOCABULARY, LENGTH = 32, 40, 14
EXAMPLES = [
    TokenizedExample(str(row), row, ids, ids)
    for row, ids in enumerate(
        np.random.default_rng(1).integers(0, VOCABULARY, length)
        for length in np.random.default_rng(2).integers(5, LENGTH + 1, 24)
    )
]


@pytest.fixture
def attributed() -> AttributedModel:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=LENGTH)
    config.bos_token_id = config.eos_token_id = 0
    record = CheckpointRecord("small", "", "", "gpt2", 0, None, {})
    recipe = Recipe(projection_factor=1, bytes_per_example=1_200)
    model = GPT2LMHeadModel(config).eval()
    return AttributedModel(record, recipe, model, None, (), "", DeviceGroup.of("cpu")).under(recipe)  # type: ignore[arg-type]


def fitted(attributed: AttributedModel) -> KfacFit:
    with Progress("fit", fit_tokens(EXAMPLES), "tok") as progress:
        layers = fit_layers(attributed, EXAMPLES, BatchSettings(tokens=100), progress)
    return KfacFit(layers, len(EXAMPLES), "")


def test_a_fit_is_the_same_each_time(attributed: AttributedModel) -> None:
    assert fitted(attributed).fingerprint == fitted(attributed).fingerprint


def test_short_examples_are_taken_as_tokens_and_give_the_ranks_of_formed_gradients(
    attributed: AttributedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def watched(tokens: whitened_spectra.TokenGradients, k: int) -> torch.Tensor:
        taken.append(len(tokens.x))
        return from_tokens(tokens, k)

    from_tokens = whitened_spectra.squared_singular_values_from_tokens
    monkeypatch.setattr(whitened_spectra, "squared_singular_values_from_tokens", watched)
    found = fitted(attributed).layers
    assert sum(taken) == len(found) * len(EXAMPLES)
    monkeypatch.setattr(whitened_spectra, "is_cheaper_from_tokens", lambda *_: False)
    formed = fitted(attributed).layers
    assert sum(taken) == len(found) * len(EXAMPLES)
    assert {name: layer.rank for name, layer in found.items()} == {name: layer.rank for name, layer in formed.items()}
    assert len({layer.rank for layer in found.values()}) > 1
    for name, layer in found.items():
        assert layer.kept_energy == pytest.approx(formed[name].kept_energy, rel=1e-4)


def test_a_fit_whose_batches_do_not_fit_in_memory_goes_on_with_smaller_ones(
    attributed: AttributedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At any moment: sums of half of a batch's layers are thrown away with it."""
    expected = fitted(attributed).layers
    sizes: list[tuple[str, int]] = []

    def limited(name: str) -> Callable[..., torch.Tensor]:
        method = getattr(GradientCollector, name)

        def passes(self: GradientCollector, batch: TokenBatch, *arguments: object) -> torch.Tensor:
            found = method(self, batch, *arguments)
            sizes.append((name, batch.input_ids.numel()))
            if sizes[-1][1] > 40:
                raise torch.OutOfMemoryError
            return found

        return passes

    for name in ("observe", "stream"):
        monkeypatch.setattr(GradientCollector, name, limited(name))
    found = fitted(attributed).layers
    assert {name for name, size in sizes if size > 40} == {"observe", "stream"}
    assert "small: a batch of 98 tokens does not fit in the memory of cpu; going on with 49" in caplog.text
    for name, layer in found.items():
        assert (layer.rank, layer.n_tokens) == (expected[name].rank, expected[name].n_tokens)
        assert layer.kept_energy == pytest.approx(expected[name].kept_energy, rel=1e-4)
        a = expected[name].bases.a
        torch.testing.assert_close(layer.bases.a, a, rtol=1e-4, atol=1e-5 * float(a.max()))


@pytest.mark.usefixtures("accelerated")
def test_gradients_that_are_computed_and_those_that_wait_share_the_room_of_gradients(
    attributed: AttributedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, held = 16 * WIDTH * 4 * WIDTH, []
    monkeypatch.setattr("lorif_assets.attribution.fitting.layer_ranks.gradient_room", lambda _batch, _device: room)
    take, add = _SpectrumSums.__call__, WaitingGradients.add

    def taking(sums: _SpectrumSums, layer: str, rows: slice, gradients: torch.Tensor) -> None:
        held.append(gradients.numel() + sums._waiting.numbers)
        take(sums, layer, rows, gradients)

    def adding(waiting: WaitingGradients, layer: str, rows: slice, gradients: torch.Tensor) -> None:
        add(waiting, layer, rows, gradients)
        held.append(waiting.numbers)

    monkeypatch.setattr(_SpectrumSums, "__call__", taking)
    monkeypatch.setattr(WaitingGradients, "add", adding)
    fitted(attributed)
    assert room / 2 < max(held) <= room
