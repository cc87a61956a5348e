"""Updates that are killed, run out of space or lose the clock leave nothing wrong behind: a few faults of `make faults`."""

from pathlib import Path

import pytest

from tests.faults.soundness import unreadable
from tests.faults.survive import survive


@pytest.mark.slow
def test_what_is_stored_stays_sound(tmp_path: Path) -> None:
    root = tmp_path / "project"
    tried, wrong = survive(root, faults=12, seed=1, between=6)
    assert sum(tried.values()) == 12
    assert not wrong
    # It is seen where it is not sound.
    next((root / "lake/training_examples").rglob("*.parquet")).write_bytes(b"damaged")
    assert any("training_examples" in found for found in unreadable(root))
