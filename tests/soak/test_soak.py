"""Updates, one after another, leave a project as large as it was: a few of `make soak`."""

from pathlib import Path

import pytest

from tests.soak.run import Sample, growth, soak


@pytest.mark.slow
def test_a_project_that_is_updated_again_and_again_stays_as_it_is(tmp_path: Path) -> None:
    (root := tmp_path / "project").mkdir()
    samples, wrong = soak(root, updates=6, seed=2, between=1)
    assert not wrong
    assert growth(samples)["lake_mib"] < 1.5
    # Each run that is left made the newest materialization of a partition, and no partition was forgotten.
    assert len({sample.partitions for sample in samples}) == 1
    assert all(sample.runs <= sample.partitions for sample in samples)


def test_growth_is_that_of_the_last_third_over_the_first() -> None:
    samples = [Sample(k, 100.0 + k, 10, 5.0, k, 2 * k, 20 * k, 30) for k in range(10)]
    assert growth(samples)["open_files"] == 1
    assert growth(samples)["runs"] == 4
