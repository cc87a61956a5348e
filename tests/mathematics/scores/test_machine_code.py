"""Machine code where LLVM can make it, and the same scores where it cannot."""

import logging
import sys
from collections.abc import Iterator

import pytest
import torch

from lorif_assets.mathematics.factors.packed_signs import PackedSigns
from lorif_assets.mathematics.scores import machine_code, scoring
from lorif_assets.mathematics.scores.machine_code import can_compile, compiled
from lorif_assets.mathematics.scores.scoring import block_scores


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    can_compile.cache_clear()
    yield
    can_compile.cache_clear()


def signs() -> PackedSigns:
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randint(256, (300, 16, width), dtype=torch.uint8, generator=generator) for width in (3, 2))
    return PackedSigns(torch.rand(300, 16, generator=generator), p, q, 24, 16)


def test_this_machines_processor_is_known() -> None:
    assert can_compile()


@pytest.mark.parametrize("missing", ["library", "processor"])
def test_without_it_signs_are_scored_all_the_same_and_that_is_said_once(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scoring, "_FEWEST_COMPONENTS", 0)
    queries = {"layer": torch.randn(3, 24 * 16, generator=torch.Generator().manual_seed(1))}
    expected = block_scores(queries, {"layer": signs()})
    can_compile.cache_clear()
    if missing == "library":
        monkeypatch.setitem(sys.modules, "llvmlite", None)
    else:

        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("LLVM ERROR: unknown processor")

        monkeypatch.setattr(machine_code, "compiled", refuse)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(block_scores(queries, {"layer": signs()}), expected, rtol=1e-5, atol=1e-4)
    assert caplog.text.count("LLVM cannot be used") == 1


def test_instructions_that_llvm_cannot_read_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="expected"):
        compiled("this is no function", "nothing", addresses=0, numbers=0)
