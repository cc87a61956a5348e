"""Scores of packed signs in machine code: those of the rebuilt gradients, to FP32's precision, wherever the work is cut."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode, scored_form
from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.factors.packed_signs import PackedSigns, sums_of_eight, unpacked_signs
from lorif_assets.mathematics.scores import compiled_lookups, compiled_rebuilding, sign_scores
from lorif_assets.mathematics.scores.machine_code import compiled


def stored_signs(n: int, d1: int, d2: int, c: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n + d1 + d2 + c)
    u, v = (torch.randn(n, d, min(c, d1, d2), generator=generator) for d in (d1, d2))
    return encode(GradientFactors(u, v), FactorCodec.SIGN)


def packed(data: torch.Tensor, d1: int, d2: int) -> PackedSigns:
    found = scored_form(data, FactorCodec.SIGN, d1, d2)
    assert isinstance(found, PackedSigns)
    return found


def queries_of(n: int, d1: int, d2: int) -> torch.Tensor:
    return torch.randn(n, d1 * d2, generator=torch.Generator().manual_seed(n))


@pytest.fixture(params=["looked up", "rebuilt"])
def way(request, monkeypatch):
    """Scores by looked-up sums, or by rebuilt gradients, however many queries and components there are."""
    monkeypatch.setattr(sign_scores, "rebuilding_pays", lambda _queries, _components: request.param == "rebuilt")
    return request.param


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(0, 9),
    d1=st.integers(1, 150),
    d2=st.integers(1, 150),
    c=st.integers(1, 9),
    n_queries=st.integers(0, 12),
)
def test_scores_differ_from_exact_ones_by_a_millionth_of_their_spread(way, n, d1, d2, c, n_queries):
    data, queries = stored_signs(n, d1, d2, c), queries_of(n_queries, d1, d2)
    dense = decode(data, FactorCodec.SIGN, d1, d2).dense().double()
    found = sign_scores.sign_scores(queries, packed(data, d1, d2))
    spread = queries.double().square().sum(1, keepdim=True).sqrt() * dense.square().mean(1).sqrt()
    assert found.shape == (n_queries, n)
    assert bool(((found - queries.double() @ dense.mT).abs() <= 1e-6 * (1 + c) * spread).all())


@pytest.mark.parametrize("columns", [8, 16, 32, 64])
@pytest.mark.parametrize("n_bytes", range(1, compiled_lookups.MOST_BYTES + 1))
def test_a_tile_of_looked_up_sums_is_added_to_the_scores_that_are_there(n_bytes, columns):
    generator = torch.Generator().manual_seed(columns + n_bytes)
    p, q = (
        torch.randint(0, 256, (5, 3, width), dtype=torch.uint8, generator=generator)
        for width in (n_bytes, columns // 8)
    )
    scales, matrix = torch.rand(5, 3, generator=generator), torch.randn(8 * n_bytes, columns, generator=generator)
    scores = torch.arange(5.0)
    table = sums_of_eight(matrix.unflatten(0, (n_bytes, 8)))
    addresses = [one.data_ptr() for one in (p, q, scales, table, scores)]
    strides = [*p.stride()[:2], *q.stride()[:2]]
    compiled_lookups.kernel(n_bytes, columns)(*addresses, 5, 3, *strides)
    signs_p, signs_q = unpacked_signs(p, 8 * n_bytes).double(), unpacked_signs(q, columns).double()
    expected = torch.einsum("nc,nci,ij,ncj->n", scales.double(), signs_p, matrix.double(), signs_q) + torch.arange(5)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize(
    ("columns", "tables", "n_queries"), [(8, 1, 1), (16, 2, 3), (32, 3, 4), (64, 4, 10), (64, 9, 2)]
)
def test_a_tile_of_rebuilt_gradients_is_added_to_the_scores_that_are_there(columns, tables, n_queries, lanes):
    generator = torch.Generator().manual_seed(columns + tables + n_queries)
    # A component less than the tables hold, an odd number of examples, and scores that lie apart.
    n, c, n_bytes = 5, 4 * tables - 1, 3
    records = torch.randint(0, 256, (n, c, n_bytes + columns // 8), dtype=torch.uint8, generator=generator)
    p, q = records[..., :n_bytes], records[..., n_bytes:]
    scales, matrices = (
        torch.randn(*shape, generator=generator) for shape in ((n, c), (n_queries, 8 * n_bytes, columns))
    )
    scores = torch.ones(n_queries, n + 2)
    code = compiled_rebuilding._instructions(columns, tables, n_queries, min(lanes, columns))
    kernel = compiled(code, "rebuild", addresses=5, numbers=8)
    row_by_row = matrices.movedim(0, 1).contiguous()
    addresses = [one.data_ptr() for one in (p, q, scales, row_by_row, scores)]
    kernel(*addresses, n, c, n_bytes, *p.stride()[:2], *q.stride()[:2], scores.stride(0))
    signs_p, signs_q = unpacked_signs(p, 8 * n_bytes).double(), unpacked_signs(q, columns).double()
    expected = torch.ones(n_queries, n + 2, dtype=torch.float64)
    expected[:, :n] += torch.einsum("nc,nci,zij,ncj->zn", scales.double(), signs_p, matrices.double(), signs_q)
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-4 * tables)


@pytest.mark.parametrize("n_queries", [1, 4, 5, 11])
def test_processors_with_fewer_registers_score_alike(way, monkeypatch, n_queries):
    for module in (sign_scores, compiled_rebuilding):
        monkeypatch.setattr(module, "has_wide_registers", lambda: False)
    compiled_rebuilding.kernel.cache_clear()
    data, queries = stored_signs(7, 200, 72, 4), queries_of(n_queries, 200, 72)
    exact = queries.double() @ decode(data, FactorCodec.SIGN, 200, 72).dense().double().mT
    found = sign_scores.sign_scores(queries, packed(data, 200, 72))
    compiled_rebuilding.kernel.cache_clear()
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-3)


@pytest.fixture
def threads(monkeypatch):
    """Sets how many threads score, however few examples there are."""
    monkeypatch.setattr(sign_scores, "_COMPONENTS_PER_THREAD", 1)
    return lambda n: monkeypatch.setattr(torch, "get_num_threads", lambda: n)


def test_scores_do_not_depend_on_threads_or_on_the_examples_beside_them(way, threads):
    data, queries = stored_signs(11, 80, 40, 3), queries_of(3, 80, 40)
    threads(1)
    alone = sign_scores.sign_scores(queries, packed(data, 80, 40))
    for n in (2, 4, 50):
        threads(n)
        assert torch.equal(sign_scores.sign_scores(queries, packed(data, 80, 40)), alone)
    parts = [
        sign_scores.sign_scores(queries, packed(data[first:end], 80, 40)) for first, end in pairwise([0, 1, 6, 11])
    ]
    assert torch.equal(torch.cat(parts, dim=1), alone)


def test_threads_stay_from_one_block_to_the_next_and_a_fork_starts_its_own(way, threads, monkeypatch):
    started = []

    class Threads(ThreadPoolExecutor):
        def __init__(self, n: int, name: str) -> None:
            started.append((os.getpid(), n))
            super().__init__(n, name)

    monkeypatch.setattr(sign_scores, "ThreadPoolExecutor", Threads)
    data, queries = stored_signs(11, 80, 40, 3), queries_of(3, 80, 40)
    threads(2)
    for process in (-1, -1, -2):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        sign_scores.sign_scores(queries, packed(data, 80, 40))
    sign_scores._threads.cache_clear()
    assert started == [(-1, 2), (-2, 2)]


def test_signs_score_alike_where_they_lie_in_memory_as_stored_and_where_they_were_copied(way):
    queries, signs = queries_of(2, 24, 40), packed(stored_signs(6, 24, 40, 3), 24, 40)
    backwards = torch.flip(signs.p, [2]).flip(2)
    copies = PackedSigns(signs.scales.mT.contiguous().mT, backwards, signs.q.mT.contiguous().mT, 24, 40)
    assert torch.equal(sign_scores.sign_scores(queries, copies), sign_scores.sign_scores(queries, signs))


def test_rebuilding_pays_for_several_queries_and_components_alone():
    assert not any(sign_scores.rebuilding_pays(queries, components) for queries in (1, 100) for components in (1, 4))
    assert not sign_scores.rebuilding_pays(1, 64)
    assert not sign_scores.rebuilding_pays(10, 1_000)
    assert sign_scores.rebuilding_pays(10, 8)
    assert sign_scores.rebuilding_pays(10, 16)
