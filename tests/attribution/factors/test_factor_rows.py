"""The rows of a shard where memory runs out: smaller batches, the same factors, and every example counted once."""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.factor_rows import ShardFactors, _EncodedFactors, factor_rows, in_fisher_sample
from lorif_assets.attribution.stored.bases import FrozenBases
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import LorifError
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.factors import low_rank
from lorif_assets.mathematics.factors.codec import FactorCodec, decode, factor_bytes
from lorif_assets.mathematics.factors.low_rank import (
    GradientFactors,
    ScaledMatrices,
    factors_in_rounds,
    low_rank_factors,
)
from lorif_assets.mathematics.factors.token_gradients import FactorWork, TokenGradients
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.gradient_sinks import GradientSink
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress

LENGTHS = (5, 9, 7, 9, 3, 8, 6, 4)
LIMIT = 20


@pytest.fixture(scope="module")
def attributed() -> AttributedModel:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=17, n_positions=9, bos_token_id=0, eos_token_id=0)
    )
    layers = select_layers(model)
    shapes = {layer.name: (layer.d_in // 2, layer.d_out // 2) for layer in layers}
    return AttributedModel(
        CheckpointRecord("random", "weights", "tokenizer", "gpt2", 0, None, shapes),
        Recipe(projection_factor=2, factor_dtype="fp32", rank=4),
        model,
        None,  # type: ignore[arg-type]
        [layer_projection(layer, Projection(factor=2, seed=0)) for layer in layers],
        "projection",
        DeviceGroup.of("cpu"),
    )


@pytest.fixture
def bases(attributed: AttributedModel) -> dict[str, KfacBases]:
    return {
        layer: KfacBases(torch.eye(d1), torch.eye(d2), torch.ones(d1), torch.ones(d2), 0.1)
        for layer, (d1, d2) in attributed.record.layer_shapes.items()
    }


def examples() -> list[TokenizedExample]:
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 17, length) for length in LENGTHS]
    return [TokenizedExample(f"e{row}", row, tokens, tokens) for row, tokens in enumerate(ids)]


def factors(attributed: AttributedModel, bases: Mapping[str, KfacBases]) -> ShardFactors:
    with Progress("factors", sum(LENGTHS), "tok") as progress:
        return factor_rows(attributed, examples(), bases, BatchSettings(tokens=1_000), progress)


def products(found: ShardFactors, layer: str, shape: tuple[int, int]) -> torch.Tensor:
    """u v^T of every example: the factors themselves are not unique where a gradient's rank is lower."""
    rows = [torch.frombuffer(bytearray(value), dtype=torch.uint8) for value in found.rows[layer].to_pylist()]
    return decode(torch.stack(rows), FactorCodec.FP32, *shape).dense()


def numbers_held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what each new slice of gradients and those that wait for others have together, as they come."""
    held: list[int] = []
    start = _EncodedFactors.start_batch

    def started(self: _EncodedFactors, n: int) -> GradientSink:
        sink = start(self, n)

        def counting(layer: str, rows: slice, gradients: torch.Tensor) -> None:
            held.append(self._waiting.numbers + gradients.numel())
            sink(layer, rows, gradients)

        return counting

    monkeypatch.setattr(_EncodedFactors, "start_batch", started)
    return held


def fail_above(limit: int, error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let larger batches fail at the end of their backward pass; return the sizes of those that come."""
    sizes: list[int] = []
    stream = GradientCollector.stream

    def limited(self: GradientCollector, batch: TokenBatch, sink: GradientSink, max_numbers: int) -> torch.Tensor:
        losses = stream(self, batch, sink, max_numbers)
        sizes.append(batch.input_ids.numel())
        if sizes[-1] > limit:
            raise error
        return losses

    monkeypatch.setattr(GradientCollector, "stream", limited)
    return sizes


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried to allocate"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["accelerator", "cpu"])
@pytest.mark.parametrize("whitened", [False, True])
def test_batches_that_do_not_fit_are_halved_and_the_factors_are_the_same(
    attributed: AttributedModel,
    bases: dict[str, KfacBases],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: RuntimeError,
    whitened: bool,
) -> None:
    bases = bases if whitened else {}
    expected = factors(attributed, bases)
    sizes = fail_above(LIMIT, error, monkeypatch)
    found = factors(attributed, bases)
    assert sizes[0] == len(LENGTHS) * max(LENGTHS)
    assert expected.batch_tokens == 1_000
    assert LIMIT // 2 < found.batch_tokens <= LIMIT
    assert f"going on with {found.batch_tokens}" in caplog.text
    assert found.rows["example_id"].to_pylist() == expected.rows["example_id"].to_pylist()
    for layer, shape in attributed.record.layer_shapes.items():
        torch.testing.assert_close(
            products(found, layer, shape), products(expected, layer, shape), rtol=1e-4, atol=1e-5
        )
    # A batch that failed after its gradients were handed on is not counted twice.
    for layer in bases:
        torch.testing.assert_close(found.squares[layer], expected.squares[layer], rtol=1e-5, atol=1e-9)


