"""Influence scores: preconditioned dense queries against streamed factors (docs/method.md: stage 3).

score(q, i) = sum over layers of vec(G_q)^T H^-1 vec(G_i). H^-1 is symmetric, so it is applied to the query once; a
larger score means that example i lowers the loss of query q more.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors
from lorif_assets.mathematics.factors.packed_signs import LayerFactors, PackedSigns, SignProducts
from lorif_assets.mathematics.matrix_products import product
from lorif_assets.mathematics.scores.machine_code import can_compile
from lorif_assets.mathematics.scores.sign_scores import sign_scores

# Numbers of one block of products: 64 MiB in FP32, on an accelerator 256.
_BLOCK_NUMBERS = 1 << 24
_ACCELERATOR_NUMBERS = 1 << 26
# Numbers of products that are summed up while a CPU's cache holds them.
_CACHED_NUMBERS = 1 << 20
# The most queries for which products with the components beat rebuilding u v^T (measured on a CPU): at rank 1 as a multiple
# of the layer's larger width, above rank 1 divided by the rank.
_QUERIES_PER_WIDTH = 2
_QUERIES_TIMES_RANK = 64
# The most queries for which packed signs are scored as they are; for more, products of whole blocks make up for unpacking
# them (computed from the rates of both on a CPU).
_QUERIES_OF_SIGNS = 128
# Components whose signs are multiplied at a time: enough to repay the tables that this takes, and no more than a CPU's
# cache holds the products of.
_COMPONENTS = 1 << 13
# Fewer than these do not repay the tables.
_FEWEST_COMPONENTS = 512
# Block power iterations that find a query's leading directions: three come within a few per cent of the best rank-k error.
_QUERY_ITERATIONS = 3

Queries = Float[Tensor, "Q D"] | GradientFactors
"""A layer's preconditioned queries: vec(M_q) whole, or M_q ~ u v^T."""


def low_rank_queries(queries: Float[Tensor, "Q d1 d2"], rank: int) -> tuple[GradientFactors, Float[Tensor, " Q"]]:
    """Return preconditioned queries at a rank, and the squared Frobenius error of each."""
    factors = low_rank_factors(queries, rank, _QUERY_ITERATIONS)
    # v is orthonormal and u = M v, so what is kept and what is left out are orthogonal.
    lost = queries.double().square().sum((1, 2)) - factors.u.double().square().sum((1, 2))
    return factors, lost.clamp(min=0.0)


def block_scores(queries: Mapping[str, Queries], factors: Mapping[str, LayerFactors]) -> Float[Tensor, "Q n"]:
    """Return the scores of n examples, summed over layers.

    Args:
        queries: per layer H^-1 G_q of the Q queries.
        factors: per layer the factors of the same n examples.

    Raises:
        ValueError: the two name different layers.
    """
    if queries.keys() != factors.keys():
        odd = sorted(queries.keys() ^ factors.keys())
        raise ValueError(f"queries and factors name different layers, for instance {odd[0]!r}")
    terms = (_layer_scores(queries[layer], factors[layer]) for layer in queries)
    total = next(terms)
    for term in terms:
        total = total + term
    return total


def _layer_scores(queries: Queries, factors: LayerFactors) -> Float[Tensor, "Q n"]:
    if isinstance(factors, PackedSigns):
        if factors.scales.numel() >= _FEWEST_COMPONENTS:
            if isinstance(queries, GradientFactors):
                return _low_rank_sign_scores(queries, factors)
            if len(queries) <= _QUERIES_OF_SIGNS and can_compile():
                return sign_scores(queries, factors)
        factors = factors.factors()
    if isinstance(queries, GradientFactors):
        return _low_rank_scores(queries, factors)
    n, (_, d1, c), d2 = len(queries), factors.u.shape, factors.v.shape[1]
    if n * c <= _QUERIES_TIMES_RANK or (c == 1 and n <= _QUERIES_PER_WIDTH * max(d1, d2)):
        return _component_scores(queries, factors)
    # Rebuilding u v^T costs n c D once; the product with Q queries is then Q n D, whatever c is. Without a projection
    # D is millions: a block at a time.
    return torch.cat([product(queries, block.mT) for block in factors.dense_blocks()], dim=1)


