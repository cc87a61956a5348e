"""Does agreement with exact EK-FAC say which recipe predicts retraining best, and does the automatic one take it?

    python benchmarks/agreement_against_lds.py --project lorif.toml --model GPT-2 --query-set held-out

The project is an evaluated one: its subset losses are the ground truth. Recipes of each width and budget are tried on all
examples; agreement with exact EK-FAC of whole gradients is measured in four ways. Nothing is stored in the lake. Results of
several models stand in one file, each replaced when it is run again; `plots.py` draws them.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurements import machine, markdown_table

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.exact.exact_influence import exact_scores
from lorif_assets.attribution.fitting.measured_width import at_measured_width, measured_tokens
from lorif_assets.attribution.fitting.whole_gradients import WholeGradients, unprojected
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.tokens.tokenization import n_tokens
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.methods.recipe_trials import RecipeOutcome, try_recipes
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.evaluation.retraining.ground_truth import read_ground_truth
from lorif_assets.mathematics.evaluation.datamodeling import linear_datamodeling_scores, subset_sums
from lorif_assets.mathematics.scores.ndcg import ndcg
from lorif_assets.mathematics.scores.rank_correlation import rank_correlations
from lorif_assets.progress import Progress
from lorif_assets.project import Project

_DRAWS, _FIRST, _HALVES = 1_000, 20, 200
_EXACT = "EK-FAC"
_COLUMNS = {
    "model": "{model}",
    "sides": "{widths}",
    "budget": "{budget:,}",
    "bytes": "{bytes:,}",
    "LDS": "{lds:.3f}",
    "95 % interval": "{low:.3f} to {high:.3f}",
    "less than EK-FAC by": "{behind:+.3f} ({behind_low:+.3f} to {behind_high:+.3f})",
    "NDCG@20": "{ndcg:.3f}",
    "sums of halves": "{sums:.3f}",
    "Pearson": "{pearson:.3f}",
    "Spearman": "{spearman:.3f}",
    "taken by auto": "{auto}",
}


def agreement(scores: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Return how well scores [Q, N] agree with exact ones, by four measures, each the mean over queries."""
    halves = np.random.default_rng(0).random((_HALVES, scores.shape[1])) < 0.5
    ours, theirs = (matrix - matrix.mean(axis=1, keepdims=True) for matrix in (scores, exact))
    pearson = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    return {
        "ndcg": float(ndcg(torch.from_numpy(scores), torch.from_numpy(exact), _FIRST).mean()),
        "sums": float(rank_correlations(subset_sums(scores, halves), subset_sums(exact, halves)).mean()),
        "pearson": float(pearson.mean()),
        "spearman": float(rank_correlations(scores, exact).mean()),
    }


def tried(
    inputs: MethodInputs, own: Mapping[str, Any], widths: Sequence[int], budgets: Sequence[int]
) -> Iterator[tuple[int, RecipeOutcome]]:
    """Yield the outcomes of whitened signs with ranks by layer, at each largest width and budget."""
    examples, queries, batch = inputs.examples.tokenized, inputs.queries.tokenized, inputs.settings.batch
    for width in widths:
        recipes = [
            Recipe(preset="whitened", projection_factor=1, max_width=width, bytes_per_example=budget, **own)
            for budget in budgets
        ]
        layers = len(inputs.attributed.under(recipes[0]).projections)
        with Progress(f"sides of at most {width}", layers * len(recipes), "layers") as progress:
            found = try_recipes(inputs.attributed, recipes, examples, queries, batch, progress).outcomes
        yield from ((width, outcome) for outcome in found)


def automatic_width(inputs: MethodInputs, own: Mapping[str, Any], budget: int) -> int:
    """Return the largest width that the automatic recipe takes for so many bytes."""
    attributed, examples = inputs.attributed.under(Recipe(bytes_per_example=budget, **own)), inputs.examples.tokenized
    with Progress("widths", measured_tokens(attributed, examples), "tok") as progress:
        measured, _ = at_measured_width(attributed, examples, inputs.settings.batch, progress)
    return int(measured.fitted_recipe.max_width or 0)