def test_layers_of_equal_shape_are_factorised_in_one_call_within_the_budget(
    attributed: AttributedModel, bases: dict[str, KfacBases], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(gradients: torch.Tensor, c: int) -> GradientFactors:
        sizes.append(len(gradients))
        return low_rank_factors(gradients, c)

    monkeypatch.setattr("lorif_assets.mathematics.factors.low_rank.low_rank_factors", counted)
    together = factors(attributed, bases)
    shapes = attributed.record.layer_shapes
    assert sizes == [2 * len(LENGTHS)] * len(set(shapes.values()))
    assert len(shapes) == 2 * len(sizes)
    for budget in (1, 400, 2_000):
        sizes.clear()
        monkeypatch.setattr(BatchSettings, "gradient_numbers", budget)
        held = numbers_held(monkeypatch)
        found = factors(attributed, bases)
        largest = max(d1 * d2 for d1, d2 in shapes.values())
        assert max(held) <= max(budget, 2 * largest)
        assert sum(sizes) == len(LENGTHS) * len(shapes)
        assert (max(sizes) > 1) == (budget > 1)
        for layer, shape in shapes.items():
            torch.testing.assert_close(products(together, layer, shape), products(found, layer, shape))


@pytest.mark.parametrize("failing", range(5))
@pytest.mark.parametrize("budget", [600, 1 << 20])
@pytest.mark.parametrize("whitened", [True, False])
def test_memory_that_runs_out_while_layers_are_factorised_together_loses_nothing(
    attributed: AttributedModel,
    bases: dict[str, KfacBases],
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
    budget: int,
    whitened: bool,
) -> None:
    chosen = bases if whitened else {}
    expected = factors(attributed, chosen)
    calls = 0

    def limited(gradients: torch.Tensor, c: int) -> GradientFactors:
        nonlocal calls
        calls += 1
        if calls == failing + 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return low_rank_factors(gradients, c)

    monkeypatch.setattr("lorif_assets.mathematics.factors.low_rank.low_rank_factors", limited)
    monkeypatch.setattr(BatchSettings, "gradient_numbers", budget)
    found = factors(attributed, chosen)
    for layer, shape in attributed.record.layer_shapes.items():
        torch.testing.assert_close(
            products(found, layer, shape), products(expected, layer, shape), rtol=1e-4, atol=1e-5
        )
    for layer in chosen:
        torch.testing.assert_close(found.squares[layer], expected.squares[layer])


@pytest.mark.parametrize("whitened", [True, False])
def test_an_example_that_is_not_finite_in_one_layer_is_set_aside_and_spoils_no_other(
    attributed: AttributedModel, bases: dict[str, KfacBases], monkeypatch: pytest.MonkeyPatch, whitened: bool
) -> None:
    decoding = replace(attributed, tokenizer=SimpleNamespace(decode=str))  # type: ignore[arg-type]
    chosen, odd, odd_layer = bases if whitened else {}, 5, list(attributed.record.layer_shapes)[3]
    expected = factors(decoding, chosen)
    stream = GradientCollector.stream

    def spoilt(self: GradientCollector, batch: TokenBatch, sink: GradientSink, max_numbers: int) -> torch.Tensor:
        lengths = batch.attention_mask.sum(1)

        def spoiling(layer: str, rows: slice, gradients: torch.Tensor) -> None:
            if layer == odd_layer:
                gradients[lengths[rows] == LENGTHS[odd], 0, 0] = float("inf")
            sink(layer, rows, gradients)

        return stream(self, batch, spoiling, max_numbers)

    monkeypatch.setattr(GradientCollector, "stream", spoilt)
    found = factors(decoding, chosen)
    assert [row.example_id for row in found.not_finite] == [f"e{odd}"]
    kept = [at for at in range(len(LENGTHS)) if at != odd]
    for layer, shape in attributed.record.layer_shapes.items():
        alone = products(expected, layer, shape)[kept]
        torch.testing.assert_close(products(found, layer, shape), alone, rtol=1e-4, atol=1e-5)


def random_bases(attributed: AttributedModel, whitening_rank: int | None) -> dict[str, KfacBases]:
    generator = torch.Generator().manual_seed(2)

    def side(d: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.linalg.qr(torch.randn(d, d, generator=generator)).Q, torch.logspace(-2, 0, d)

    sides = {layer: [side(d) for d in shape] for layer, shape in attributed.record.layer_shapes.items()}
    return {
        layer: KfacBases(q_in, q_out, a, b, 0.1, whitening_rank) for layer, ((q_in, a), (q_out, b)) in sides.items()
    }


def formed_or_not(monkeypatch: pytest.MonkeyPatch, is_cheaper_from_tokens: bool) -> None:
    monkeypatch.setattr(FactorWork, "is_cheaper_from_tokens", is_cheaper_from_tokens)


@pytest.mark.parametrize("budget", [400, 1 << 20])
@pytest.mark.parametrize("whitening_rank", [None, 1])
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("whitened", [True, False])
def test_factors_and_squares_are_the_same_whether_gradients_are_formed_or_not(
    attributed: AttributedModel,
    monkeypatch: pytest.MonkeyPatch,
    whitened: bool,
    share: float,
    whitening_rank: int | None,
    budget: int,
) -> None:
    in_rounds = replace(attributed, recipe=attributed.recipe.changed(factor_rounds=8, fisher_share=share))
    bases = random_bases(attributed, whitening_rank) if whitened else {}
    formed_or_not(monkeypatch, is_cheaper_from_tokens=False)
    expected = factors(in_rounds, bases)
    formed_or_not(monkeypatch, is_cheaper_from_tokens=True)
    monkeypatch.setattr(BatchSettings, "gradient_numbers", budget)
    found = factors(in_rounds, bases)
    for layer, shape in attributed.record.layer_shapes.items():
        torch.testing.assert_close(
            products(found, layer, shape), products(expected, layer, shape), rtol=1e-4, atol=1e-5
        )
    assert found.squared == expected.squared
    assert (found.squared is None) == (share == 1 or not whitened)
    assert found.squares.keys() == expected.squares.keys() == bases.keys()
    for layer in bases:
        torch.testing.assert_close(found.squares[layer], expected.squares[layer], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("way", ["rounds", "accelerator"])
@pytest.mark.parametrize("is_formed", [True, False])
def test_in_rounds_factors_are_those_that_lapack_finds(
    attributed: AttributedModel, monkeypatch: pytest.MonkeyPatch, way: str, is_formed: bool
) -> None:
    bases = random_bases(attributed, None)
    expected = factors(attributed, bases)
    if way == "accelerator":
        monkeypatch.setattr("lorif_assets.mathematics.accelerators.is_accelerator", lambda device: True)
        in_rounds = replace(attributed)
    else:
        in_rounds = replace(attributed, recipe=attributed.recipe.changed(factor_rounds=8))
    formed_or_not(monkeypatch, is_cheaper_from_tokens=not is_formed)
    found = factors(in_rounds, bases)
    for layer, shape in attributed.record.layer_shapes.items():
        torch.testing.assert_close(
            products(found, layer, shape), products(expected, layer, shape), rtol=1e-3, atol=1e-4
        )
        torch.testing.assert_close(found.squares[layer], expected.squares[layer], rtol=1e-4, atol=1e-9)


def test_layers_of_other_ranks_share_a_call_and_keep_their_own_components(
    attributed: AttributedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = attributed.record.layer_shapes
    ranks = {layer: 3 + at % 2 for at, layer in enumerate(shapes)}
    ranks |= dict(zip([name for name in shapes if name.endswith("c_fc")], (3, 4), strict=True))
    frozen = FrozenBases("fingerprint", ranks, {}, 0.1)
    recipe = attributed.recipe.changed(factor_rounds=8, factor_dtype="sign")
    model = replace(attributed, record=replace(attributed.record, frozen_bases=frozen), recipe=recipe)
    bases = random_bases(attributed, None)
    calls: list[list[int]] = []

    def counted(batches: list[ScaledMatrices], c: int, rounds: int) -> list[GradientFactors]:
        calls.append([len(batch.sizes) for batch in batches])
        return factors_in_rounds(batches, c, rounds)

    monkeypatch.setattr("lorif_assets.mathematics.factors.low_rank.factors_in_rounds", counted)
    formed_or_not(monkeypatch, is_cheaper_from_tokens=False)
    found = factors(model, bases)
    # Two blocks of each of four layers, of which none has another's shape.
    assert calls == [[2 * len(LENGTHS)] * len(set(shapes.values()))]
    for layer, shape in shapes.items():
        lengths = {len(value) for value in found.rows[layer].to_pylist()}
        assert lengths == {factor_bytes(FactorCodec.SIGN, *shape, ranks[layer])}


def test_the_squares_are_those_of_the_examples_that_their_own_tokens_choose(attributed: AttributedModel) -> None:
    bases = random_bases(attributed, None)
    recipe = attributed.recipe.changed(fisher_share=0.5)
    found = factors(replace(attributed, recipe=recipe), bases)
    chosen = [example for example in examples() if in_fisher_sample(example, 0.5, recipe.seed)]
    assert 0 < len(chosen) < len(LENGTHS)
    assert found.squared == len(chosen)
    alone = [replace(example, row=row) for row, example in enumerate(chosen)]
    with Progress("factors", sum(LENGTHS), "tok") as progress:
        expected = factor_rows(attributed, alone, bases, BatchSettings(tokens=1_000), progress)
    for layer in bases:
        torch.testing.assert_close(found.squares[layer], expected.squares[layer], rtol=1e-4, atol=1e-9)


def test_a_sample_for_squares_has_its_share_of_the_examples_and_grows_with_it() -> None:
    rng = np.random.default_rng(1)
    many = [TokenizedExample(f"e{row}", row, ids, ids) for row, ids in enumerate(rng.integers(0, 100, (2_000, 6)))]
    chosen = {share: {e.row for e in many if in_fisher_sample(e, share, 0)} for share in (0.0625, 0.25, 1.0)}
    assert chosen[0.0625] < chosen[0.25] < chosen[1.0] == set(range(2_000))
    assert len(chosen[0.25]) == pytest.approx(500, abs=100)
    assert {e.row for e in many if in_fisher_sample(e, 0.25, 1)} != chosen[0.25]
    # Neither an example's name nor its place has a say.
    assert all(in_fisher_sample(replace(many[row], example_id="other", row=0), 0.25, 0) for row in chosen[0.25])


def test_an_example_whose_tokens_are_not_finite_is_set_aside_and_in_no_square(
    attributed: AttributedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding = replace(
        attributed, tokenizer=SimpleNamespace(decode=str), recipe=attributed.recipe.changed(factor_rounds=8)
    )  # type: ignore[arg-type]
    bases, odd, odd_layer = random_bases(attributed, None), 5, list(attributed.record.layer_shapes)[3]
    formed_or_not(monkeypatch, is_cheaper_from_tokens=True)
    kept = [example for at, example in enumerate(examples()) if at != odd]
    with Progress("factors", sum(LENGTHS), "tok") as progress:
        expected = factor_rows(decoding, kept, bases, BatchSettings(tokens=1_000), progress)
    take = _EncodedFactors.take_tokens

    def spoilt(self: _EncodedFactors, layer: str, tokens: TokenGradients) -> None:
        if layer == odd_layer:
            # Examples come longest first: this one is the fourth of eight, and alone has eight tokens.
            ends = tokens.dy.abs().sum(2).gt(0).sum(1)
            tokens.x[ends == LENGTHS[odd] - 1, 0, 0] = float("nan")
        take(self, layer, tokens)

    monkeypatch.setattr(_EncodedFactors, "take_tokens", spoilt)
    found = factors(decoding, bases)
    assert [row.example_id for row in found.not_finite] == [f"e{odd}"]
    for layer in bases:
        torch.testing.assert_close(found.squares[layer], expected.squares[layer], rtol=1e-4, atol=1e-9)


def test_an_example_whose_tokens_are_finite_and_whose_gradient_is_not_is_set_aside(
    attributed: AttributedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding = replace(
        attributed, tokenizer=SimpleNamespace(decode=str), recipe=attributed.recipe.changed(factor_rounds=8)
    )  # type: ignore[arg-type]
    formed_or_not(monkeypatch, is_cheaper_from_tokens=True)
    take = _EncodedFactors.take_tokens

    def overflowing(self: _EncodedFactors, layer: str, tokens: TokenGradients) -> None:
        for side in (tokens.x, tokens.dy):
            side[:1] *= 1e25
        take(self, layer, tokens)

    monkeypatch.setattr(_EncodedFactors, "take_tokens", overflowing)
    found = factors(decoding, {})
    assert len(found.not_finite) == 1
    assert found.rows.num_rows == len(LENGTHS) - 1


def test_an_example_that_does_not_fit_alone_is_named_with_what_to_do(
    attributed: AttributedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_above(8, OUT_OF_MEMORY[0], monkeypatch)
    with pytest.raises(LorifError, match=r"even the one example 'e1' of 9 tokens; lower `recipe.max_length`"):
        factors(attributed, {})


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    attributed: AttributedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = fail_above(0, RuntimeError("the device is lost"), monkeypatch)
    with pytest.raises(RuntimeError, match="the device is lost"):
        factors(attributed, {})
    assert len(sizes) == 1


def test_layers_of_one_shape_are_factorised_some_at_a_time_with_the_same_factors(
    attributed: AttributedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, (d1, d2) = attributed.record.layer_shapes, min(attributed.record.layer_shapes.values())
    of_slice = len(LENGTHS) * d1 * d2
    expected, together = factors(attributed, {}), []
    found_at_once = low_rank.low_rank_factors

    def counting(gradients: torch.Tensor, c: int) -> low_rank.GradientFactors:
        together.append(gradients.numel())
        return found_at_once(gradients, c)

    monkeypatch.setattr(low_rank, "low_rank_factors", counting)
    factors(attributed, {})
    assert max(together) > of_slice, "nothing waits for another of its shape"
    together.clear()
    monkeypatch.setattr("lorif_assets.attribution.factors.waiting_gradients.LAPACK_NUMBERS", of_slice)
    found = factors(attributed, {})
    slices = {len(LENGTHS) * a * b for a, b in layers.values()}
    assert set(together) <= slices
    for layer, shape in layers.items():
        torch.testing.assert_close(products(found, layer, shape), products(expected, layer, shape))
