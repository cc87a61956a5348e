"""Figures of the losses after removals, from a lake with invented losses."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from lorif_assets.attribution.stored.versions import removal_figures_version
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores
from lorif_assets.evaluation.removal_figures import removal_figures
from lorif_assets.evaluation.retraining.ranked_data import planned_removals
from lorif_assets.lake.evaluation_tables import REMOVAL_LOSSES
from lorif_assets.lake.lake import Lake

N = 12
QUERIES = ("a", "b", "c")


def planned(**fields):
    chosen = {"removal_methods": ("lorif", "bm25"), "removal_shares": (0.25, 0.5), "removal_seeds": 2, **fields}
    return SimpleNamespace(evaluation=EvaluationSettings(bootstrap=100, **chosen))


def stored(tmp_path, settings, loss):
    """A lake with a loss for each planned removal and query; query c has no target tokens."""
    lake = Lake(str(tmp_path / "lake"))
    for removal in planned_removals(settings.evaluation, N):
        rows = pl.DataFrame(
            {
                "checkpoint": "step",
                "query_set": "set",
                "removal": removal.name,
                "method": removal.method,
                "n_removed": removal.count,
                "seed": removal.seed,
                "query_id": list(QUERIES),
                "loss": pl.Series([loss(removal, query) for query in QUERIES], dtype=pl.Float32),
                "n_target_tokens": pl.Series([2, 4, 0], dtype=pl.Int32),
                "seconds": 1.0,
                "computed_from": "v",
                "first_removed": removal.first,
            }
        )
        partition = {"checkpoint": "step", "query_set": "set", "removal": removal.name}
        lake.replace(REMOVAL_LOSSES, partition, rows.to_arrow())
    return lake


def scores(n=N):
    """LoRIF ranks the examples as they come, BM25 turned around; every query says the same."""
    falling = np.tile(np.arange(n, 0, -1, dtype=np.float32), (len(QUERIES), 1))
    return EvaluatedScores(list(QUERIES), [f"e{at:02d}" for at in range(n)], {"lorif": falling, "bm25": -falling}, "v")


def values(figures, metric, statistic="query"):
    return {(f.method, f.query_id): f.value for f in figures if (f.metric, f.statistic) == (metric, statistic)}


def rising(removal, query):
    """On everything 10 and 11 nats by seed; without LoRIF's first quarter 1 nat more for a and 2 for b."""
    more = {"a": 1.0, "b": 2.0, "c": 9.0}[query] if (removal.method, removal.count) == ("lorif", 3) else 0.0
    return 10.0 + removal.seed + more


def test_the_loss_difference_is_of_the_smallest_share_over_seeds_and_by_token(tmp_path):
    settings = planned()
    found = removal_figures(settings, stored(tmp_path, settings, rising), "step", "set", scores(), N)
    assert values(found, "query_loss_difference") == {
        ("lorif", "a"): 1.0,
        ("lorif", "b"): 2.0,
        ("bm25", "a"): 0.0,
        ("bm25", "b"): 0.0,
    }
    assert values(found, "query_loss_difference_per_token")["lorif", "a"] == 0.5
    assert values(found, "query_loss_difference_per_token")["lorif", "b"] == 0.5
    assert values(found, "query_loss_difference", "difference") == {("bm25", None): 1.5}
    assert values(found, "removed_share", "mean") == {(None, None): 0.25}


def test_examples_without_scores_count_where_removals_were_planned_for_them(tmp_path):
    settings = planned()
    found = removal_figures(settings, stored(tmp_path, settings, rising), "step", "set", scores(N - 2), N)
    assert values(found, "query_loss_difference")["lorif", "b"] == 2.0


def test_sorted_subsets_ask_whether_the_loss_falls_in_the_order_of_a_methods_own_ranking(tmp_path):
    settings = planned(sorted_subsets=4, removal_shares=())

    def loss(removal, query):
        # The earlier the run that is left out, the higher the loss; for b turned around.
        return 20.0 - removal.first if query == "a" else removal.first

    found = removal_figures(settings, stored(tmp_path, settings, loss), "step", "set", scores(), N)
    assert values(found, "sorted_lds") == {
        (method, query): pytest.approx(1.0 if query == "a" else -1.0) for method in ("lorif", "bm25") for query in "ab"
    }
    assert values(found, "query_loss_difference") == {}


def test_runs_are_planned_after_the_shares_and_a_run_as_long_as_a_share_is_trained_once():
    names = [removal.name for removal in planned_removals(planned(sorted_subsets=4, removal_seeds=1).evaluation, N)]
    assert names[0] == "none-0-seed-0"
    of_lorif = [name for name in names if name.startswith("lorif")]
    assert of_lorif == [
        "lorif-3-seed-0",
        "lorif-6-seed-0",
        "lorif-3-from-3-seed-0",
        "lorif-3-from-6-seed-0",
        "lorif-3-from-9-seed-0",
    ]


def test_two_sorted_subsets_are_too_few():
    with pytest.raises(ValueError, match="`sorted_subsets` is 2; set 3 or more, or 0 for none"):
        EvaluationSettings(sorted_subsets=2)


def test_figures_are_out_of_date_where_what_they_are_of_changed():
    versions = {
        removal_figures_version(planned(**fields).evaluation, losses)
        for fields, losses in (
            ({}, {"r": "1"}),
            ({}, {"r": "2"}),
            ({"removal_shares": (0.5,)}, {"r": "1"}),
            ({"sorted_subsets": 3}, {"r": "1"}),
        )
    }
    assert len(versions) == 4
