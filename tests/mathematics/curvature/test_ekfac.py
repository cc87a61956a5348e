"""EK-FAC in the projected space: bases, whitening, sums that add and subtract, and scores against a naive reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lorif_assets.errors import LorifError
from lorif_assets.mathematics.curvature.ekfac import EkfacCurvature, FisherDiagonal
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases, KfacCovariances
from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode
from lorif_assets.mathematics.factors.low_rank import low_rank_factors
from lorif_assets.mathematics.gradients.collector import GradientCollector
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL, sampled_targets
from lorif_assets.mathematics.scores.axis_sizes import for_signs
from lorif_assets.mathematics.scores.scoring import block_scores
from tests.mathematics.references import autograd_gradients, padded_batch, relative_error, token_covariances

D1, D2 = 7, 5
CPU = torch.device("cpu")


def random_data(seed: int, n: int = 12, tokens: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Token inputs [n, t, d1] and output gradients [n, t, d2] of unequal variances, and the gradients G [n, d1, d2]."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.Generator().manual_seed(100)
    x = torch.randn(n, tokens, D1, generator=generator) * 1.5 ** -torch.arange(D1)
    dy = torch.randn(n, tokens, D2, generator=generator) * 1.5 ** -torch.arange(D2)
    x, dy = x @ torch.randn(D1, D1, generator=mixing), dy @ torch.randn(D2, D2, generator=mixing)
    return x, dy, torch.einsum("nti,nto->nio", x, dy)


def covariances(x: Tensor, dy: Tensor) -> KfacCovariances:
    return KfacCovariances.empty(D1, D2, CPU).add(x.flatten(0, 1), dy.flatten(0, 1))


def naive_ekfac(x: Tensor, dy: Tensor, train: Tensor, queries: Tensor, m: float) -> Tensor:
    """Scores [Q, N] by the whole Kronecker eigenbasis Q_A x Q_B, D x D, in FP64."""
    q_in = torch.linalg.eigh(torch.einsum("nti,ntj->ij", x.double(), x.double())).eigenvectors
    q_out = torch.linalg.eigh(torch.einsum("nti,ntj->ij", dy.double(), dy.double())).eigenvectors
    basis = torch.kron(q_in, q_out)
    g, q = train.double().flatten(1), queries.double().flatten(1)
    eigenvalues = (g @ basis).square().mean(0)
    inverse = basis @ torch.diag(1 / (eigenvalues + m * eigenvalues.mean())) @ basis.T
    return q @ inverse @ g.T


def scores(
    bases: KfacBases, train: Tensor, queries: Tensor, m: float, c: int = 99, codec: FactorCodec = FactorCodec.FP32
) -> Tensor:
    rotated = bases.rotate(train)
    stored = encode(low_rank_factors(bases.whitened(train), c), codec)
    ready = EkfacCurvature(bases, FisherDiagonal.of(rotated), m).preconditioner().apply(queries.flatten(1))
    return block_scores({"layer": ready}, {"layer": decode(stored, codec, D1, D2)})


@pytest.mark.parametrize("m", [0.1, 3.0])
@pytest.mark.parametrize("scale_damping", [0.1, 1.0])
def test_full_rank_scores_are_those_of_a_naive_ekfac_whatever_the_whitening(m, scale_damping):
    x, dy, train = random_data(0)
    queries = random_data(1)[2]
    expected = naive_ekfac(x, dy, train, queries, m)
    assert relative_error(scores(covariances(x, dy).bases(scale_damping), train, queries, m), expected) < 1e-4


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_full_rank_scores_are_exact_by_however_few_eigenvectors_sides_are_whitened(rank):
    """With 3, no side of 7 and 5 but the wider one is more than twice as wide; with 1, both are."""
    x, dy, train = random_data(0)
    queries = random_data(1)[2]
    bases = covariances(x, dy).bases(0.1, whitening_rank=rank)
    assert (bases.inputs.leading, bases.outputs.leading) == (rank, rank if rank < 3 else None)
    assert relative_error(scores(bases, train, queries, 0.1), naive_ekfac(x, dy, train, queries, 0.1)) < 1e-4


@pytest.mark.parametrize("rank", [None, 1, 2, 3])
def test_gradients_of_whitened_tokens_are_the_whitened_gradients(rank):
    x, dy, train = random_data(0)
    bases = covariances(x, dy).bases(0.1, whitening_rank=rank)
    of_tokens = torch.einsum("nti,nto->nio", bases.inputs.apply(x), bases.outputs.apply(dy))
    assert relative_error(of_tokens, bases.whitened(train)) < 1e-5
    assert relative_error(bases.in_factor_axes(bases.rotate(train) * bases.scale), bases.whitened(train)) < 1e-5


def test_a_side_whitened_by_its_leading_eigenvectors_has_one_number_for_the_others():
    x, dy, _ = random_data(0)
    side = covariances(x, dy).bases(0.1, whitening_rank=2).inputs
    values = covariances(x, dy).bases(0.1).a
    rest = (values[:5].mean() + 0.1 * values.mean()).rsqrt()
    torch.testing.assert_close(side.weights, torch.cat([rest.expand(5), (values[5:] + 0.1 * values.mean()).rsqrt()]))
    whitening = (side.q * side.weights) @ side.q.mT
    torch.testing.assert_close(side.apply(torch.eye(D1)), whitening, rtol=1e-4, atol=1e-5)
    assert side.columns == 4


@pytest.mark.parametrize("codec", FactorCodec)
def test_every_codec_holds_whitened_factors(codec):
    x, dy, train = random_data(0)
    queries = random_data(1)[2]
    bases = covariances(x, dy).bases(0.1)
    found = scores(bases, train, queries, 0.1, codec=codec)
    expected = naive_ekfac(x, dy, train, queries, 0.1)
    correlation = torch.corrcoef(torch.stack([found.flatten(), expected.flatten().float()]))[0, 1]
    assert float(correlation) > (0.4 if codec is FactorCodec.SIGN else 0.98)


@pytest.mark.parametrize(("of_inputs", "of_outputs"), [(1e-8, 1.0), (1.0, 1e-8), (1e6, 1e3)])
def test_the_scale_of_a_layers_projections_changes_no_ranking(of_inputs, of_outputs):
    """Scores are in units of 1 / gradient^2 x gradient^2: the scales cancel."""
    x, dy, train = random_data(0)
    queries = random_data(1)[2]
    plain = scores(covariances(x, dy).bases(0.1), train, queries, 0.1, c=2)
    both = of_inputs * of_outputs
    scaled = scores(covariances(x * of_inputs, dy * of_outputs).bases(0.1), train * both, queries * both, 0.1, c=2)
    assert relative_error(scaled, plain) < 1e-3


# --- Bases -----------------------------------------------------------------------------------------------------------


def test_whitened_tokens_have_covariance_one_up_to_the_damping():
    x, dy, _ = random_data(3, n=50)
    bases = covariances(x, dy).bases(0.0)
    for tokens, basis, values in ((x, bases.q_in, bases.a), (dy, bases.q_out, bases.b)):
        white = tokens.flatten(0, 1) @ basis * values.rsqrt()
        torch.testing.assert_close(white.T @ white / white.shape[0], torch.eye(len(values)), rtol=0, atol=2e-3)


def test_covariances_of_disjoint_data_add():
    x, dy, _ = random_data(4)
    whole, parts = covariances(x, dy), covariances(x[:5], dy[:5]).merge(covariances(x[5:], dy[5:]))
    assert parts.tokens == whole.tokens == 12 * 9
    assert relative_error(parts.inputs, whole.inputs) < 1e-6
    assert relative_error(parts.outputs, whole.outputs) < 1e-6


def test_bases_diagonalise_their_own_covariances_and_others_less():
    x, dy, _ = random_data(5)
    own, other = covariances(x, dy), covariances(x.flip(2), dy.flip(2))
    assert own.diagonality(own.bases(0.1)) == pytest.approx(1.0, abs=1e-5)
    assert own.diagonality(other.bases(0.1)) < 0.9


def test_a_layer_without_any_gradient_scores_nothing_and_its_scale_is_finite():
    x, dy, train = random_data(7)
    bases = covariances(x, dy * 0).bases(0.1)
    assert bool(bases.scale.isfinite().all())
    assert not scores(bases, train * 0, train, 0.1).any()


def test_covariances_that_are_not_finite_are_refused():
    x, dy, _ = random_data(8)
    x[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        covariances(x, dy).bases(0.1)


def test_bases_are_what_was_stored_of_them():
    x, dy, train = random_data(9)
    bases = covariances(x, dy).bases(0.3)
    again = KfacBases.from_tensors(bases.tensors(), 0.3, CPU)
    assert torch.equal(again.rotate(train) * again.scale, bases.rotate(train) * bases.scale)


# --- Sums that add and subtract --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20))
def test_any_sequence_of_additions_and_removals_equals_the_sums_from_scratch(operations):
    rotated = [
        10.0 ** (k - 3) * torch.randn(k + 1, D1, D2, generator=torch.Generator().manual_seed(k)) for k in range(6)
    ]
    held: list[int] = []
    sums = FisherDiagonal.empty(D1, D2, CPU)
    for shard, add in operations:
        if add:
            held.append(shard)
            sums = sums.merge(FisherDiagonal.of(rotated[shard]))
        elif shard in held:
            held.remove(shard)
            sums = sums.without(FisherDiagonal.of(rotated[shard]))
    expected = sum((rotated[shard].double().square().sum(0) for shard in held), torch.zeros(D1, D2))
    assert sums.count == sum(shard + 1 for shard in held)
    torch.testing.assert_close(sums.squares, expected.double(), rtol=1e-6, atol=1e-9)


def test_more_than_there_is_cannot_be_removed():
    one = FisherDiagonal.of(torch.ones(1, D1, D2))
    with pytest.raises(ValueError, match="2 examples cannot be removed from sums of 1"):
        one.without(one.merge(one))


# --- What the collector shows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_covariances_are_those_of_the_real_tokens(gpt2, examples, side):
    layers = [layer_projection(layer, Projection(factor=2, seed=0)) for layer in select_layers(gpt2)]
    found: dict[str, KfacCovariances] = {}
    batch = padded_batch(examples, 14, side)

    def observer(layer, calls):
        for x, dy in calls:
            empty = KfacCovariances.empty(x.shape[2], dy.shape[2], CPU)
            found[layer] = empty.add(x[batch.attention_mask], dy[batch.attention_mask])

    with GradientCollector(gpt2, layers) as collector:
        collector.observe(batch, observer)
    for layer, (inputs, outputs, tokens) in token_covariances(gpt2, examples, layers).items():
        assert found[layer].tokens == tokens
        assert relative_error(found[layer].inputs, inputs) < 1e-4
        assert relative_error(found[layer].outputs, outputs) < 1e-4


@pytest.mark.parametrize("projection", [Projection(factor=2, seed=0), Projection(max_width=20, seed=0)], ids=str)
def test_covariances_and_gradients_of_whole_tokens_are_projected_as_their_tokens_are(gpt2, examples, projection):
    layers = [layer_projection(layer, projection) for layer in select_layers(gpt2)]
    whole = [layer_projection(layer, Projection(factor=1, seed=0)) for layer in select_layers(gpt2)]
    batch = padded_batch(examples, 14, "right")
    sums: list[dict[str, KfacCovariances]] = [{}, {}]
    gradients = []
    for found, projections in zip(sums, (layers, whole), strict=True):

        def observer(layer, calls, found=found):
            for x, dy in calls:
                empty = KfacCovariances.empty(x.shape[2], dy.shape[2], CPU)
                found[layer] = empty.add(x[batch.attention_mask], dy[batch.attention_mask])

        with GradientCollector(gpt2, projections) as collector:
            collector.observe(batch, observer)
            gradients.append(collector.collect(batch).gradients)
    for layer in layers:
        name = layer.layer.name
        found, expected = sums[1][name].projected(layer), sums[0][name]
        assert found.tokens == expected.tokens
        assert relative_error(found.inputs, expected.inputs) < 1e-5
        assert relative_error(found.outputs, expected.outputs) < 1e-5
        assert relative_error(layer.apply(gradients[1][name]), gradients[0][name]) < 1e-5


@pytest.mark.parametrize("max_numbers", [1, 100, 300, 10**9])
def test_streamed_gradients_are_the_collected_ones_in_slices_within_the_budget(gpt2, examples, max_numbers):
    layers = [layer_projection(layer, Projection(factor=2, seed=0)) for layer in select_layers(gpt2)]
    batch = padded_batch(examples, 14, "right")
    pieces: dict[str, list[Tensor]] = {}

    def sink(layer, rows, gradients):
        assert gradients.shape[0] == 1 or gradients.numel() <= max_numbers
        assert rows.start == sum(len(piece) for piece in pieces.setdefault(layer, []))
        pieces[layer].append(gradients)

    with GradientCollector(gpt2, layers) as collector:
        losses = collector.stream(batch, sink, max_numbers)
        collected = collector.collect(batch)
    torch.testing.assert_close(losses, collected.losses)
    expected = autograd_gradients(gpt2, examples, layers)
    for layer, gradients in collected.gradients.items():
        assert relative_error(torch.cat(pieces[layer]), gradients) < 1e-5
        assert relative_error(gradients, expected[layer]) < 1e-4


def test_labels_of_the_model_stand_at_the_target_positions_and_follow_its_distribution():
    logits = torch.full((1, 20_001, 3), 0.0)
    logits[..., 1] = 1.0
    given = torch.zeros(1, 20_001, dtype=torch.long)
    given[0, 5:9] = IGNORED_LABEL
    drawn = sampled_targets(logits, given, torch.Generator().manual_seed(0))
    assert torch.equal(drawn == IGNORED_LABEL, given == IGNORED_LABEL)
    targets = drawn[drawn != IGNORED_LABEL]
    expected = torch.softmax(logits[0, 0], 0)
    torch.testing.assert_close(targets.bincount() / len(targets), expected, rtol=0, atol=0.02)
    assert torch.equal(drawn, sampled_targets(logits, given, torch.Generator().manual_seed(0)))


# --- Sums over a sample -------------------------------------------------------------------------------------------------


def sampled_sums(rotated: Tensor, chosen: list[int]) -> FisherDiagonal:
    return FisherDiagonal(rotated[chosen].square().sum(0).double(), len(rotated), len(chosen))


def test_sums_over_a_sample_add_and_subtract_and_their_mean_is_the_samples():
    _, _, train = random_data(0)
    first, second = sampled_sums(train[:5], [0, 3]), sampled_sums(train[5:], [1])
    both = FisherDiagonal.empty(D1, D2, CPU).merge(first).merge(second)
    assert (both.count, both.squared) == (12, 3)
    torch.testing.assert_close(both.eigenvalues, train[[0, 3, 6]].double().square().mean(0))
    left = both.without(second)
    assert (left.count, left.squared) == (5, 2)
    torch.testing.assert_close(left.squares, first.squares)
    assert not sampled_sums(train[:5], []).merge(second).without(second).squares.any()
    with pytest.raises(ValueError, match="cannot be removed"):
        first.without(FisherDiagonal(first.squares, 1, 3))


def test_sums_over_a_sample_are_what_was_stored_of_them():
    _, _, train = random_data(0)
    for sums in (sampled_sums(train, [0, 3]), FisherDiagonal.of(train)):
        assert FisherDiagonal.from_tensors(sums.tensors(), 12, CPU).squared == sums.squared
    assert "squared" not in FisherDiagonal.of(train).tensors()


def test_a_sample_that_none_of_the_examples_fell_into_is_an_error_that_says_what_to_do():
    x, dy, train = random_data(0)
    curvature = EkfacCurvature(covariances(x, dy).bases(0.1), sampled_sums(train, []), 0.1)
    with pytest.raises(LorifError, match=r"none of 12 examples fell .* raise `recipe.fisher_share`"):
        curvature.preconditioner()


def test_axis_sizes_are_the_root_mean_squares_of_whitened_gradients_along_either_side():
    x, dy, train = random_data(0)
    bases = covariances(x, dy).bases(0.1)
    squares = bases.whitened(train).double().square().mean(0)
    rows, columns = squares.sum(1).sqrt(), squares.sum(0).sqrt()
    expected = torch.outer(rows / rows.mean(), columns / columns.mean())
    found = EkfacCurvature(bases, FisherDiagonal.of(bases.rotate(train)), 0.1).preconditioner().axis_sizes
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_axis_sizes_of_a_side_that_keeps_its_tokens_axes_are_along_these():
    x, dy, train = random_data(0)
    bases = covariances(x, dy).bases(0.1, whitening_rank=1)
    energies = FisherDiagonal.of(bases.rotate(train)).eigenvalues * bases.scale.double().square()
    sizes = bases.axis_sizes(FisherDiagonal.of(bases.rotate(train)).eigenvalues)
    along = (bases.q_in.double() @ torch.diag(energies.sum(1)) @ bases.q_in.double().mT).diagonal().sqrt()
    torch.testing.assert_close(sizes.mean(1), along / along.mean(), rtol=1e-4, atol=1e-6)


def test_a_layer_without_gradients_has_axes_of_one_size():
    x, dy, _ = random_data(0)
    sizes = covariances(x, dy).bases(0.1).axis_sizes(torch.zeros(D1, D2, dtype=torch.float64))
    assert torch.equal(sizes, torch.ones(D1, D2, dtype=torch.float64))


@pytest.mark.parametrize("c", [1, 2, 4])
def test_queries_that_know_the_sizes_of_axes_score_signs_nearer_to_whole_gradients(c):
    """Where a few axes hold most of what is left after whitening, as in models."""
    x, dy, train = random_data(0, n=400, tokens=3)
    x, dy = (tokens * tokens.abs().square() for tokens in (x, dy))
    train, queries = (torch.einsum("nti,nto->nio", x[rows], dy[rows]) for rows in (slice(350), slice(350, None)))
    bases = covariances(x, dy).bases(0.1)
    ready = EkfacCurvature(bases, FisherDiagonal.of(bases.rotate(train)), 0.1).preconditioner()
    applied = ready.apply(queries.flatten(1))
    stored = decode(encode(low_rank_factors(bases.whitened(train), c), FactorCodec.SIGN), FactorCodec.SIGN, D1, D2)
    exact = applied @ bases.whitened(train).flatten(1).mT
    plain, sized = (block_scores({"": one}, {"": stored}) for one in (applied, for_signs(ready, applied)))

    def agreement(found: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([found.flatten(), exact.flatten()]))[0, 1])

    assert agreement(sized) > agreement(plain) + 0.01
