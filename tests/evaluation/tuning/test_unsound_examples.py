"""A sample of which one example has no finite gradient: recipes are tried without it, and it is named."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.factors.sound_examples import NOT_FINITE
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.rows.rejected import RejectedRow, rejected_table, replace_rejected
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import UnsoundQueryError
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.tuning.advice import advise
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

NEWEST = CHECKPOINTS[1]


@pytest.fixture
def _three_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(recipe: Recipe, budget: int, head_patterns: tuple[str, ...]) -> Iterator[list[Recipe]]:
        whitened = {"curvature": "ekfac", "factor_dtype": "sign", "bytes_per_example": max(budget, 60)}
        yield [recipe, recipe.model_copy(update=whitened)]
        yield [recipe.changed(include_layers=head_patterns, projection_factor=8)]

    monkeypatch.setattr("lorif_assets.evaluation.tuning.advice.candidates", few)


def loaded(project: TinyProject) -> MethodInputs:
    stored = StoredCheckpoint.read(project.lake, NEWEST, project.settings.recipe)
    model = stored.load(project.opened.checkpoints, DeviceGroup.of("cpu")).model
    return MethodInputs.load(project.opened, model, [QUERY_SET])


@contextmanager
def not_finite(inputs: MethodInputs, example: TokenizedExample) -> Iterator[None]:
    """Let the model overflow on one example, as in a narrow type."""
    wanted = torch.from_numpy(example.input_ids)

    def spoil(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        ids = arguments[0]
        rows = [k for k, row in enumerate(ids) if torch.equal(row[: len(wanted)].cpu(), wanted)]
        return output.index_fill(0, torch.tensor(rows), float("nan")) if rows else output

    hook = inputs.attributed.model.get_input_embeddings().register_forward_hook(spoil)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.usefixtures("_three_candidates")
def test_it_is_set_aside_by_name_and_recipes_are_tried_on_the_others(tiny_project: TinyProject) -> None:
    inputs = loaded(tiny_project.with_settings(evaluation={"tail_patch_k": 1}))
    marked = max(inputs.examples.tokenized, key=lambda example: len(example.input_ids))
    n = len(inputs.examples.tokenized)
    with not_finite(inputs, marked):
        advice = advise(inputs, budget=100_000, minutes=60, sample_size=n)
    assert advice.set_aside == [marked.example_id]
    assert (advice.n_examples, len(advice.trials)) == (n - 1, 3)
    for trial in advice.trials:
        assert trial.outcome.scores.shape == (len(inputs.queries.tokenized), n - 1)
        assert trial.outcome.scores.isfinite().all()


@pytest.mark.usefixtures("_three_candidates")
def test_a_query_that_is_not_finite_is_refused_by_name(tiny_project: TinyProject) -> None:
    inputs = loaded(tiny_project)
    query = inputs.queries.tokenized[1]
    with (
        not_finite(inputs, query),
        pytest.raises(UnsoundQueryError, match=rf"query '{query.example_id}' is not finite"),
    ):
        advise(inputs, budget=100_000, minutes=60, sample_size=8)


def test_examples_that_the_factors_were_computed_without_are_no_input_of_any_method(
    private_project: TinyProject,
) -> None:
    before = loaded(private_project).examples.ids
    aside = [RejectedRow("doc0-3", 3, NOT_FINITE, "x"), RejectedRow("doc0-4", 4, "too short for this tokenizer", "y")]
    for checkpoint, rows in ((NEWEST, aside), (CHECKPOINTS[0], [RejectedRow("doc0-5", 5, NOT_FINITE, "z")])):
        replace_rejected(private_project.lake, "gradient_factors", f"{checkpoint}|{SHARDS[0]}", rejected_table(rows))
    assert loaded(private_project).examples.ids == [name for name in before if name != "doc0-3"]
