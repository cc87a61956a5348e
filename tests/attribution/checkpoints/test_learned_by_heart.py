"""Examples that a checkpoint has learned by heart, found by their stored losses, and where it is said."""

from typing import Any

import dagster as dg
import polars as pl
import pytest
from rich.console import Console

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.checkpoints.learned_by_heart import LearnedByHeart, learned_by_heart
from lorif_assets.checks.factors import examples_are_not_learned_by_heart
from lorif_assets.cli.doctor import diagnose
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake
from lorif_assets.pages.report.assembly import assemble
from lorif_assets.pages.report.page import render
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

EARLIEST, NEWEST = CHECKPOINTS
PER_TOKEN = pl.col("loss") / pl.col("n_target_tokens")


def with_losses(project: TinyProject, checkpoint: str, shard: str, loss: pl.Expr) -> None:
    """Store other losses for the examples of a shard."""
    table = project.lake.table(GRADIENT_FACTORS)
    assert table is not None
    partition = {"checkpoint": checkpoint, "shard": shard}
    frame = pl.scan_delta(table).filter(*[pl.col(k) == v for k, v in partition.items()]).collect()
    project.lake.replace(GRADIENT_FACTORS, partition, frame.with_columns(loss=loss.cast(pl.Float32)).to_arrow())


def found(lake: Lake) -> dict[str, LearnedByHeart]:
    return {one.checkpoint: one for one in learned_by_heart(lake)}


@pytest.fixture
def memorised(private_project: TinyProject) -> TinyProject:
    """A project whose newest checkpoint has learned the 12 examples of one shard by heart: 0.02 nats per token."""
    with_losses(private_project, NEWEST, SHARDS[1], 0.02 * pl.col("n_target_tokens"))
    return private_project


def test_a_checkpoint_that_still_loses_on_every_example_has_learned_none(tiny_project: TinyProject) -> None:
    assert [(one.checkpoint, one.learned, one.examples) for one in learned_by_heart(tiny_project.lake)] == [
        (EARLIEST, 0, 36),
        (NEWEST, 0, 36),
    ]
    assert examples_are_not_learned_by_heart(tiny_project.lake).passed


def test_examples_of_hardly_any_loss_are_counted_at_that_checkpoint_alone(memorised: TinyProject) -> None:
    findings = found(memorised.lake)
    assert (findings[NEWEST].learned, findings[NEWEST].share, findings[NEWEST].earliest) == (12, 12 / 36, EARLIEST)
    assert findings[EARLIEST].learned == 0


def test_a_loss_that_fell_to_less_than_a_tenth_counts_though_it_is_not_near_zero(private_project: TinyProject) -> None:
    with_losses(private_project, NEWEST, SHARDS[0], 0.09 * pl.col("loss"))
    with_losses(private_project, EARLIEST, SHARDS[0], pl.col("loss"))
    before = private_project.table(GRADIENT_FACTORS, checkpoint=EARLIEST, shard=SHARDS[0]).select(
        "example_id", first=PER_TOKEN
    )
    now = private_project.table(GRADIENT_FACTORS, checkpoint=NEWEST, shard=SHARDS[0]).select(
        "example_id", now=PER_TOKEN
    )
    fallen = now.join(before, on="example_id").filter(pl.col("now") < 0.1 * pl.col("first")).height
    assert fallen > 0
    assert found(private_project.lake)[NEWEST].learned == fallen


def test_at_the_earliest_checkpoint_the_median_is_the_measure(private_project: TinyProject) -> None:
    with_losses(private_project, EARLIEST, SHARDS[2], 0.2 * pl.col("n_target_tokens"))
    finding = found(private_project.lake)[EARLIEST]
    assert (finding.learned, finding.earliest) == (12, None)
    assert "10% of the median" in finding.words


def test_examples_of_a_shard_that_was_edited_since_are_not_compared(private_project: TinyProject) -> None:
    # What it lost on another text says nothing of this one.
    with_losses(private_project, EARLIEST, SHARDS[0], 1000.0 * pl.col("loss"))
    table = private_project.lake.table(GRADIENT_FACTORS)
    assert table is not None
    assert found(private_project.lake)[NEWEST].learned == 12
    frame = pl.scan_delta(table).filter(pl.col("checkpoint") == EARLIEST, pl.col("shard") == SHARDS[0]).collect()
    edited = frame.with_columns(shard_hash=pl.lit("of other texts"))
    private_project.lake.replace(GRADIENT_FACTORS, {"checkpoint": EARLIEST, "shard": SHARDS[0]}, edited.to_arrow())
    assert found(private_project.lake)[NEWEST].learned == 0


def test_an_empty_lake_has_nothing_to_say(tmp_path: Any) -> None:
    assert learned_by_heart(Lake(root=str(tmp_path))) == []


def test_the_check_warns_and_says_what_to_do(memorised: TinyProject) -> None:
    result = examples_are_not_learned_by_heart(memorised.lake)
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert f"{NEWEST}: 12 of 36 examples (33%) are learned by heart" in str(result.description)
    remedy = str(result.metadata["remedy"].value)
    assert "relative ranking" in remedy
    assert "base model (step 0)" in remedy


def test_doctor_and_the_report_say_it(memorised: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(memorised.root)
    console = Console(record=True, width=400)
    diagnose(console)
    assert f"{NEWEST}: 12 of 36 examples (33%) are learned by heart" in console.export_text()
    recipe = memorised.settings.recipe
    pages = {}
    for name in CHECKPOINTS:
        record = StoredCheckpoint.read(memorised.lake, name, recipe).record
        pages[name] = render(assemble(memorised.lake, record, QUERY_SET, recipe, {}))
    assert "learned by heart; their loss" in pages[NEWEST]
    assert "learned by heart; their loss" not in pages[EARLIEST]
