"""Rivals held against retraining at the same bytes: EOGP in its three forms, LoRIF's recipes, and EK-FAC as a ceiling.

    python benchmarks/rivals.py --project lorif.toml --others 'other/*.parquet' --bytes 800 1600 3200 6400

The project is an evaluated one: its subset losses are the ground truth. `--others` are examples of the same corpus that the
models were not trained on, with their text in the column `text`: EOGP's axes are fitted to them. Without it that form is left
out. Every method has the same layers. Nothing is stored in the lake; scores are kept in a folder beside the results, and a
second run goes on with those that are missing.
"""

import argparse
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from measurements import machine, markdown_table

from lorif_assets.api.rows import normalised_rows
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.fitting.whole_gradients import WholeGradients, inverse_bytes, unprojected
from lorif_assets.attribution.forecast.cost import stored_bytes_per_example
from lorif_assets.attribution.in_memory import InMemoryAttribution
from lorif_assets.config.recipe import Recipe
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.methods.dense_gradients import dense_gradients, dense_groups
from lorif_assets.evaluation.methods.ekfac_cg import conjugate_gradient_scores
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.evaluation.retraining.ground_truth import read_ground_truth
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.mathematics.evaluation.datamodeling import linear_datamodeling_scores
from lorif_assets.mathematics.evaluation.one_bit_codes import (
    PrincipalAxes,
    axes_by_layer,
    code_bytes,
    code_scores,
    energy,
    half_whitened,
    halves,
    random_coordinates,
)
from lorif_assets.mathematics.scores.ndcg import ndcg
from lorif_assets.progress import Progress
from lorif_assets.project import Project

_DRAWS, _FIRST = 1_000, 20
_EXACT, _CEILING = "EK-FAC", "EK-FAC + CG"
_OTHERS, _CROSSFIT, _RANDOM = "EOGP, axes of other examples", "EOGP, cross-fitted", "EOGP-R"
_AUTO, _WHITENED = "LoRIF, auto", "LoRIF, whitened"
_FP16_BYTES = 2
_ROUNDING = 1e-6
_COLUMNS = {
    "method": "{method}",
    "budget": "{budget:,}",
    "bytes / example": "{bytes:,}",
    "shared bytes / example": "{shared:,.0f}",
    "LDS": "{lds:.3f}",
    "95 % interval": "{low:.3f} to {high:.3f}",
    "LoRIF, auto more by": "{behind}",
    "NDCG@20 to EK-FAC": "{ndcg:.3f}",
}


@dataclass(frozen=True)
class Scored:
    """One method at one budget: its scores [Q, N], the bytes of an example, and those kept once for all."""

    method: str
    budget: int
    scores: torch.Tensor = field(repr=False)
    bytes_per_example: int
    shared_bytes: int

    @classmethod
    def kept(cls, folder: Path) -> "list[Scored]":
        """Return what earlier runs kept."""
        found = []
        for file in sorted(folder.glob("*.npz")):
            with np.load(file) as data:
                numbers = (int(data[name]) for name in ("budget", "bytes_per_example", "shared_bytes"))
                budget, stored, shared = numbers
                found.append(cls(str(data["method"]), budget, torch.from_numpy(data["scores"]), stored, shared))
        return found

    def keep(self, folder: Path) -> None:
        """Keep it for later runs."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            folder / f"{self.method} {self.budget}.npz", **{**vars(self), "scores": self.scores.numpy()}
        )


def whole_scores(
    inputs: MethodInputs, others: Sequence[TokenizedExample], budgets: Sequence[int], seed: int
) -> Iterator[Scored]:
    """Yield exact EK-FAC and the forms of EOGP at each budget; EK-FAC is fitted to the training examples."""
    attributed, batch = unprojected(inputs.attributed), inputs.settings.batch
    examples, queries = inputs.examples.tokenized, inputs.queries.tokenized
    shapes = attributed.record.layer_shapes
    whole = WholeGradients(attributed, examples, None)
    with Progress("EK-FAC of whole gradients", whole.fit_tokens, "tok") as progress:
        inverses = whole.curvature(batch, progress).inverses
    energies = {layer: energy(inverse) for layer, inverse in inverses.items()}
    dense = {layer: d1 * d2 for layer, (d1, d2) in shapes.items()}
    split = halves(len(examples), seed)
    most = {_OTHERS: len(others), _CROSSFIT: len(split[0]), _RANDOM: max(dense.values())}
    axes = {
        (name, budget): axes_by_layer(
            energies, {layer: min(width, most[name]) for layer, width in dense.items()}, budget
        )
        for name in most
        for budget in budgets
        if most[name]
    }
    exact = torch.zeros(len(queries), len(examples))
    totals = {key: torch.zeros_like(exact) for key in axes}
    with Progress("EOGP", len(shapes), "layers") as progress:
        for group in dense_groups(shapes, len(examples) + len(others)):
            found = [dense_gradients(attributed, group, rows, batch) for rows in (queries, examples, others)]
            for layer in group:
                gradients = torch.cat([rows.pop(layer) for rows in found])
                sizes = [len(queries), len(examples), len(others)]
                z_q, z, z_other = in_their_span(half_whitened(inverses[layer], gradients)).split(sizes)
                exact += z_q @ z.mT
                widest = {name: max(axes[name, budget][layer] for budget in budgets) for name, _ in axes}
                coordinates = _coordinates(layer, z_q, z, z_other, split, widest, seed)
                for (name, budget), counts in axes.items():
                    for rows, asked, given in coordinates[name]:
                        k = counts[layer]
                        totals[name, budget][:, rows] += code_scores(asked[:, :k], given[:, :k]) * _scale(
                            name, given, k
                        )
                progress.advance(1)
    bases = inverse_bytes(shapes.values())
    yield Scored(_EXACT, 0, exact, 0, bases)
    matrices = {_OTHERS: 1, _CROSSFIT: 2, _RANDOM: 0}
    for (name, budget), counts in axes.items():
        kept = matrices[name] * _FP16_BYTES * sum(counts[layer] * width for layer, width in dense.items())
        yield Scored(name, budget, totals[name, budget], code_bytes(counts), bases + kept)


def in_their_span(rows: torch.Tensor) -> torch.Tensor:
    """Return rows [m, at most m] that have the same dot products: all that axes of a PCA, and random ones, depend on."""
    if rows.shape[1] <= len(rows):
        return rows
    gram = (rows @ rows.mT).double()
    # Rows that repeat one another leave no more than rounding.
    gram.diagonal().add_(_ROUNDING * gram.diagonal().mean())
    return torch.linalg.cholesky(gram).float()


_Coordinates = Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""Positions of some examples, and the coordinates of the queries and of these examples along the same axes."""


