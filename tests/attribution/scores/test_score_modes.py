"""Each way to score query sets is chosen once, from the recipe, and knows none of the others."""

import ast
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.scores import score_queries
from lorif_assets.attribution.scores.score_checkpoint import CheckpointScoring
from lorif_assets.attribution.scores.score_modes import (
    MergedScans,
    ReadQuerySet,
    RecalledScores,
    ScoredQuerySet,
    ScoredQuerySets,
    SharedScans,
)
from lorif_assets.attribution.stored.versions import recalled_version
from lorif_assets.errors import UnsoundQueryError
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

LOG = logging.getLogger("test")
SCORES = score_queries.QueryScores(pl.DataFrame(), pl.DataFrame(), "scan", 3, 0.0)


@dataclass(frozen=True)
class Outcome:
    """What a cascade reports."""

    scores: score_queries.QueryScores | None
    encoder_hash: str = "encoder"
    rate: float = 12.34

    @property
    def metadata(self) -> dict[str, Any]:
        return {"recall": "asked", "recall_fell_back": self.scores is None}


class Whole:
    """Scores every example, and remembers for which query sets."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def scores(self, asked: Mapping[str, ReadQuerySet]) -> ScoredQuerySets:
        self.asked += asked
        yield from ((name, ScoredQuerySet(SCORES, "whole", {"scans": 1})) for name in asked)


def scoring(project: TinyProject, cascade: Any = None, **recipe: Any) -> CheckpointScoring:
    changed = project.with_settings(recipe=recipe)
    stored = StoredCheckpoint.read(project.lake, CHECKPOINTS[0], changed.settings.recipe)
    checkpoint = stored.load(project.opened.checkpoints, DeviceGroup.of("cpu"))
    return CheckpointScoring(LOG, changed.settings, project.opened.checkpoints, checkpoint, [], cascade)


@pytest.mark.parametrize(
    ("recipe", "mode"),
    [
        ({}, SharedScans),
        ({"added_data": "merged"}, MergedScans),
        ({"recall": "influcoder"}, RecalledScores),
        ({"recall": "influcoder", "added_data": "merged"}, RecalledScores),
    ],
)
def test_the_recipe_chooses_the_mode(tiny_project: TinyProject, recipe: dict[str, Any], mode: type) -> None:
    assert type(scoring(tiny_project, **recipe)._mode()) is mode


def test_without_recall_no_encoder_is_asked(tiny_project: TinyProject) -> None:
    def refused(*_asked: Any) -> Any:
        raise AssertionError("asked")

    chosen = scoring(tiny_project, refused)
    ((name, scored),) = chosen.scores({QUERY_SET: chosen.read(QUERY_SET)})
    assert name == QUERY_SET
    assert isinstance(scored, ScoredQuerySet)
    assert scored.scores.examples_scanned == 36


@pytest.mark.parametrize("trusted", [True, False])
def test_every_example_is_scored_where_the_encoder_is_not_to_be_trusted(
    tiny_project: TinyProject, trusted: bool
) -> None:
    chosen, whole = scoring(tiny_project, recall="influcoder"), Whole()
    queries = chosen.read(QUERY_SET)
    asked: list[ReadQuerySet] = []

    def recall(_checkpoint: Any, query_set: ReadQuerySet) -> Outcome:
        asked.append(query_set)
        return Outcome(SCORES if trusted else None)

    mode = RecalledScores(LOG, chosen.checkpoint, recall, "search", whole)
    ((_, scored),) = mode.scores({QUERY_SET: queries})
    assert isinstance(scored, ScoredQuerySet)
    assert asked == [queries]
    assert whole.asked == ([] if trusted else [QUERY_SET])
    own = chosen.checkpoint.stored.score_version(queries.version)
    assert scored.version == recalled_version(own, "encoder", "search")
    added = {"examples_per_second": 12.3} if trusted else {"scans": 1}
    assert scored.metadata == {"recall": "asked", "recall_fell_back": not trusted} | added


def test_a_set_with_an_unsound_query_is_yielded_with_its_error_and_the_others_go_on(tiny_project: TinyProject) -> None:
    chosen = scoring(tiny_project, recall="influcoder")
    good, bad = chosen.read(QUERY_SET), chosen.read(QUERY_SET)

    def recall(_checkpoint: Any, query_set: ReadQuerySet) -> Outcome:
        if query_set is bad:
            raise UnsoundQueryError("not finite", ["q0"])
        return Outcome(SCORES)

    mode = RecalledScores(LOG, chosen.checkpoint, recall, "search", Whole())
    found = dict(mode.scores({"bad": bad, "good": good}))
    assert isinstance(found["bad"], UnsoundQueryError)
    assert isinstance(found["good"], ScoredQuerySet)


def test_the_plain_scan_knows_no_mode() -> None:
    tree = ast.parse(Path(score_queries.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modes = {
        f"lorif_assets.attribution.scores.score_{mode}" for mode in ("averaging", "merging", "modes", "checkpoint")
    }
    assert all(map(find_spec, modes))
    assert not imported & modes
