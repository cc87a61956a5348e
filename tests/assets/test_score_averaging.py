"""Scores averaged over checkpoints: what they are, and that they follow every checkpoint that takes part."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoTokenizer

from lorif_assets.attribution.ask import ModelCache, score_completion
from lorif_assets.attribution.scores.score_averaging import ShardScores, averaged_scores
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.automation.readiness import ready_partitions
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.data.questions import completion_question
from lorif_assets.errors import MismatchError, SettingsError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject, private_copy, write_checkpoint

EARLIER, NEWEST = CHECKPOINTS
PLAIN_MEAN = {"averaged_checkpoints": 2, "checkpoint_weights": "equal"}


def pairs(project: TinyProject, checkpoint: str) -> pl.DataFrame:
    return project.table(QUERY_SCORES, checkpoint=checkpoint, query_set=QUERY_SET).sort("query_id", "example_id")


def versions(project: TinyProject) -> dict[str, str]:
    return dict(project.table(QUERY_SUMMARIES).select("checkpoint", "computed_from").unique().iter_rows())


@pytest.fixture(scope="module")
def alone(tiny_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProject]:
    """The project with the score of every pair."""
    with private_copy(tiny_project, tmp_path_factory.mktemp("alone")) as project:
        every = project.with_settings(recipe={"top_k": "all"})
        every.update()
        yield every


@pytest.fixture
def together(alone: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """The same with the scores of two checkpoints averaged, up to date."""
    with private_copy(alone, tmp_path) as project:
        averaging = project.with_settings(recipe={"top_k": "all", **PLAIN_MEAN})
        averaging.update()
        yield averaging


def test_scores_are_the_mean_over_the_checkpoints(alone: TinyProject, together: TinyProject) -> None:
    by_checkpoint = [pairs(alone, name)["score"].to_numpy() for name in CHECKPOINTS]
    assert pairs(together, NEWEST)["score"].to_numpy() == pytest.approx(sum(by_checkpoint) / 2, rel=1e-5, abs=1e-6)
    assert together.figures("query_scores", f"{NEWEST}|{QUERY_SET}")["averaged_with"] == [EARLIER]
    # Before the first checkpoint there is none.
    assert pairs(together, EARLIER)["score"].to_numpy() == pytest.approx(by_checkpoint[0], rel=1e-5, abs=1e-6)


def test_a_query_s_loss_stays_that_of_the_checkpoint_asked_about(alone: TinyProject, together: TinyProject) -> None:
    losses = [p.table(QUERY_SUMMARIES, checkpoint=NEWEST)["loss"].to_list() for p in (alone, together)]
    assert losses[0] == losses[1]


def test_a_question_at_the_command_line_is_averaged_as_well(alone: TinyProject, together: TinyProject) -> None:
    project = together.with_settings(recipe={"top_k": 5, **PLAIN_MEAN})
    question = completion_question("the with statement", " opens a file")
    scored = [
        score_completion(ModelCache(one.opened), NEWEST, question, 36).scores
        for one in (alone.with_settings(recipe={"top_k": 5}), project)
    ]
    asked = scored[1].filter(pl.col("side") == "highest").sort("example_id")["score"].to_numpy()
    listed = pairs(together, NEWEST).filter(pl.col("query_id") == "q0")["score"].to_numpy()
    assert asked == pytest.approx(listed, rel=1e-5, abs=1e-6)
    assert scored[0].filter(pl.col("side") == "highest").sort("example_id")["score"].to_numpy() != pytest.approx(listed)


def test_nothing_is_computed_twice(together: TinyProject) -> None:
    assert together.update() == {}


def test_another_earlier_checkpoint_makes_the_scores_of_the_newer_one_stale(together: TinyProject) -> None:
    before, checkpoint = versions(together), together.root / "checkpoints" / EARLIER
    write_checkpoint(together.root / "trained", AutoTokenizer.from_pretrained(checkpoint), seed=7)
    (together.root / "trained/model.safetensors").replace(checkpoint / "model.safetensors")
    updated = together.update()
    assert {key.partition("|")[0] for key in updated["gradient_factors"]} == {EARLIER}
    assert updated["query_scores"] == {f"{name}|{QUERY_SET}" for name in CHECKPOINTS}
    assert not before.items() & versions(together).items()


def test_scores_wait_for_the_factors_of_all_checkpoints_that_take_part(together: TinyProject) -> None:
    together.edit_shard(1, 2, "another sentence about files and blocks that is new here")
    together.run("training_examples", SHARDS[1])
    together.run("gradient_factors", f"{NEWEST}|{SHARDS[1]}")
    for layer in checkpoint_record(together.lake, NEWEST, together.settings.recipe).layer_shapes:
        together.run("svd_preconditioners", f"{NEWEST}|{layer}")
    ready = {name: set(stale) for name, stale in ready_partitions(together.freshness) if stale}
    assert ready == {"gradient_factors": {f"{EARLIER}|{SHARDS[1]}"}}
    with pytest.raises(MismatchError, match=f"{EARLIER}.* other data"):
        together.run("query_scores", f"{NEWEST}|{QUERY_SET}")


def test_a_checkpoint_whose_files_are_gone_takes_no_part(together: TinyProject, alone: TinyProject) -> None:
    (together.root / "checkpoints" / EARLIER).rename(together.root / "gone")
    assert together.update()["query_scores"] == {f"{NEWEST}|{QUERY_SET}"}
    assert pairs(together, NEWEST)["score"].to_list() == pytest.approx(
        pairs(alone, NEWEST)["score"].to_list(), rel=1e-5
    )


def test_an_example_that_a_checkpoint_lacks_is_averaged_over_those_that_have_it() -> None:
    newest = ShardScores(["a", "b", "c"], torch.tensor([[1.0, 2.0, 3.0]]))
    earlier = [
        ShardScores(["c", "a", "other"], torch.tensor([[5.0, 3.0, 100.0]])),
        ShardScores(["b", "c"], torch.tensor([[4.0, 1.0]])),
    ]
    assert averaged_scores(newest, earlier).tolist() == [[2.0, 3.0, 3.0]]


def test_a_checkpoint_that_shares_no_example_of_a_shard_changes_nothing() -> None:
    newest = ShardScores(["a", "b"], torch.tensor([[1.0, 2.0]]))
    assert averaged_scores(newest, [ShardScores(["c"], torch.tensor([[9.0]]))]).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("other", [{"recall": "influcoder"}, {"added_data": "merged"}])
def test_averages_are_of_full_scans_alone(other: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="leave `recall` at none and `added_data` at exact"):
        Recipe.model_validate({"averaged_checkpoints": 2, **other})


def test_checkpoints_that_take_part_must_follow_the_data() -> None:
    with pytest.raises(ValidationError, match=r"set `active.checkpoints` to \"all\", or to names"):
        Settings(recipe=Recipe(averaged_checkpoints=2))


def test_no_averaging_leaves_the_recipe_s_hash_as_it_was() -> None:
    assert "averaged_checkpoints" not in Recipe().fields_in_use
    assert Recipe(averaged_checkpoints=2).score_hash != Recipe().score_hash


# --- each divided by its spread ---------------------------------------------------------------------------------------


@pytest.fixture
def scaled(alone: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """The same with each checkpoint's scores divided by their spread, as the default is."""
    with private_copy(alone, tmp_path) as project:
        yield project.with_settings(recipe={"top_k": "all", "averaged_checkpoints": "spread"})


