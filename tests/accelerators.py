"""A CPU that is taken for an accelerator, for tests of the ways that computations take there."""

import pytest


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let computations on a CPU take the ways of an accelerator."""
    monkeypatch.setattr("lorif_assets.mathematics.accelerators.is_accelerator", lambda device: True)
