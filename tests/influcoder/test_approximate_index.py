"""The approximate index: it finds nearly what exact search finds, at either end, and repeats."""

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from lorif_assets.errors import SettingsError
from lorif_assets.influcoder.approximate_index import ApproximateIndex
from lorif_assets.influcoder.extra import require_faiss

N, WIDTH, CLUSTERS = 6_000, 32, 40


def _clustered(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLUSTERS, WIDTH, generator=torch.Generator().manual_seed(0))
    chosen = centres[torch.randint(CLUSTERS, (n,), generator=generator)]
    return functional.normalize(chosen + 0.4 * torch.randn(n, WIDTH, generator=generator), dim=1)


VECTORS, QUERIES = _clustered(N, 1), _clustered(20, 2)


def _blocks(size: int = 700) -> Iterator[torch.Tensor]:
    yield from VECTORS.split(size)


@pytest.fixture(scope="module")
def index() -> ApproximateIndex:
    return ApproximateIndex.build(_blocks, N, seed=0)


@pytest.mark.parametrize("sign", [1, -1], ids=["nearest", "farthest"])
def test_most_of_the_exact_neighbours_are_found_in_a_part_of_the_cells(index: ApproximateIndex, sign: int) -> None:
    exact = (sign * QUERIES @ VECTORS.mT).topk(50, dim=1).indices
    found = index.search(sign * QUERIES, 50, probed_share=0.3)
    shares = [len({*left} & {*right}) / 50 for left, right in zip(found.tolist(), exact.tolist(), strict=True)]
    assert sum(shares) / len(shares) > 0.9
    assert index.index.nlist > 20


def test_how_the_vectors_are_cut_into_blocks_changes_nothing(index: ApproximateIndex) -> None:
    other = ApproximateIndex.build(lambda: _blocks(1_234), N, seed=0)
    assert other.to_bytes() == index.to_bytes()


def test_it_is_the_same_after_it_was_stored(index: ApproximateIndex) -> None:
    again = ApproximateIndex.from_bytes(index.to_bytes())
    assert torch.equal(again.search(QUERIES, 10, 0.1), index.search(QUERIES, 10, 0.1))


def test_as_many_are_found_as_asked_for_though_the_probed_cells_hold_fewer(index: ApproximateIndex) -> None:
    found = index.search(QUERIES, N, probed_share=0.01)
    assert all(sorted(row) == list(range(N)) for row in found.tolist())
    assert index.search(QUERIES, 2 * N, probed_share=0.01).shape == (len(QUERIES), N)


def test_without_faiss_the_error_names_extra_and_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    require_faiss()
    monkeypatch.setattr("lorif_assets.influcoder.extra.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"exact_up_to.*pip install 'lorif-assets\[influcoder\]'"):
        require_faiss()
