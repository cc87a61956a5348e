"""What the page shows of the stored tables."""

import json

import numpy as np
import polars as pl
import pytest

from lorif_assets.config.recipe import Recipe
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores
from lorif_assets.evaluation.retraining.ground_truth import GroundTruth
from lorif_assets.lake.evaluation_tables import SELECTION_LOSSES
from lorif_assets.mathematics.evaluation.intervals import Estimate
from lorif_assets.pages.evaluation.content import Interval, Measured
from lorif_assets.pages.evaluation.measurements import (
    ground_truth_figures,
    measured,
    recipe_trials,
    removal_measures,
    removal_rises,
    selected,
)
from lorif_assets.pages.evaluation.pictured_scores import retrieval, scatters

_FIGURE_COLUMNS = ["metric", "statistic", "method", "query_id", "value", "low", "high"]


def figures(*rows: tuple[object, ...]) -> pl.DataFrame:
    numbers = {"value", "low", "high"}
    schema = {name: pl.Float64 if name in numbers else pl.String for name in _FIGURE_COLUMNS}
    return pl.DataFrame(rows, schema=schema, orient="row")


def queries(**sources: list[str]) -> pl.DataFrame:
    rows = [
        {
            "query_id": name,
            "format": "prompt_completion",
            "prompt": f"prompt {name}",
            "completion": f"said {name}",
            "metadata": json.dumps({"sources": found}),
        }
        for name, found in sources.items()
    ]
    return pl.DataFrame(rows)


def test_a_metric_has_means_paired_differences_and_single_queries_and_knows_its_reference() -> None:
    found = measured(
        figures(
            ("lds", "mean", "lorif", None, 0.3, 0.2, 0.4),
            ("lds", "mean", "bm25", None, 0.5, 0.4, 0.6),
            ("lds", "difference", "bm25", None, -0.2, -0.3, -0.1),
            ("lds", "query", "lorif", "b", 0.4, None, None),
            ("lds", "query", "lorif", "a", 0.2, None, None),
            ("other", "mean", "lorif", None, 9.0, None, None),
            ("subsets", "mean", None, None, 50.0, None, None),
        ),
        "lds",
    )
    assert found is not None
    assert (found.methods, found.reference) == (["bm25", "lorif"], "lorif")
    assert found.means["lorif"] == Interval(0.3, 0.2, 0.4)
    assert found.per_query["lorif"] == [0.2, 0.4]
    assert (found.compared(-1), found.compared(0), found.compared(1)) == (["bm25"], [], [])
    spread = found.spread("lorif")
    assert spread is not None
    assert (spread.lowest, spread.median, spread.highest, spread.above_zero) == (0.2, pytest.approx(0.3), 0.4, 1.0)


def test_a_metric_that_no_method_has_is_absent() -> None:
    assert measured(figures(("lds", "mean", "lorif", None, 0.3, 0.2, 0.4)), "tail_patch") is None


def test_the_ground_truth_of_one_seed_has_no_ceiling() -> None:
    rows = [("subsets", "mean", None, None, 50.0, None, None), ("models", "mean", None, None, 50.0, None, None)]
    alone = ground_truth_figures(figures(*rows))
    assert alone is not None
    assert (alone.subsets, alone.models, alone.reachable_lds) == (50, 50, None)
    more = [("lds_within_reach", "mean", None, None, 0.7, None, None)]
    found = ground_truth_figures(figures(*rows, *more))
    assert found is not None
    assert found.reachable_lds == 0.7
    assert ground_truth_figures(figures()) is None


def removed(*rows: tuple[str, int, int, float, int]) -> pl.DataFrame:
    columns = ["method", "n_removed", "seed", "loss", "n_target_tokens"]
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(first_removed=pl.lit(None))


def test_a_rise_is_that_of_the_mean_loss_per_token_over_retraining_with_the_same_seed() -> None:
    found = removal_rises(
        removed(
            ("none", 0, 0, 2.0, 2),
            ("none", 0, 0, 6.0, 2),
            ("none", 0, 1, 4.0, 1),
            ("lorif", 10, 0, 6.0, 2),
            ("lorif", 10, 0, 8.0, 2),
            ("lorif", 10, 1, 4.5, 1),
            # No tokens to tell a loss of.
            ("lorif", 10, 1, 0.0, 0),
        )
    )
    # Seed 0: (1 + 3) / 2 = 2 before, (3 + 4) / 2 = 3.5 after.
    assert [(one.method, one.n_removed, one.rises, one.mean) for one in found] == [("lorif", 10, (1.5, 0.5), 1.0)]


def test_runs_of_later_ranks_are_no_rise_of_the_first() -> None:
    rows = removed(("none", 0, 0, 2.0, 2), ("lorif", 10, 0, 6.0, 2), ("lorif", 10, 0, 8.0, 2))
    first = pl.Series("first_removed", [0, 0, 10])
    assert [one.rises for one in removal_rises(rows.with_columns(first))] == [(2.0,)]


