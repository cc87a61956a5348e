"""Which checkpoints are averaged, and how much each counts: by what its trainer says of learning rates."""

import json

import pytest
from pydantic import ValidationError

from lorif_assets.attribution.checkpoints.averaging_weights import (
    averaging_in_words,
    checkpoint_weights,
    weights_by_rate,
)
from lorif_assets.attribution.checkpoints.checkpoint import averaged_before
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.models.training.learning_rates import logged_learning_rates
from tests.conftest import CHECKPOINTS, TinyProject

BEFORE = ["base", "step-1", "step-2", "step-3", "step-4", "step-5"]


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        (1, []),
        (3, ["step-4", "step-5"]),
        (20, BEFORE),
        ("spread", ["base", "step-3"]),
        (("step-4", "base"), ["base", "step-4"]),
        (("elsewhere",), []),
    ],
)
def test_the_checkpoints_before_one_are_chosen_by_number_along_the_run_or_by_name(
    choice: int | str | tuple[str, ...], chosen: list[str]
) -> None:
    assert list(averaged_before(BEFORE, choice)) == chosen


def test_the_spread_of_a_short_run_has_no_checkpoint_twice() -> None:
    assert [list(averaged_before(BEFORE[:n], "spread")) for n in range(4)] == [
        [],
        ["base"],
        ["base", "step-1"],
        ["base", "step-2"],
    ]


@pytest.mark.parametrize("choice", ["spread", ["base"], 2])
def test_every_choice_but_one_needs_checkpoints_that_follow_the_data(choice: object) -> None:
    with pytest.raises(ValidationError, match=r"other than 1 needs earlier checkpoints"):
        Settings(recipe=Recipe.model_validate({"averaged_checkpoints": choice}))


@pytest.mark.parametrize("choice", [0, [], "ends"])
def test_what_chooses_no_checkpoint_is_refused(choice: object) -> None:
    with pytest.raises(ValidationError, match="averaged_checkpoints"):
        Recipe.model_validate({"averaged_checkpoints": choice})


def test_equal_weights_leave_the_hash_of_averages_as_it_was_before_there_was_a_choice() -> None:
    assert (
        Recipe(preset="whitened", averaged_checkpoints=2, checkpoint_weights="equal").score_hash
        == "8c94f5a8b184baf65612cc876aa50133"
    )
    assert (
        Recipe(averaged_checkpoints=3, checkpoint_weights="equal", curvature="svd").score_hash
        == "fb15a1dd8dc6d742fa97455c1a1f8e68"
    )
    assert Recipe(averaged_checkpoints=2).score_hash != "8c94f5a8b184baf65612cc876aa50133"


def test_a_checkpoint_stands_for_the_steps_nearest_to_it() -> None:
    # A linear decay to 0: at its own step, the last checkpoint would not count at all.
    rates = {step: 1.0 - step / 100 for step in range(101)}
    weights = weights_by_rate([0, 50, 100], rates)
    assert weights is not None
    assert weights[0] > weights[1] > weights[2] > 0
    assert sum(weights) == pytest.approx(3, abs=1e-3)
    assert weights == pytest.approx((0.875 * 2, 1.0, 0.125 * 2), abs=0.02)


@pytest.mark.parametrize("rates", [{90: 1.0}, {10: 0.0, 90: 0.0}, {}])
def test_without_a_rate_around_every_checkpoint_there_are_no_weights(rates: dict[int, float]) -> None:
    assert weights_by_rate([0, 100], rates) is None


def write_state(project: TinyProject, checkpoint: str, state: object) -> None:
    (project.root / "checkpoints" / checkpoint / "trainer_state.json").write_text(
        state if isinstance(state, str) else json.dumps(state)
    )


LOG = {
    "log_history": [{"step": 50, "learning_rate": 3e-4}, {"step": 180, "learning_rate": 1e-4}, {"step": 200, "eval": 1}]
}


def weights_of(project: TinyProject, recipe: Recipe) -> tuple[float, ...]:
    records = [checkpoint_record(project.lake, name, project.settings.recipe) for name in CHECKPOINTS]
    return checkpoint_weights(recipe, project.opened.checkpoints, records)


def test_the_newest_checkpoint_s_trainer_tells_the_learning_rates(private_project: TinyProject) -> None:
    recipe = private_project.settings.recipe.changed(averaged_checkpoints=2)
    assert weights_of(private_project, recipe) == (1.0, 1.0)
    write_state(private_project, CHECKPOINTS[1], LOG)
    assert weights_of(private_project, recipe) == (1.5, 0.5)
    assert weights_of(private_project, recipe.changed(checkpoint_weights="equal")) == (1.0, 1.0)


@pytest.mark.parametrize(
    "state", ["", "[]", "{}", '{"log_history": 3}', '{"log_history": [{"step": "x", "learning_rate": 1}]}']
)
def test_a_trainer_s_state_that_tells_none_gives_none(private_project: TinyProject, state: str) -> None:
    write_state(private_project, CHECKPOINTS[1], state)
    assert logged_learning_rates(private_project.root / "checkpoints" / CHECKPOINTS[1]) == {}


def test_a_state_that_is_written_again_is_read_again(private_project: TinyProject) -> None:
    folder = private_project.root / "checkpoints" / CHECKPOINTS[1]
    write_state(private_project, CHECKPOINTS[1], LOG)
    assert logged_learning_rates(folder) == {50: 3e-4, 180: 1e-4}
    write_state(private_project, CHECKPOINTS[1], {"log_history": [{"step": 7, "learning_rate": 1.0}]})
    assert logged_learning_rates(folder) == {7: 1.0}


def test_it_is_said_at_which_checkpoints_scores_look_and_why() -> None:
    alone = averaging_in_words({"step-2": 1.0}, Recipe(averaged_checkpoints=1))
    assert alone.startswith("Scores are those at step-2 alone: `recipe.averaged_checkpoints` is 1")
    unknown = averaging_in_words({"step-2": 1.0}, Recipe())
    assert unknown.startswith("Scores are those at step-2 alone: no base model that it was fine-tuned from is known")
    adapter = averaging_in_words({"step-2": 1.0}, Recipe(track="adapter"))
    assert adapter.startswith(
        'Scores are those at step-2 alone: by `recipe.track = "adapter"` the base model has none of'
    )
    recalled = averaging_in_words({"step-2": 1.0}, Recipe(recall="influcoder"))
    assert (
        recalled == "Scores are those at step-2 alone: `recipe.recall` and `recipe.added_data` score at one checkpoint"
    )
    first = averaging_in_words({"base": 1.0}, Recipe(averaged_checkpoints="spread"))
    assert first == "Scores are those at base alone: no active checkpoint before it is averaged with it"
    spread = averaging_in_words({"base": 1.5, "step-2": 0.5}, Recipe(averaged_checkpoints="spread"))
    assert spread.startswith(
        "Scores are averaged over base (weight 1.50), step-2 (weight 0.50), each divided by its spread"
    )


def test_a_segment_lasts_as_its_steps_times_their_learning_rate() -> None:
    rates = {step: 2.0 if step <= 30 else 1.0 for step in range(1, 61)}
    # Segments of steps 0 to 30, 30 to 50 and 50 to 60: 60, 20 and 10 of 90.
    assert weights_by_rate([20, 40, 60], rates, by_steps=True) == (2.0, round(60 / 90, 4), round(30 / 90, 4))
    assert weights_by_rate([0, 60], rates, by_steps=True) == (round(120 / 90, 4), round(60 / 90, 4))
    # A base model of which no step is nearer than the next has trained for no time.
    assert weights_by_rate([0, 0], rates, by_steps=True) is None
