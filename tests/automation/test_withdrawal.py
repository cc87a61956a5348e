"""A withdrawn shard leaves every table, and scores renew without it and without computing a factor."""

import polars as pl

from lorif_assets.automation.withdrawal import removed_shards, withdraw
from lorif_assets.freshness.discovery import discover
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SCORES, SVD_PRECONDITIONERS
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject


def gone(project: TinyProject) -> list[str]:
    return removed_shards(project.lake, discover(project.opened))


def test_a_withdrawn_shard_leaves_tables_and_partitions_and_only_scores_renew(private_project: TinyProject) -> None:
    (private_project.root / "data/00001.jsonl").unlink()
    assert gone(private_project) == [SHARDS[1]]
    withdraw(private_project.lake, private_project.instance, gone(private_project))
    assert gone(private_project) == []
    for schema in (TRAINING_EXAMPLES, GRADIENT_FACTORS):
        assert set(private_project.table(schema)["shard"]) == {SHARDS[0], SHARDS[2]}
    assert SHARDS[1] not in private_project.instance.get_dynamic_partitions("shards")

    updated = private_project.update()
    assert updated.keys() == {"svd_preconditioners", "query_scores", "attribution_report", "checkpoint_comparison"}
    rows = private_project.table(SVD_PRECONDITIONERS)
    remaining = private_project.table(TRAINING_EXAMPLES).height
    assert rows["n_examples"].to_list() == [remaining] * rows.height
    assert private_project.table(QUERY_SCORES).filter(pl.col("shard") == SHARDS[1]).is_empty()


def test_what_a_crash_left_undone_is_found_again(private_project: TinyProject) -> None:
    (private_project.root / "data/00001.jsonl").unlink()
    empty = TRAINING_EXAMPLES.columns.empty_table()
    private_project.lake.replace(TRAINING_EXAMPLES, {"shard": SHARDS[1]}, empty)
    assert gone(private_project) == [SHARDS[1]]
    withdraw(private_project.lake, private_project.instance, gone(private_project))
    assert private_project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINTS[0], shard=SHARDS[1]).is_empty()