def test_what_was_measured_query_by_query_names_the_share_that_was_removed() -> None:
    found = removal_measures(
        figures(
            ("removed_share", "mean", None, None, 0.01, None, None),
            ("query_loss_difference", "mean", "lorif", None, 0.3, 0.2, 0.4),
            ("query_loss_difference", "mean", "bm25", None, 0.5, 0.4, 0.6),
        )
    )
    assert found is not None
    assert (found.share, list(found.metrics), found.methods) == (0.01, ["query_loss_difference"], ["bm25", "lorif"])
    assert removal_measures(figures()) is None


def test_without_retraining_on_everything_there_is_nothing_to_compare_a_removal_with() -> None:
    assert removal_rises(removed(("lorif", 10, 0, 6.0, 2))) == ()


def test_selections_are_compared_query_by_query_over_the_mean_of_their_seeds() -> None:
    losses = {
        # method, seed -> summed losses of two queries, of 2 and 4 tokens
        ("lorif", 0): (2.0, 4.0),
        ("lorif", 1): (4.0, 8.0),
        ("random", 0): (5.0, 14.0),
        ("random", 1): (5.0, 10.0),
    }
    rows = pl.DataFrame(
        [
            {"n_selected": 30, "method": method, "seed": seed, "query_id": f"q{at}", "loss": loss}
            | {"n_target_tokens": (2, 4)[at]}
            for (method, seed), found in losses.items()
            for at, loss in enumerate(found)
        ]
    )
    (found,) = selected(rows, 200)
    assert (found.n_selected, found.n_seeds, list(found.losses)) == (30, 2, ["lorif", "random"])
    # LoRIF: 1.5 and 1.5 per token; random: 2.5 and 3.
    assert found.losses["lorif"] == Estimate(1.5, 1.5, 1.5)
    assert found.losses["random"] == Estimate(2.75, 2.5, 3.0)
    assert found.lower_by == {"random": Estimate(1.25, 1.0, 1.5)}


def test_without_selections_there_is_nothing_to_tell() -> None:
    assert selected(pl.DataFrame(SELECTION_LOSSES.columns.empty_table()), 200) == ()


def test_a_trial_without_ground_truth_has_its_agreement_and_no_lds() -> None:
    row = {
        "curvature": "svd",
        "recipe": Recipe(projection_factor=4).model_dump_json(),
        "rank": None,
        "r": 64,
        "damping": 1.0,
        "curvature_form": "truncated",
        "factor_dtype": "bf16",
        "bytes_per_example": 512.0,
        "n_examples": 100,
        "lds": None,
        "lds_low": None,
        "lds_high": None,
        "agreement": 0.9,
        "seconds": 1.0,
    }
    known = {**row, "bytes_per_example": 256.0, "lds": 0.2, "lds_low": 0.1, "lds_high": 0.3}
    smaller, larger = recipe_trials(pl.DataFrame([row, known]))
    assert (smaller.lds, larger.lds, larger.agreement) == (Interval(0.2, 0.1, 0.3), None, 0.9)


@pytest.fixture
def scored() -> EvaluatedScores:
    """Three queries and four examples: q0's scores are the effects, q1's are noise, q2's are the effects turned around."""
    effects = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.5], [-3.0, -2.0, -1.0, 0.0]], dtype=np.float32)
    return EvaluatedScores(["q0", "q1", "q2"], ["a", "b", "c", "d"], {"lorif": effects, "bm25": -effects}, "v")


def test_the_scatters_show_the_best_the_median_and_the_worst_query_of_the_reference(scored: EvaluatedScores) -> None:
    members = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 1, 0, 1]], dtype=np.bool_)
    truth = GroundTruth(
        [f"s{number}" for number in range(5)],
        members,
        np.stack([-(members @ np.array([3.0, 2.0, 1.0, 0.0]))] * 3),
        None,
        5,
        "v",
    )
    lds = Measured({"lorif": Interval(0.1), "bm25": Interval(0.2)}, {"bm25": Interval(-0.1)}, {})
    found = scatters(lds, scored, truth, queries(q0=[], q1=[], q2=[]))
    assert [(one.method, one.place, one.query_id) for one in found] == [
        ("lorif", "best", "q0"),
        ("lorif", "median", "q1"),
        ("lorif", "worst", "q2"),
        ("bm25", "best", "q0"),
        ("bm25", "median", "q1"),
        ("bm25", "worst", "q2"),
    ]
    best = found[0]
    assert best.lds == pytest.approx(1)
    assert best.predicted == pytest.approx(best.actual)
    assert sum(best.actual) == pytest.approx(0)
    assert (best.prompt, best.completion) == ("prompt q0", "said q0")


def test_retrieval_has_curves_of_the_queries_that_name_sources(scored: EvaluatedScores) -> None:
    found = retrieval(figures(), scored, {"q0": np.array([True, False, False, False])})
    assert found is not None
    assert (found.n_queries, found.n_examples, found.metrics) == (1, 4, {})
    # The source leads under LoRIF, and comes last where the scores are turned around.
    assert found.curves["lorif"][0] == 1
    assert found.curves["bm25"][0] < 0.01


def test_retrieval_is_absent_where_no_query_names_a_source(scored: EvaluatedScores) -> None:
    assert retrieval(figures(), scored, {}) is None
    assert retrieval(figures(), None, {}) is None
