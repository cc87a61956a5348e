"""What must hold of the parts together, from token ids to scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lorif_assets.mathematics.curvature.svd import CurvatureState, random_basis
from lorif_assets.mathematics.curvature.svd_preconditioner import (
    LEADING_EXTRA,
    CurvatureForm,
    DampingRule,
    Preconditioner,
)
from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode
from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import LayerProjection, Projection, layer_projection
from lorif_assets.mathematics.scores.scoring import ScoreExtremes, block_scores
from tests.mathematics.references import (
    Example,
    autograd_gradients,
    dense_scores,
    gradient_matrix,
    padded_batch,
    paper_scores,
    relative_error,
)

FULL = 10**6
FUNCTION_SCOPED = [HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def training() -> list[Example]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(4, 13, (14,), generator=generator).tolist()
    return [(ids, ids) for n in lengths if (ids := torch.randint(3, 64, (n,), generator=generator).tolist())]


def projections(model: nn.Module, factor: int = 4) -> list[LayerProjection]:
    return [layer_projection(layer, Projection(factor=factor, seed=7)) for layer in select_layers(model)]


def gradients_of(
    model: nn.Module, projected: Sequence[LayerProjection], batches: Sequence[TokenBatch]
) -> dict[str, Tensor]:
    with GradientCollector(model, projected) as collector:
        collected = [collector.collect(batch).gradients for batch in batches]
    return {name: torch.cat([gradients[name] for gradients in collected]) for name in collected[0]}


def alone(examples: Sequence[Example]) -> list[TokenBatch]:
    return [padded_batch([example], len(example[0]), "right") for example in examples]


def factors_of(gradients: Mapping[str, Tensor], c: int) -> dict[str, GradientFactors]:
    return {name: low_rank_factors(g, c) for name, g in gradients.items()}


def preconditioners(
    factors: Mapping[str, GradientFactors], r: int, rule: DampingRule, damping: float, form: CurvatureForm
) -> dict[str, Preconditioner]:
    fitted = {}
    for name, held in factors.items():
        dimension = held.u.shape[1] * held.v.shape[1]
        state = CurvatureState.empty(random_basis(dimension, r + LEADING_EXTRA, 0)).add(held)
        fitted[name] = Preconditioner.from_spectrum(state.spectrum(r, LEADING_EXTRA), rule, damping, form)
    return fitted


def scores_of(
    queries: Mapping[str, Tensor], factors: Mapping[str, GradientFactors], fitted: Mapping[str, Preconditioner]
) -> Tensor:
    ready = {name: fitted[name].apply(g.flatten(1).float()) for name, g in queries.items()}
    return block_scores(ready, {name: GradientFactors(f.u.float(), f.v.float()) for name, f in factors.items()})


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("form", CurvatureForm)
@pytest.mark.parametrize("damping", [0.1, 1.0])
def test_full_rank_factors_and_curvature_reproduce_the_dense_scores(family, form, damping, examples, training, request):
    model = request.getfixturevalue(family)
    projected = projections(model)
    factors = factors_of(gradients_of(model, projected, [padded_batch(training, 12, "left")]), FULL)
    queries = gradients_of(model, projected, [padded_batch(examples, 14, "right")])
    fitted = preconditioners(factors, FULL, DampingRule.TRACE, damping, form)

    exact = {name: g.flatten(1) for name, g in autograd_gradients(model, training, projected).items()}
    exact_queries = {name: g.flatten(1) for name, g in autograd_gradients(model, examples, projected).items()}
    lam = {name: damping * float(g.square().sum()) / g.shape[1] for name, g in exact.items()}
    assert {name: p.damping for name, p in fitted.items()} == pytest.approx(lam, rel=1e-4)
    assert relative_error(scores_of(queries, factors, fitted), dense_scores(exact_queries, exact, lam)) < 1e-3


def test_rank_zero_with_unit_damping_is_the_dot_product_of_projected_gradients(gpt2, examples, training):
    projected = projections(gpt2)
    factors = factors_of(gradients_of(gpt2, projected, alone(training)), FULL)
    queries = gradients_of(gpt2, projected, alone(examples))
    found = scores_of(queries, factors, preconditioners(factors, 0, DampingRule.ABSOLUTE, 1.0, CurvatureForm.TRUNCATED))
    train, query = (autograd_gradients(gpt2, rows, projected) for rows in (training, examples))
    expected = sum(query[name].flatten(1) @ g.flatten(1).T for name, g in train.items())
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("r", [0, 3, 9])
def test_preconditioning_the_query_once_gives_the_papers_form_of_the_scores(gpt2, examples, training, r):
    """With the query factorised at full rank, so that only the order of the operations differs."""
    projected = projections(gpt2)
    factors = factors_of(gradients_of(gpt2, projected, alone(training)), 1)
    queries = gradients_of(gpt2, projected, alone(examples))
    fitted = preconditioners(factors, r, DampingRule.TRACE, 1.0, CurvatureForm.TRUNCATED)
    in_double = {name: GradientFactors(f.u.double(), f.v.double()) for name, f in factors_of(queries, FULL).items()}
    expected = sum(
        paper_scores(
            in_double[name],
            GradientFactors(held.u.double(), held.v.double()),
            fitted[name].vectors.double(),
            fitted[name].eigenvalues,
            fitted[name].damping,
        )
        for name, held in factors.items()
    )
    assert relative_error(scores_of(queries, factors, fitted), expected) < 1e-4


@settings(deadline=None, max_examples=15, suppress_health_check=FUNCTION_SCOPED)
@given(
    exponents=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    flip=st.sampled_from([-1, 1]),
    rule=st.sampled_from([DampingRule.TRACE, DampingRule.LEADING]),
    form=st.sampled_from(CurvatureForm),
    r=st.sampled_from([0, 2, 5, FULL]),
    c=st.sampled_from([1, FULL]),
)
def test_scaling_a_layers_projection_leaves_its_scores_unchanged(
    gpt2, examples, training, exponents, flip, rule, form, r, c
):
    plain = projections(gpt2)[2]
    scaled = replace(plain, p_in=plain.p_in * 10 ** exponents[0], p_out=plain.p_out * flip * 10 ** exponents[1])
    plain_scores, scaled_scores = (
        scores_of(
            gradients_of(gpt2, [projection], [padded_batch(examples, 12, "right")]),
            factors := factors_of(gradients_of(gpt2, [projection], [padded_batch(training, 12, "right")]), c),
            preconditioners(factors, r, rule, 0.5, form),
        )
        for projection in (plain, scaled)
    )
    assert relative_error(scaled_scores, plain_scores) < 1e-3


def test_under_absolute_damping_the_scale_of_a_projection_does_matter(gpt2, examples, training):
    """So the law above is one of the relative rules, not of the test."""
    plain = projections(gpt2)[2]
    scores = [
        scores_of(
            gradients_of(gpt2, [projection], alone(examples)),
            factors := factors_of(gradients_of(gpt2, [projection], alone(training)), FULL),
            preconditioners(factors, 5, DampingRule.ABSOLUTE, 1.0, CurvatureForm.TRUNCATED),
        )
        for projection in (plain, replace(plain, p_in=plain.p_in * 10))
    ]
    assert relative_error(scores[1], scores[0]) > 0.5


@settings(deadline=None, max_examples=12, suppress_health_check=FUNCTION_SCOPED)
@given(data=st.data())
def test_batches_padding_and_shards_change_no_factor_score_or_top_k(gpt2, examples, training, data):
    model = gpt2
    projected = projections(model)
    reference_factors = factors_of(gradients_of(model, projected, alone(training)), 2)
    queries = gradients_of(model, projected, alone(examples))
    form = CurvatureForm.TAIL_CORRECTED
    expected = scores_of(
        queries, reference_factors, preconditioners(reference_factors, 4, DampingRule.TRACE, 1.0, form)
    )

    order = data.draw(st.permutations(range(len(training))), label="order")
    shards, at = [], 0
    while at < len(order):
        size = data.draw(st.integers(1, 6), label="size")
        rows = [training[i] for i in order[at : at + size]]
        width = max(len(ids) for ids, _ in rows) + data.draw(st.integers(0, 4), label="padding")
        side = data.draw(st.sampled_from(["left", "right"]), label="side")
        shards.append(factors_of(gradients_of(model, projected, [padded_batch(rows, width, side)]), 2))
        at += size

    position_of = torch.tensor(order).argsort()
    fitted = {}
    for name, held in reference_factors.items():
        together = torch.cat([shard[name].dense() for shard in shards])[position_of]
        assert relative_error(together, held.dense()) < 1e-3
        state = CurvatureState.empty(random_basis(together.shape[1], 4 + LEADING_EXTRA, 0))
        for shard in shards:
            state = state.add(shard[name])
        fitted[name] = Preconditioner.from_spectrum(state.spectrum(4, LEADING_EXTRA), DampingRule.TRACE, 1.0, form)

    extremes, blocks = ScoreExtremes.empty(len(examples), 3), []
    for shard in shards:
        blocks.append(scores_of(queries, shard, fitted))
        extremes = extremes.update(blocks[-1], sum(block.shape[1] for block in blocks[:-1]))
    assert relative_error(torch.cat(blocks, dim=1)[:, position_of], expected) < 1e-3
    for side, positions in (("highest", extremes.highest_positions), ("lowest", extremes.lowest_positions)):
        best = expected.sort(dim=1, descending=side == "highest").indices[:, :3]
        torch.testing.assert_close(
            expected.gather(1, torch.tensor(order)[positions]),
            expected.gather(1, best),
            rtol=1e-3,
            atol=1e-3 * float(expected.abs().max()),
        )


@pytest.mark.parametrize("c", [1, 2])
def test_storing_factors_in_bf16_moves_scores_by_less_than_one_percent(gpt2, examples, training, c):
    projected = projections(gpt2)
    factors = factors_of(gradients_of(gpt2, projected, alone(training)), c)
    queries = gradients_of(gpt2, projected, alone(examples))
    stored = {
        name: decode(encode(held, FactorCodec.BF16), FactorCodec.BF16, held.u.shape[1], held.v.shape[1])
        for name, held in factors.items()
    }
    exact, rounded = (
        scores_of(queries, held, preconditioners(held, 5, DampingRule.TRACE, 1.0, CurvatureForm.TAIL_CORRECTED))
        for held in (factors, stored)
    )
    assert 0 < relative_error(rounded, exact) < 0.01


def test_curvature_is_that_of_the_factorised_gradients_not_of_the_whole_ones(gpt2, training):
    projected = projections(gpt2)
    factors = factors_of(gradients_of(gpt2, projected, alone(training)), 1)
    fitted = preconditioners(factors, FULL, DampingRule.TRACE, 1.0, CurvatureForm.TAIL_CORRECTED)
    for name, held in factors.items():
        g = gradient_matrix(held)
        identity = torch.eye(g.shape[1], dtype=torch.float64)
        inverse = torch.linalg.inv(g.T @ g + fitted[name].damping * identity)
        assert relative_error(fitted[name].apply(identity), inverse) < 1e-4
