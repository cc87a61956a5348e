import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.stored.curvatures import CURVATURES
from lorif_assets.cli.tune import tune_recipe, write_recipe
from lorif_assets.config.curvature_fields import CURVATURE_FIELDS
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import load_settings
from lorif_assets.errors import MismatchError, SettingsError
from lorif_assets.evaluation.methods import dense_gradients
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.methods.lorif import lorif_scores
from lorif_assets.evaluation.methods.recipe_trials import try_recipes
from lorif_assets.evaluation.tuning.advice import advise, pareto, store_trials
from lorif_assets.evaluation.tuning.candidates import candidates, differing_fields, patterns_with_head
from lorif_assets.lake.evaluation_tables import RECIPE_TRIALS
from lorif_assets.mathematics.gradients.projection import Projection
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.pages.evaluation.measurements import recipe_trials
from lorif_assets.progress import Progress

NEWEST, QUERY_SET = "step-000200", "questions"
NOW = Recipe(curvature="svd", factor_dtype="bf16", projection_factor=2, rank=1)
BY_HAND = Recipe(preset="whitened")
PROJECTION = {"projection_factor", "max_width", "include_layers", "seed", "max_length"}


@pytest.fixture
def few_candidates(monkeypatch):
    def few(recipe, budget, head_patterns):
        whitened = recipe.model_copy(
            update={"curvature": "ekfac", "factor_dtype": "sign", "bytes_per_example": max(budget, 60)}
        )
        yield [recipe, recipe.model_copy(update={"rank": 4, "factor_dtype": "fp32"}), whitened]
        yield [recipe.model_copy(update={"projection_factor": 8})]

    monkeypatch.setattr("lorif_assets.evaluation.tuning.advice.candidates", few)


def inputs_of(project):
    settings, lake = project.settings, project.lake
    models = project.opened.checkpoints
    attributed = StoredCheckpoint.read(lake, NEWEST, settings.recipe).load(models, DeviceGroup.of("cpu")).model
    return MethodInputs.load(project.opened, attributed, [QUERY_SET])


def test_the_recipe_of_now_is_tried_first_and_only_once():
    groups = list(candidates(NOW, 1_000))
    assert groups[0][0] == NOW
    tried = [recipe for group in groups for recipe in group]
    assert len(tried) == len({recipe.model_dump_json() for recipe in tried})


def test_every_curvature_is_tried_at_a_projection_and_where_layers_are_whole_only_those_that_can_be():
    tried = {group[0].projection: {recipe.curvature for recipe in group} for group in candidates(BY_HAND, 1_000)}
    on_examples = {name: kind.trials for name, kind in CURVATURES.items() if kind.trials is not None}
    # What is made of an optimiser's state cannot be tried on examples alone.
    assert set(CURVATURES) - set(on_examples) == {name for name, of in CURVATURE_FIELDS.items() if of.reads_optimizer}
    assert tried.pop(Projection(factor=1, seed=0)) == {name for name, trials in on_examples.items() if trials.wide}
    assert all(names == set(on_examples) for names in tried.values())


def test_the_head_is_tried_beside_the_blocks_that_are_tracked():
    tracked = ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc"]
    assert patterns_with_head(tracked, "lm_head") == ("transformer.h.*", "lm_head")
    assert patterns_with_head([*tracked, "lm_head"], "lm_head") == patterns_with_head(tracked, None) == ()
    assert patterns_with_head(tracked, "lm_head", ("lm_*",)) == ()
    tried = [recipe for group in candidates(NOW, 1_000, ("transformer.h.*", "lm_head")) for recipe in group]
    assert {recipe.include_layers for recipe in tried} == {(), ("transformer.h.*", "lm_head")}


def test_the_head_of_a_model_is_found_by_name(tiny_project):
    assert inputs_of(tiny_project).attributed.head == "lm_head"


def test_recipes_of_a_group_share_what_gradients_depend_on():
    for group in candidates(NOW, 1_000):
        assert not PROJECTION & set(differing_fields(group))


def test_a_largest_width_is_kept_in_the_group_of_now_and_left_out_of_the_others():
    groups = list(candidates(NOW.model_copy(update={"max_width": 64}), 1_000))
    assert {recipe.max_width for recipe in groups[0]} == {64}
    assert {recipe.max_width for group in groups[1:] for recipe in group} == {None}
    assert all(not PROJECTION & set(differing_fields(group)) for group in groups)


def test_with_a_largest_width_every_plain_factor_is_tried_after_the_group_of_now():
    groups = list(candidates(NOW.changed(max_width=64), 1_000))
    assert [str(group[0].projection) for group in groups] == [
        "max_width = 64", "f = 1", "f = 2", "f = 4", "f = 8", "f = 16"
    ]  # fmt: skip