def _component_scores(queries: Float[Tensor, "Q D"], factors: GradientFactors) -> Float[Tensor, "Q n"]:
    """Return the sum of u^T M v over the components: c times the products, but no D numbers per example to store."""
    m = queries.unflatten(1, (factors.u.shape[1], factors.v.shape[1]))
    wide, narrow = (x.mT.flatten(0, 1) for x in (factors.u, factors.v))
    if wide.shape[1] < narrow.shape[1]:
        m, wide, narrow = m.mT, narrow, wide
    components, d = narrow.shape
    numbers = _CACHED_NUMBERS if narrow.device.type == "cpu" else _ACCELERATOR_NUMBERS
    step = max(1, numbers // max(components * d, 1))
    scores = []
    for block in m.split(step):
        products = product(wide, block.mT.flatten(0, 1).mT).view(components, block.shape[0], d)
        scores.append(products.mul_(narrow.unsqueeze(1)).sum(2))
    n, _, c = factors.u.shape
    return torch.cat(scores, dim=1).view(n, c, len(queries)).sum(1).mT


def _low_rank_sign_scores(queries: GradientFactors, signs: PackedSigns) -> Float[Tensor, "Q n"]:
    """Return the sum over components a, b of scale_ib (u_qa . p_ib)(v_qa . q_ib)."""
    n_queries, _, k = queries.u.shape
    c = signs.scales.shape[1]
    left, right = (x.movedim(0, 1).flatten(1) for x in (queries.u, queries.v))
    scores = [queries.u.new_empty(n_queries, 0)]
    components = min(_COMPONENTS, _BLOCK_NUMBERS // max(2 * n_queries * k, 1))
    for some in signs.split(max(1, components // c)):
        products = SignProducts(some.p.flatten(0, 1)).of(left).mul_(SignProducts(some.q.flatten(0, 1)).of(right))
        products.mul_(some.scales.reshape(-1, 1))
        scores.append(products.view(len(some), c, n_queries, k).sum((1, 3)).mT)
    return torch.cat(scores, dim=1)


def _low_rank_scores(queries: GradientFactors, factors: GradientFactors) -> Float[Tensor, "Q n"]:
    """Return sum over components a, b of (u_qa . u_ib)(v_qa . v_ib): c k (d1 + d2) products per pair, never c d1 d2."""
    n_queries, _, k = queries.u.shape
    c = factors.u.shape[2]
    numbers = _BLOCK_NUMBERS if factors.u.device.type == "cpu" else _ACCELERATOR_NUMBERS
    rows = max(1, numbers // (2 * n_queries * k * c))
    left, right = (x.movedim(0, 1).flatten(1) for x in (queries.u, queries.v))
    scores = []
    for u, v in zip(factors.u.split(rows), factors.v.split(rows), strict=True):
        products = product(u.mT.flatten(0, 1), left).mul_(product(v.mT.flatten(0, 1), right))
        scores.append(products.view(u.shape[0], c, n_queries, k).sum((1, 3)))
    return torch.cat(scores).mT


@dataclass(frozen=True)
class ScoreExtremes:
    """The running highest and lowest scores [Q, <= k] of each query, most extreme first, with example positions.

    Ties go to the earlier position, so that results do not depend on where the stream is cut.
    """

    k: int
    highest: Float[Tensor, "Q h"]
    highest_positions: Int[Tensor, "Q h"]
    lowest: Float[Tensor, "Q h"]
    lowest_positions: Int[Tensor, "Q h"]

    @property
    def sides(self) -> tuple[tuple[Float[Tensor, "Q h"], Int[Tensor, "Q h"]], ...]:
        """The highest scores with their positions, then the lowest."""
        return (self.highest, self.highest_positions), (self.lowest, self.lowest_positions)

    @classmethod
    def empty(cls, n_queries: int, k: int) -> "ScoreExtremes":
        """Return the extremes of no scores."""
        scores, positions = torch.empty(n_queries, 0), torch.empty(n_queries, 0, dtype=torch.long)
        return cls(k, scores, positions, scores, positions)

    def update(self, scores: Float[Tensor, "Q n"], first_position: int) -> "ScoreExtremes":
        """Return the extremes with the scores of the examples at positions first_position, first_position + 1, ..."""
        highest = _leading(self.highest, self.highest_positions, scores, first_position, self.k, highest=True)
        lowest = _leading(self.lowest, self.lowest_positions, scores, first_position, self.k, highest=False)
        return ScoreExtremes(self.k, *highest, *lowest)

    def joined(self, later: "ScoreExtremes", first_position: int) -> "ScoreExtremes":
        """Return the extremes of both, where the others' positions are counted from `first_position` on."""
        sides: list[Tensor] = []
        for (own, own_positions), (other, other_positions), highest in zip(
            self.sides, later.sides, (True, False), strict=True
        ):
            scores = torch.cat([own.to(other), other], dim=1)
            positions = torch.cat([own_positions.to(other.device), other_positions + first_position], dim=1)
            sides += _most_extreme(scores, positions, self.k, highest=highest)
        return ScoreExtremes(self.k, *sides)

    def on_cpu(self) -> "ScoreExtremes":
        """Return the same, where numpy can read it."""
        found = (self.highest, self.highest_positions, self.lowest, self.lowest_positions)
        return ScoreExtremes(self.k, *(one.cpu() for one in found))


def _leading(
    leading: Tensor, leading_positions: Tensor, scores: Tensor, first_position: int, k: int, *, highest: bool
) -> tuple[Tensor, Tensor]:
    """Return the k most extreme of the leading scores and some new ones, with their positions."""
    leading, leading_positions = leading.to(scores), leading_positions.to(scores.device)
    columns = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    if scores.device.type == "cpu" and scores.numel() and 0 < k < scores.shape[1]:
        # Most blocks have only a few scores that reach the last leading one: sorting those is enough. An accelerator sorts
        # all of them in less time than it takes to ask it how many these are.
        last = (leading if leading.shape[1] == k else scores.topk(k, dim=1, largest=highest).values)[:, -1:]
        # NaN compares as neither, and sorts as the highest.
        reaching = int((~(scores < last) if highest else ~(scores > last)).sum(dim=1).amax())
        if reaching < scores.shape[1]:
            scores, columns = scores.topk(reaching, dim=1, largest=highest)
    scores, positions = (
        torch.cat([leading, scores], dim=1),
        torch.cat([leading_positions, columns + first_position], dim=1),
    )
    return _most_extreme(scores, positions, k, highest=highest)


def _most_extreme(scores: Tensor, positions: Tensor, k: int, *, highest: bool) -> tuple[Tensor, Tensor]:
    """Return the k most extreme scores with their positions; of equal ones the earlier."""
    by_position = positions.argsort(dim=1)
    order = scores.gather(1, by_position).sort(dim=1, descending=highest, stable=True).indices[:, :k]
    order = by_position.gather(1, order)
    return scores.gather(1, order), positions.gather(1, order)


@dataclass(frozen=True)
class ScoreMoments:
    """Running sums of each query's scores, in FP64: what concentration and spread are computed from.

    They are where the scores are, so that no block waits for a copy.
    """

    count: int
    total: Float[Tensor, " Q"]
    squares: Float[Tensor, " Q"]
    magnitude: Float[Tensor, " Q"]
    positive: Float[Tensor, " Q"]

    @classmethod
    def empty(cls, n_queries: int) -> "ScoreMoments":
        """Return the moments of no scores."""
        zeros = torch.zeros(n_queries, dtype=torch.float64)
        return cls(0, zeros, zeros, zeros, zeros)

    def update(self, scores: Float[Tensor, "Q n"]) -> "ScoreMoments":
        """Return the moments with more scores."""
        # Metal has no FP64.
        s = (scores.cpu() if scores.device.type == "mps" else scores).double()
        before = (x.to(s.device) for x in self._sums)
        added = (s.sum(1), s.square().sum(1), s.abs().sum(1), s.clamp(min=0).sum(1))
        return ScoreMoments(self.count + s.shape[1], *(x + more for x, more in zip(before, added, strict=True)))

    def joined(self, other: "ScoreMoments") -> "ScoreMoments":
        """Return the moments of both."""
        pairs = zip(self._sums, other._sums, strict=True)
        return ScoreMoments(self.count + other.count, *(own.to(more.device) + more for own, more in pairs))

    @property
    def _sums(self) -> tuple[Tensor, ...]:
        return self.total, self.squares, self.magnitude, self.positive

    def on_cpu(self) -> "ScoreMoments":
        """Return the same, where numpy can read it."""
        return ScoreMoments(self.count, *(x.cpu() for x in self._sums))

    @property
    def mean(self) -> Float[Tensor, " Q"]:
        """Mean score of each query."""
        return self.total / max(self.count, 1)

    @property
    def std(self) -> Float[Tensor, " Q"]:
        """Standard deviation of each query's scores, over all examples."""
        return (self.squares / max(self.count, 1) - self.mean.square()).clamp(min=0).sqrt()


def share_of_positive(extremes: ScoreExtremes, moments: ScoreMoments, k: int) -> Float[Tensor, " Q"]:
    """Return the share of each query's positive influence that its k highest examples hold, from 0 to 1."""
    top = extremes.highest[:, :k].double().cpu().clamp(min=0).sum(1)
    return torch.where(moments.positive > 0, top / moments.positive.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
