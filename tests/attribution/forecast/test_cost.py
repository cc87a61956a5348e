"""What `lorif doctor` says attribution will cost is what it does cost."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from lorif_assets.attribution.forecast.cost import CostEstimate, estimate
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.attribution_tables import (
    EKFAC_PRECONDITIONERS,
    GRADIENT_FACTORS,
    KFAC_BASES,
    SVD_PRECONDITIONERS,
)
from lorif_assets.mathematics.gradients.layers import LayerError
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject


def estimated(project: TinyProject, recipe: Recipe, n_examples: int = 36) -> CostEstimate:
    checkpoints = project.opened.checkpoints
    return estimate(checkpoints.skeleton(checkpoints.get(CHECKPOINTS[0])), recipe, n_examples, len(SHARDS))


def test_estimated_bytes_of_factors_are_those_written(tiny_project: TinyProject) -> None:
    cost = estimated(tiny_project, tiny_project.settings.recipe)
    written = [tiny_project.figures("gradient_factors", f"{CHECKPOINTS[0]}|{shard}") for shard in SHARDS]
    assert {figures["bytes_per_example"] for figures in written} == {cost.bytes_per_example}
    assert sum(figures["bytes"] for figures in written) == cost.factor_bytes


def test_estimated_bytes_of_curvature_are_those_of_the_stored_tensors(tiny_project: TinyProject) -> None:
    cost = estimated(tiny_project, tiny_project.settings.recipe)
    states = tiny_project.table(SVD_PRECONDITIONERS, checkpoint=CHECKPOINTS[0])["state_uri"]
    tensors = [tensor for uri in states for tensor in tiny_project.lake.read_tensors(uri).values()]
    assert sum(tensor.nbytes for tensor in tensors) == cost.curvature_bytes
    assert max(tensor.to(torch.float64).nbytes for tensor in tensors) == cost.largest_state_bytes


def test_estimated_bytes_of_ekfac_are_those_written(ekfac_project: TinyProject) -> None:
    project, name = ekfac_project, CHECKPOINTS[0]
    cost = estimated(project, project.settings.recipe)
    written = project.figures("gradient_factors", f"{name}|{SHARDS[0]}")
    assert cost.bytes_per_example == written["bytes_per_example"]

    def tensor_bytes(*uris: str) -> int:
        return sum(tensor.nbytes for uri in uris for tensor in project.lake.read_tensors(uri).values())

    sums = project.table(EKFAC_PRECONDITIONERS, checkpoint=name)
    assert cost.curvature_bytes == tensor_bytes(*sums["state_uri"], *project.table(KFAC_BASES, checkpoint=name)["uri"])
    folders = project.table(GRADIENT_FACTORS, checkpoint=name)["fisher"].unique()
    files = [f"{folder}/{layer}.safetensors" for folder in folders for layer in sums["layer"]]
    assert cost.fisher_bytes == tensor_bytes(*files)
    assert cost.factor_passes == 0


def test_the_sizes_of_a_recipe_worked_out_by_hand(tiny_project: TinyProject) -> None:
    recipe = Recipe(
        curvature="svd",
        include_layers=("*.attn.c_attn",),
        projection_factor=4,
        rank=2,
        factor_dtype="fp32",
        r=5,
        oversample=1,
    )
    cost = estimated(tiny_project, recipe, n_examples=1_000)
    # Two layers of 16 -> 48, projected to d1 = 4, d2 = 12: D = 48.
    assert asdict(cost) == {
        "n_layers": 2,
        "gradient_numbers": 2 * 48,
        "bytes_per_example": 2 * 2 * (4 + 12) * 4,
        "decoded_numbers": 2 * 2 * (4 + 12),
        "factor_bytes": 1_000 * 2 * 2 * (4 + 12) * 4,
        "curvature_bytes": 2 * 48 * (6 + 6 + 5) * 4,
        "largest_state_bytes": 48 * 6 * 8,
        "bytes_per_query": 2 * 48 * 4,
        "factor_passes": 1,
        "fisher_bytes": 0,
        # Nothing is projected: both bases, and the eigenvalues in FP64.
        "whole_inverse_bytes": 2 * (4 * (16 * 16 + 48 * 48) + 8 * 16 * 48),
        "n_shards": 3,
        "n_parameters": 280 * 16 + 64 * 16 + 2 * (32 + 816 + 272 + 32 + 1_088 + 1_040) + 32,
        "whitens": False,
    }
    # Six numbers for each parameter and token would count the gradients of weights, which nothing asks for.
    assert cost.operations(1_000) == 4 * cost.n_parameters * 1_000


@pytest.mark.parametrize("name", ["tiny_project", "ekfac_project"])
def test_estimated_files_and_commits_are_those_made(name: str, request: pytest.FixtureRequest) -> None:
    project: TinyProject = request.getfixturevalue(name)
    recipe, root = project.settings.recipe, Path(project.lake.root)
    cost = estimated(project, recipe)
    tables = [GRADIENT_FACTORS, *([KFAC_BASES] if recipe.whitens else []), curvature_of(recipe).table]
    written = [*root.glob("gradient_factors/**/*.parquet")]
    for folder in ("curvature_states", "kfac_bases_tensors", "fisher_sums"):
        written += root.glob(f"{folder}/**/*.safetensors")
    assert len(written) == len(CHECKPOINTS) * cost.objects
    made = [table.version() for schema in tables if (table := project.lake.table(schema))]
    # Making a table is its version 0.
    assert sum(made) == len(CHECKPOINTS) * cost.commits


def test_ranks_beyond_a_layer_cost_no_more_than_the_layer(tiny_project: TinyProject) -> None:
    largest = estimated(tiny_project, Recipe(curvature="svd", projection_factor=4, rank=4, r=48, oversample=0))
    beyond = estimated(tiny_project, Recipe(curvature="svd", projection_factor=4, rank=200, r=100_000))
    assert beyond.bytes_per_example == largest.bytes_per_example
    assert beyond.curvature_bytes >= largest.curvature_bytes


def test_refinements_are_further_passes(tiny_project: TinyProject) -> None:
    assert estimated(tiny_project, Recipe(curvature="svd", refinements=2)).factor_passes == 3


def test_an_unknown_layer_pattern_is_an_error(tiny_project: TinyProject) -> None:
    with pytest.raises(LayerError, match="layer pattern 'nothing' matches none"):
        estimated(tiny_project, Recipe(include_layers=("nothing",)))