def _coordinates(
    layer: str,
    z_q: torch.Tensor,
    z: torch.Tensor,
    z_other: torch.Tensor,
    split: tuple[torch.Tensor, torch.Tensor],
    widest: Mapping[str, int],
    seed: int,
) -> dict[str, _Coordinates]:
    """Return coordinates along as many axes as the largest budget pays for; smaller ones take the first of them."""
    everything = torch.arange(len(z))
    first, second = (_coordinates_along(z[half], widest[_CROSSFIT]) for half in split)
    crossed = [(half, along(z_q), along(z[half])) for half, along in zip(split, (second, first), strict=True)]
    random = (random_coordinates(rows, widest[_RANDOM], layer, seed) for rows in (z_q, z))
    found: dict[str, _Coordinates] = {_CROSSFIT: crossed, _RANDOM: [(everything, *random)]}
    if len(z_other):
        along = _coordinates_along(z_other, widest[_OTHERS])
        found[_OTHERS] = [(everything, along(z_q), along(z))]
    return found


def _coordinates_along(rows: torch.Tensor, count: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what gives coordinates along the leading axes of some rows."""
    axes = PrincipalAxes.fit(rows @ rows.mT, count)
    return lambda z: axes.coordinates(z @ rows.mT)


def _scale(name: str, coordinates: torch.Tensor, k: int) -> float:
    """Return what fewer random axes than were drawn are multiplied by, so that dot products keep their expectation."""
    return coordinates.shape[1] / k if name == _RANDOM else 1.0


def lorif_scores(inputs: MethodInputs, rows: pl.DataFrame, name: str, recipe: Recipe, budget: int) -> Iterator[Scored]:
    """Yield LoRIF in memory under a recipe, as `lorif_assets.attribute` computes it; nothing where the bytes are too few."""
    at = inputs.attributed.under(recipe)
    try:
        fitted = InMemoryAttribution.fit(at, rows, inputs.examples.tokenized, inputs.settings.batch)
    except SettingsError as error:
        print(f"{name} at {budget}: left out: {error}")
        return
    scores = fitted.scores(inputs.queries.tokenized)
    places = {example_id: place for place, example_id in enumerate(fitted.example_ids)}
    in_order = scores[:, [places[example_id] for example_id in inputs.examples.ids]]
    record, own = fitted.attributed.record, fitted.attributed.fitted_recipe
    shared = inverse_bytes(record.layer_shapes.values())
    yield Scored(name, budget, in_order, stored_bytes_per_example(record, own), shared)


def missing_scores(
    inputs: MethodInputs,
    others: Sequence[TokenizedExample],
    layers: Sequence[str],
    budgets: Sequence[int],
    kept: Collection[tuple[str, int]],
) -> Iterator[Scored]:
    """Yield every method at every budget that is not kept yet; ceilings have no budget."""
    own, seed = inputs.settings.recipe, inputs.settings.evaluation.seed
    fields = own.model_dump(include={"max_length", "append_eos", "model_dtype"}) | {"include_layers": tuple(layers)}

    def recipe(preset: str, budget: int) -> Recipe:
        return Recipe(preset=preset, bytes_per_example=budget, **fields)

    tracked = replace(inputs, attributed=inputs.attributed.under(recipe("auto", budgets[0])))
    forms = [_CROSSFIT, _RANDOM, *([_OTHERS] if others else [])]
    if (_EXACT, 0) not in kept or any((form, budget) not in kept for form in forms for budget in budgets):
        yield from whole_scores(tracked, others, budgets, seed)
    rows = inputs.lake.read(TRAINING_EXAMPLES).sort("shard", "row")
    for preset, name in (("auto", _AUTO), ("whitened", _WHITENED)):
        for budget in budgets:
            if (name, budget) not in kept:
                yield from lorif_scores(inputs, rows, name, recipe(preset, budget), budget)
    if (_CEILING, 0) not in kept:
        found = conjugate_gradient_scores(tracked)["ekfac_cg"]
        yield Scored(_CEILING, 0, torch.from_numpy(found.scores), 0, found.shared_bytes)


def figures(inputs: MethodInputs, query_set: str, scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Return what is shown of each method: differences are to LoRIF's automatic recipe at the same budget, paired."""
    truth = read_ground_truth(
        inputs.lake,
        query_set,
        subset_truth(inputs.settings, inputs.lake).expected_versions(query_set),
        inputs.queries.ids,
        inputs.examples.ids,
    )
    exact = next(one for one in scored if one.method == _EXACT).scores
    shown = []
    for reference in (one for one in scored if one.method == _AUTO):
        beside = [one for one in scored if one.budget in (reference.budget, 0)]
        by_name = {one.method: one.scores.numpy() for one in beside}
        comparison = linear_datamodeling_scores(by_name, truth.members, truth.losses, _AUTO, _DRAWS)
        for one in beside:
            mean, behind = comparison.mean[one.method], comparison.differences.get(one.method)
            shown.append(
                {
                    "method": one.method,
                    "budget": reference.budget,
                    "bytes": one.bytes_per_example,
                    "shared": one.shared_bytes / len(inputs.examples.ids),
                    "lds": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "behind": f"{behind.value:+.3f} ({behind.low:+.3f} to {behind.high:+.3f})" if behind else "",
                    "ndcg": float(ndcg(one.scores, exact, _FIRST).mean()),
                }
            )
    return shown


def other_examples(attributed: AttributedModel, pattern: str, known: set[str], most: int) -> Sequence[TokenizedExample]:
    """Return at most so many examples that are not among the training examples, by their texts, evenly spaced."""
    texts = pl.read_parquet(pattern, columns=["text"])["text"].unique(maintain_order=True)
    unknown = [text for text in texts if text not in known]
    chosen = unknown[:: max(1, len(unknown) // most)][:most]
    shard = normalised_rows(chosen, None, "other examples")
    return attributed.tokenized(shard.examples).examples


def main() -> None:
    """Compare the methods on the project of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, help="lorif.toml of an evaluated project; default: as `lorif` finds it")
    parser.add_argument("--query-set", default="held-out")
    parser.add_argument("--others", help="Parquet files with a column `text`")
    parser.add_argument("--layers", nargs="*", default=["*attn*", "*mlp*"])
    parser.add_argument("--bytes", type=int, nargs="*", default=[800, 1_600, 3_200, 6_400])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results/rivals.json")
    asked = parser.parse_args()
    project = Project.open(asked.project)
    with project.devices.lease() as group:
        name = project.checkpoints.find()[-1].name
        attributed = (
            StoredCheckpoint.read(project.lake, name, project.settings.recipe).load(project.checkpoints, group).model
        )
        inputs = MethodInputs.load(project, attributed, [asked.query_set])
        others: Sequence[TokenizedExample] = ()
        if asked.others:
            others = other_examples(attributed, asked.others, set(inputs.examples.texts), len(inputs.examples.ids))
        folder = asked.output.with_suffix("")
        scored = Scored.kept(folder)
        known = {(one.method, one.budget) for one in scored}
        for one in missing_scores(inputs, others, asked.layers, asked.bytes, known):
            if (one.method, one.budget) in known:
                continue
            print(f"{one.method} at {one.budget}: {one.bytes_per_example:,} bytes", flush=True)
            one.keep(folder)
            scored.append(one)
    shown = figures(inputs, asked.query_set, scored)
    print(markdown_table(_COLUMNS, shown))
    setting = {
        "checkpoint": name,
        "query_set": asked.query_set,
        "queries": len(inputs.queries.ids),
        "examples": len(inputs.examples.ids),
        "other_examples": len(others),
        "layers": asked.layers,
    }
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps({**machine(), **setting, "rivals": shown}, indent=1) + "\n")


if __name__ == "__main__":
    main()