PROJECTIONS = st.one_of(
    st.builds(Projection, factor=st.integers(1, 20), seed=st.integers(0, 5)),
    st.builds(Projection, max_width=st.integers(1, 5_000), seed=st.integers(0, 5)),
)
BASES = st.sampled_from(
    [
        NOW,
        Recipe(),
        Recipe(preset="paper"),
        Recipe(bytes_per_example=500),
        Recipe(factor_dtype="int4", bytes_per_example=1_000, projection_factor=16),
        Recipe(top_k=50, exclude_layers=("*.c_fc",)),
    ]
)


@given(base=BASES, projection=PROJECTIONS, budget=st.integers(1, 5_000))
def test_whatever_the_recipe_of_now_is_each_projection_is_tried_once_and_its_own_first(base, projection, budget):
    now = base.projected(projection)
    groups = list(candidates(now, budget))
    assert groups[0][0] == now
    tried = [group[0].projection for group in groups]
    plain = [Projection(factor=factor, seed=projection.seed) for factor in (1, 2, 4, 8, 16)]
    assert tried == [projection, *(one for one in plain if one != projection)]
    assert all(len({recipe.trial_hash for recipe in group}) == 1 for group in groups)
    hashes = [recipe.score_hash for group in groups for recipe in group]
    assert len(hashes) == len(set(hashes))


@given(base=BASES, projection=PROJECTIONS, budget=st.integers(1, 5_000))
def test_any_candidate_can_be_written_over_the_recipe_of_now(tmp_path_factory, base, projection, budget):
    now, file = base.projected(projection), tmp_path_factory.mktemp("written") / "lorif.toml"
    file.write_text("")
    write_recipe(file, Recipe(), now)
    assert load_settings(file).recipe == now
    for group in candidates(now, budget):
        written = file.read_text()
        write_recipe(file, now, group[-1])
        assert load_settings(file).recipe == group[-1]
        file.write_text(written)


def test_recipes_of_other_gradients_are_not_tried_together(tiny_project):
    inputs = inputs_of(tiny_project)
    now = tiny_project.settings.recipe
    with Progress("", 1, "") as progress:
        rest = (inputs.examples.tokenized, inputs.queries.tokenized, tiny_project.settings.batch, progress)
        with pytest.raises(MismatchError, match="share layers, projection"):
            try_recipes(inputs.attributed, [now, now.changed(max_width=8)], *rest)
        with pytest.raises(MismatchError, match=r"has max_length = 9, .* read with \d+; set `recipe.max_length`"):
            try_recipes(inputs.attributed, [now.changed(max_length=9)], *rest)


def test_a_trial_is_labelled_by_the_projection_that_it_had(private_project, few_candidates):
    project = private_project.with_settings(recipe={"max_width": 8}, evaluation={"tail_patch_k": 1})
    project.run("checkpoints", NEWEST)
    inputs = inputs_of(project)
    advice = advise(inputs, budget=100_000, minutes=0, sample_size=8)
    store_trials(inputs, advice)
    rows = project.table(RECIPE_TRIALS)
    assert rows["projection_factor"].null_count() == rows.height
    assert {trial.projection for trial in recipe_trials(rows)} == {Projection(max_width=8, seed=0)}


def test_a_trial_of_the_recipe_of_now_gives_the_scores_of_the_pipeline(tiny_project):
    inputs = inputs_of(tiny_project)
    with Progress("", 1, "") as progress:
        tried = try_recipes(
            inputs.attributed,
            [tiny_project.settings.recipe],
            inputs.examples.tokenized,
            inputs.queries.tokenized,
            tiny_project.settings.batch,
            progress,
        ).outcomes[0]
    stored = lorif_scores(inputs)["lorif"]
    assert tried.bytes_per_example == stored.bytes_per_example
    assert np.allclose(tried.scores.numpy(), stored.scores, rtol=2e-2, atol=2e-2 * np.abs(stored.scores).max())


def test_a_recipe_whose_bytes_do_not_pay_for_every_layer_is_left_out(tiny_project):
    inputs = inputs_of(tiny_project)
    now = tiny_project.settings.recipe
    too_small = now.model_copy(update={"curvature": "ekfac", "factor_dtype": "sign", "bytes_per_example": 5})
    with Progress("", 1, "") as progress:
        examples, queries = inputs.examples.tokenized, inputs.queries.tokenized
        found = try_recipes(
            inputs.attributed, [now, too_small], examples, queries, tiny_project.settings.batch, progress
        )
    assert [one.recipe for one in found.outcomes] == [now]


