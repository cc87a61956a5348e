"""Scores that are older than the training data or the queries beside them."""

import polars as pl
import pytest

from lorif_assets.influences.out_of_date import changed_since
from lorif_assets.influences.trust import Standing, trust
from lorif_assets.lake.attribution_tables import QUERY_SUMMARIES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS

LAST = CHECKPOINTS[-1]


@pytest.fixture
def said(private_project):
    """What is said of the stored scores, and of answers from the stored factors."""

    def of(query_set=QUERY_SET):
        return changed_since(private_project.lake, private_project.settings.recipe, LAST, query_set)

    return of


def rewrite(project, schema, partition, **columns):
    rows = project.table(schema, **partition).with_columns(**{name: pl.lit(value) for name, value in columns.items()})
    project.lake.replace(schema, partition, rows.to_arrow())


def read_otherwise(project):
    """As when a shard's source was edited and read again, and nothing was computed from it yet."""
    rewrite(project, TRAINING_EXAMPLES, {"shard": SHARDS[0]}, shard_hash="another", text="other words")


def test_of_scores_that_are_up_to_date_nothing_is_said(said):
    assert (said(), said("")) == (None, None)


def test_training_data_that_were_read_again_make_stored_scores_and_new_answers_old(private_project, said):
    read_otherwise(private_project)
    assert f"changed since the scores at {LAST} were computed" in said()
    assert said("") == said()


def test_a_shard_that_was_withdrawn_makes_scores_old(private_project, said):
    private_project.lake.remove(TRAINING_EXAMPLES, shard=[SHARDS[1]])
    assert said() is not None


def test_other_queries_make_their_stored_scores_old_and_no_others(private_project, said):
    rewrite(private_project, QUERY_EXAMPLES, {"query_set": QUERY_SET}, query_set_hash="another")
    assert said() is not None
    assert said("") is None


def test_of_scores_whose_averaging_was_not_stored_the_data_tell(private_project, said):
    none = pl.lit(None, pl.String)
    rows = private_project.table(QUERY_SUMMARIES, checkpoint=LAST, query_set=QUERY_SET).with_columns(averaged=none)
    private_project.lake.replace(QUERY_SUMMARIES, {"checkpoint": LAST, "query_set": QUERY_SET}, rows.to_arrow())
    assert said() is None
    read_otherwise(private_project)
    assert said() is not None


def test_the_verdict_on_old_scores_asks_for_care_and_says_what_to_run(private_project):
    read_otherwise(private_project)
    found = trust(private_project.lake, private_project.settings.recipe, LAST, QUERY_SET, [])
    (finding,) = [one for one in found.findings if one.what == "up to date"]
    assert (finding.standing, finding.remedy) == (Standing.CAUTION, f"run `lorif materialize --checkpoint {LAST}`")