def whole_scores(inputs: MethodInputs, own: Mapping[str, Any]) -> np.ndarray:
    """Return exact EK-FAC's scores [Q, N], fitted to all examples."""
    examples, queries, batch = inputs.examples.tokenized, inputs.queries.tokenized, inputs.settings.batch
    whole = WholeGradients(unprojected(inputs.attributed.under(Recipe(preset="whitened", **own))), examples, None)
    with Progress(_EXACT, whole.fit_tokens + n_tokens(examples), "tok") as progress:
        curvature = whole.curvature(batch, progress)
        found = exact_scores(curvature, queries, examples, ExactScoreSettings(), batch, progress)
    return np.asarray(found.scores.float().numpy())


def points(inputs: MethodInputs, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return LDS, agreement and bytes of every recipe."""
    own = inputs.settings.recipe.model_dump(include={"max_length", "append_eos", "model_dtype"})
    own["include_layers"] = tuple(asked.layers)
    exact, outcomes = whole_scores(inputs, own), list(tried(inputs, own, asked.widths, asked.bytes))
    truth = read_ground_truth(
        inputs.lake,
        asked.query_set,
        subset_truth(inputs.settings, inputs.lake).expected_versions(asked.query_set),
        inputs.queries.ids,
        inputs.examples.ids,
    )
    named = {f"{width} {outcome.recipe.bytes_per_example}": outcome.scores.numpy() for width, outcome in outcomes}
    compared = linear_datamodeling_scores({_EXACT: exact, **named}, truth.members, truth.losses, _EXACT, _DRAWS)
    print(f"{_EXACT}: {compared.mean[_EXACT]}; {truth.losses.shape[1]} models")
    widest, taken = max(asked.widths), {budget: automatic_width(inputs, own, budget) for budget in asked.bytes}
    found = []
    for (width, outcome), name in zip(outcomes, named, strict=True):
        mean, behind, budget = compared.mean[name], compared.differences[name], int(name.split()[1])
        found.append(
            {
                "model": asked.model,
                "widths": "whole" if width == widest else f"at most {width}",
                "budget": budget,
                "bytes": outcome.bytes_per_example,
                "lds": mean.value,
                "low": mean.low,
                "high": mean.high,
                "behind": behind.value,
                "behind_low": behind.low,
                "behind_high": behind.high,
                "auto": "yes" if min(taken[budget], widest) == width else "",
                **agreement(named[name], exact),
            }
        )
    return found


def main() -> None:
    """Try the recipes on the project of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, help="lorif.toml of an evaluated project; default: as `lorif` finds it")
    parser.add_argument("--model", required=True, help="the model's name in tables and in the picture")
    parser.add_argument("--query-set", default="held-out")
    parser.add_argument("--layers", nargs="*", default=["*attn*", "*mlp*"])
    parser.add_argument("--widths", type=int, nargs="*", default=[64, 128, 256, 512], help="the last one: sides whole")
    parser.add_argument("--bytes", type=int, nargs="*", default=[800, 1_600, 3_200, 6_400])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results/agreement_against_lds.json")
    asked = parser.parse_args()
    project = Project.open(asked.project)
    with project.devices.lease() as group:
        name = project.checkpoints.find()[-1].name
        stored = StoredCheckpoint.read(project.lake, name, project.settings.recipe)
        attributed = stored.load(project.checkpoints, group).model
        found = points(MethodInputs.load(project, attributed, [asked.query_set]), asked)
    print(markdown_table(_COLUMNS, found))
    earlier = json.loads(asked.output.read_text())["results"] if asked.output.is_file() else []
    kept = [row for row in earlier if row["model"] != asked.model]
    asked.output.write_text(json.dumps({**machine(), "results": [*kept, *found]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