def test_without_ground_truth_trials_are_judged_by_tail_patch(private_project, few_candidates):
    project = private_project.with_settings(evaluation={"tail_patch_k": 1})
    inputs = inputs_of(project)
    advice = advise(inputs, budget=100_000, minutes=5, sample_size=20)
    assert (advice.measure, advice.n_examples, len(advice.trials), advice.complete) == ("tail_patch", 18, 4, True)
    assert advice.trials[1].agreement.mean() > advice.trials[3].agreement.mean()
    front = pareto(advice.trials, advice.quality.mean)
    sizes = [advice.trials[at].outcome.bytes_per_example for at in front]
    assert sizes == sorted(sizes)
    store_trials(inputs, advice)
    rows = project.table(RECIPE_TRIALS)
    assert rows["tail_patch"].is_finite().all()
    assert rows["lds"].null_count() == rows.height == 4
    assert json.loads(rows["recipe"][2])["factor_dtype"] == "sign"


def test_what_keeps_more_than_the_budget_is_not_chosen(private_project, few_candidates):
    inputs = inputs_of(private_project.with_settings(evaluation={"tail_patch_k": 1}))
    now = int(lorif_scores(inputs)["lorif"].bytes_per_example)
    advice = advise(inputs, budget=now, minutes=5, sample_size=12)
    assert advice.trials[advice.best_position].outcome.bytes_per_example <= now
    with pytest.raises(MismatchError, match=r"none of 4 recipes keeps 3 bytes .* Raise --bytes"):
        advise(inputs, budget=3, minutes=5, sample_size=12)


def test_when_the_time_is_up_no_further_group_is_begun(private_project, few_candidates):
    advice = advise(inputs_of(private_project), budget=100_000, minutes=0, sample_size=8)
    assert (len(advice.trials), advice.complete) == (3, False)


def test_recipes_whose_gradients_do_not_fit_in_memory_are_left_out_and_said(
    private_project, few_candidates, monkeypatch, caplog
):
    inputs = inputs_of(private_project.with_settings(evaluation={"tail_patch_k": 1}))
    free = iter([2**40, 0])
    monkeypatch.setattr(dense_gradients, "host_memory", lambda: next(free))
    advice = advise(inputs, budget=100_000, minutes=5, sample_size=12)
    assert (len(advice.trials), advice.complete) == (3, True)
    assert "left out, recipes at" in caplog.text
    assert "GiB while they are scored, and 0.0 are free; lower --examples" in caplog.text
    monkeypatch.setattr(dense_gradients, "host_memory", lambda: 0)
    with pytest.raises(SettingsError, match=r"are free; lower --examples"):
        advise(inputs, budget=100_000, minutes=5, sample_size=12)


def test_the_chosen_recipe_is_written_without_touching_the_rest_of_the_file(tmp_path):
    file = tmp_path / "lorif.toml"
    file.write_text(
        '# mine\n[recipe]\nrank = 1  # small\nprojection_factor = 2\ncurvature = "svd"\nfactor_dtype = "bf16"\n\n'
        '[lake]\nroot = "here"\n'
    )
    chosen = NOW.model_copy(update={"rank": 4, "curvature": "ekfac", "bytes_per_example": 900})
    write_recipe(file, NOW, chosen)
    text = file.read_text()
    assert "# mine" in text
    assert "# small" in text
    assert load_settings(file).recipe == chosen.model_copy(update={"projection_factor": 2})
    assert load_settings(file).lake.root == "here"
    write_recipe(file, chosen, NOW)
    assert load_settings(file).recipe == NOW


@pytest.mark.parametrize(
    "by_hand",
    [Recipe(preset="whitened"), Recipe(projection_factor=8, bytes_per_example=900), Recipe(max_width=64, rank=16)],
)
def test_what_is_chosen_by_hand_at_values_of_fields_that_are_not_set_is_written_out(tmp_path, by_hand):
    """Not setting them would leave them to the model."""
    file = tmp_path / "lorif.toml"
    file.write_text("[recipe]\nseed = 0\n")
    left = load_settings(file).recipe
    chosen = by_hand.model_copy(update={"preset": "auto"})
    write_recipe(file, left, chosen)
    assert load_settings(file).recipe == chosen


def test_a_recipe_in_one_word_becomes_a_block_when_a_better_one_is_written(tmp_path):
    file = tmp_path / "lorif.toml"
    file.write_text('recipe = "paper"  # as published\n\n[lake]\nroot = "here"\n')
    paper = load_settings(file).recipe
    write_recipe(file, paper, paper.model_copy(update={"damping": 0.5}))
    assert load_settings(file).recipe == paper.model_copy(update={"damping": 0.5})
    assert load_settings(file).lake.root == "here"


def test_lorif_tune_prints_what_quality_costs_and_writes_on_request(private_project, few_candidates, monkeypatch):
    monkeypatch.setenv("LORIF_CONFIG", str(private_project.root / "lorif.toml"))
    console = Console(record=True, width=200)
    tune_recipe(console, budget=100_000, minutes=5, most_examples=10, write=True)
    said = console.export_text()
    assert "best quality for the bytes, of 4 recipes tried" in said
    assert "tail-patch" in said
    if "(best within the budget)" in said and "The current recipe" not in said:
        assert load_settings(private_project.root / "lorif.toml").recipe != private_project.settings.recipe
