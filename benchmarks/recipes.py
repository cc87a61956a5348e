"""Recipes held against retraining: the LDS of each on an evaluated project, with its difference to the project's recipe.

A recipe is given as JSON, by the fields in which it differs from the project's:

    python benchmarks/recipes.py \
        '{"factor_dtype": "int4"}' '{"projection_factor": 2}'

Gradients of all examples are computed once for all recipes that share layers, projection and whitening; nothing is
stored in the lake.
"""

import argparse
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from measurements import machine, markdown_table

from lorif_assets.attribution.ask import newest_attributed
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.config.recipe import Recipe
from lorif_assets.evaluation.methods.inputs import MethodInputs, Scorable
from lorif_assets.evaluation.methods.recipe_trials import RecipeOutcome, try_recipes
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.evaluation.retraining.ground_truth import read_ground_truth
from lorif_assets.mathematics.evaluation.datamodeling import linear_datamodeling_scores
from lorif_assets.mathematics.evaluation.intervals import Comparison
from lorif_assets.progress import Progress
from lorif_assets.project import Project

_OWN = "0"
_DRAWS = 1_000
_COLUMNS = {
    "recipe": "{recipe}",
    "bytes / example": "{bytes:,}",
    "LDS": "{lds:.3f}",
    "95 % interval": "{low:.3f} to {high:.3f}",
    "more than the project's by": "{more:+.3f}",
    "paired 95 % interval": "{more_low:+.3f} to {more_high:+.3f}",
}


@dataclass(frozen=True)
class Changed:
    """A recipe and the fields in which it differs from the project's."""

    fields: Mapping[str, Any]
    recipe: Recipe

    @classmethod
    def of(cls, own: Recipe, fields: Mapping[str, Any]) -> "Changed":
        """Return the project's recipe with other fields."""
        return cls(fields, own.changed(**fields))


def sample(inputs: MethodInputs, most: int | None) -> MethodInputs:
    """Return the inputs with at most so many training examples, evenly spaced; the LDS then has their scores alone."""
    of = inputs.examples
    step = max(1, -(-len(of.tokenized) // most)) if most else 1
    return replace(inputs, examples=Scorable(of.tokenized[::step], of.texts[::step]))


def groups(changed: Iterable[Changed]) -> list[list[Changed]]:
    """Return the recipes that can be tried together, the project's first."""
    found: dict[str, list[Changed]] = {}
    for one in changed:
        found.setdefault(one.recipe.trial_hash, []).append(one)
    return list(found.values())


def score_group(inputs: MethodInputs, group: Sequence[Changed]) -> list[tuple[Changed, RecipeOutcome]]:
    """Return the recipes of a group with their scores; those that the byte budget does not pay for are left out."""
    examples, queries = inputs.examples.tokenized, inputs.queries.tokenized
    log = logging.getLogger(__name__)
    layers = len(inputs.attributed.under(group[0].recipe).record.layer_shapes)
    with Progress("recipes", len(group) * layers, "layers", log) as progress:
        found = try_recipes(
            inputs.attributed, [one.recipe for one in group], examples, queries, inputs.settings.batch, progress
        )
    by_recipe = {one.recipe: one for one in found.outcomes}
    return [(one, by_recipe[one.recipe]) for one in group if one.recipe in by_recipe]


def compared(inputs: MethodInputs, query_set: str, trials: Sequence[tuple[Changed, RecipeOutcome]]) -> Comparison:
    """Compare the scores of all recipes with the retrained models; the reference is the project's recipe."""
    truth_of = subset_truth(inputs.settings, inputs.lake)
    truth = read_ground_truth(
        inputs.lake, query_set, truth_of.expected_versions(query_set), inputs.queries.ids, inputs.examples.ids
    )
    scores = {str(at): trial.scores.numpy() for at, (_, trial) in enumerate(trials)}
    return linear_datamodeling_scores(scores, truth.members, truth.losses, _OWN, _DRAWS)


def rows(trials: Sequence[tuple[Changed, RecipeOutcome]], comparison: Comparison) -> list[dict[str, Any]]:
    """Return what is shown of each recipe."""
    shown = []
    for at, (changed, trial) in enumerate(trials):
        mean, less = comparison.mean[str(at)], comparison.differences.get(str(at))
        shown.append(
            {
                "recipe": ", ".join(f"{name} = {value}" for name, value in changed.fields.items()) or "the project's",
                "bytes": trial.bytes_per_example,
                "lds": mean.value,
                "low": mean.low,
                "high": mean.high,
                # Differences are the reference's minus the other's.
                "more": -less.value if less else 0.0,
                "more_low": -less.high if less else 0.0,
                "more_high": -less.low if less else 0.0,
            }
        )
    return shown


def main() -> None:
    """Try the recipes of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, help="lorif.toml of an evaluated project; default: as `lorif` finds it")
    parser.add_argument("--query-set", default="held-out")
    parser.add_argument("--examples", type=int, help="at most so many training examples; default: all")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results/recipes.json")
    parser.add_argument("recipes", nargs="*", type=json.loads, help="fields that differ from the project's, as JSON")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    project = Project.open(asked.project)
    settings, lake, models = project.settings, project.lake, project.checkpoints
    with project.devices.lease() as group:
        name = newest_attributed(project)
        attributed = StoredCheckpoint.read(lake, name, settings.recipe).load(models, group).model
        inputs = sample(MethodInputs.load(project, attributed, [asked.query_set]), asked.examples)
        recipes = [Changed.of(settings.recipe, fields) for fields in ({}, *asked.recipes)]
        trials = [trial for changes in groups(recipes) for trial in score_group(inputs, changes)]
    shown = rows(trials, compared(inputs, asked.query_set, trials))
    print(markdown_table(_COLUMNS, shown))
    result = {
        **machine(),
        "checkpoint": name,
        "query_set": asked.query_set,
        "examples": len(inputs.examples.ids),
        "recipes": shown,
    }
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