def expected_mean(alone: TinyProject, weights: tuple[float, float]) -> np.ndarray:
    """The weighted mean of both checkpoints' scores [Q, N], each query's divided by its standard deviation, in FP64."""
    total = np.zeros((3, 36))
    for name, weight in zip(CHECKPOINTS, weights, strict=True):
        scores = pairs(alone, name)["score"].to_numpy().reshape(3, 36).astype(np.float64)
        total += weight * scores / scores.std(axis=1, keepdims=True)
    return total / sum(weights)


def averaged(project: TinyProject) -> np.ndarray:
    return pairs(project, NEWEST)["score"].to_numpy().reshape(3, 36)


def test_scaled_scores_are_the_mean_of_scores_over_their_spread(alone: TinyProject, scaled: TinyProject) -> None:
    scaled.update()
    assert averaged(scaled) == pytest.approx(expected_mean(alone, (1, 1)), rel=1e-4, abs=1e-5)
    assert scaled.update() == {}


def test_a_trainer_s_learning_rates_weigh_them_and_new_ones_make_them_stale(
    alone: TinyProject, scaled: TinyProject
) -> None:
    scaled.update()
    state = {"log_history": [{"step": 50, "learning_rate": 3e-4}, {"step": 180, "learning_rate": 1e-4}]}
    (scaled.root / "checkpoints" / NEWEST / "trainer_state.json").write_text(json.dumps(state))
    assert scaled.update()["query_scores"] == {f"{NEWEST}|{QUERY_SET}"}
    assert averaged(scaled) == pytest.approx(expected_mean(alone, (1.5, 0.5)), rel=1e-4, abs=1e-5)
    summaries = scaled.table(QUERY_SUMMARIES, checkpoint=NEWEST)
    assert summaries["averaged"].unique().to_list() == [json.dumps({EARLIER: 1.5, NEWEST: 0.5})]
    page = (Path(scaled.lake.root) / f"reports/{NEWEST}/{QUERY_SET}.html").read_text()
    assert f"averaged over {EARLIER} (weight 1.50), {NEWEST} (weight 0.50)" in page


def test_a_large_gradient_scale_of_one_checkpoint_does_not_drown_the_other() -> None:
    big = ShardScores(["a", "b"], torch.tensor([[100.0, -100.0]]) / 100, weight=1.0)
    small = ShardScores(["b", "a"], torch.tensor([[3.0, 1.0]]), weight=3.0)
    assert averaged_scores(big, [small]).tolist() == [[1.0, 2.0]]


def test_a_name_that_is_no_active_checkpoint_is_refused(scaled: TinyProject) -> None:
    named = scaled.with_settings(recipe={"averaged_checkpoints": ["base"]})
    with pytest.raises(
        SettingsError, match="names 'base', which is no active checkpoint; found step-000100, step-000200"
    ):
        _ = named.freshness.averaging_groups
