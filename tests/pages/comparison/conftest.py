"""Two queries and thirty examples, scored at three checkpoints."""

import shutil
from pathlib import Path

import pytest

from tests.pages.comparison.stored_scores import StoredScores

EXAMPLES = [f"e{number:02d}" for number in range(30)]


@pytest.fixture(scope="session")
def recorded_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recorded") / "lake"
    store = StoredScores.at(root)
    store.examples(EXAMPLES)
    store.queries("q0", "q1")
    for step in (20, 100, 3):
        store.checkpoint(f"step-{step}", step)
    return root


@pytest.fixture(scope="session")
def scored_lake(recorded_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scored") / "lake"
    shutil.copytree(recorded_lake, root)
    store = StoredScores.at(root)
    for place, step in enumerate((3, 20, 100)):
        moved = [*EXAMPLES[place:], *EXAMPLES[:place]]
        losses = {"q0": 3.0 - place, "q1": 5.0 - place}
        store.scores(f"step-{step}", {"q0": moved, "q1": EXAMPLES}, losses=losses, stored=15)
    return root


@pytest.fixture
def store(recorded_lake: Path, tmp_path: Path) -> StoredScores:
    """A lake with examples, queries and three recorded checkpoints, and no scores."""
    shutil.copytree(recorded_lake, tmp_path / "recorded")
    return StoredScores.at(tmp_path / "recorded")


@pytest.fixture
def scored(scored_lake: Path, tmp_path: Path) -> StoredScores:
    """The three checkpoints scored: the ranking of q0 moves by one example at a time, the losses fall."""
    shutil.copytree(scored_lake, tmp_path / "scored")
    return StoredScores.at(tmp_path / "scored")
