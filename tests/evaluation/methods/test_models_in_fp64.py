"""A checkpoint in FP64, taken as it is saved, is attributed, tried and evaluated, and its scores are those in FP32."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.evaluation.methods.dense import logra_scores
from lorif_assets.evaluation.methods.eogp import eogp_scores
from lorif_assets.evaluation.methods.gradients import gradient_scores
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.methods.recipe_trials import try_recipes
from lorif_assets.evaluation.methods.relatif import relatif_scores
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject, private_copy

NEWEST = CHECKPOINTS[-1]
WHITENED = {"whitening_rank": 3, "max_width": 16}


@pytest.fixture(params=[{}, WHITENED], ids=["whole", "by some eigenvectors"])
def project(request: pytest.FixtureRequest, ekfac_project: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    with private_copy(ekfac_project, tmp_path) as copied:
        yield copied.with_settings(
            active={"checkpoints": (NEWEST,)}, recipe={"model_dtype": "as_saved", **request.param}
        )


def in_fp64(project: TinyProject) -> None:
    folder = project.root / "checkpoints" / NEWEST
    weights, config = folder / "model.safetensors", folder / "config.json"
    doubled = {name: tensor.double() for name, tensor in load_file(weights).items()}
    save_file(doubled, weights, metadata={"format": "pt"})
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float64"}))


def scores(project: TinyProject) -> dict[str, np.ndarray]:
    project.update()
    recipe = project.settings.recipe
    stored = StoredCheckpoint.read(project.lake, NEWEST, recipe)
    attributed = stored.load(project.opened.checkpoints, DeviceGroup.of("cpu")).model
    inputs = MethodInputs.load(project.opened, attributed, [QUERY_SET])
    methods = [relatif_scores, gradient_scores, logra_scores, *([eogp_scores] if recipe.whitening_rank is None else [])]
    found = {name: of.scores for method in methods for name, of in method(inputs).items()}
    with Progress("", 1, "") as progress:
        trials = try_recipes(
            attributed, [recipe], inputs.examples.tokenized, inputs.queries.tokenized, project.settings.batch, progress
        )
    return {**found, "tried": trials.outcomes[0].scores.numpy()}


def test_scores_of_every_kind_are_those_in_fp32(project: TinyProject) -> None:
    single = scores(project)
    in_fp64(project)
    double = scores(project)
    assert double.keys() == single.keys() >= {"relatif", "trak", "dense_logra", "tried"}
    for name, expected in single.items():
        agreement = np.corrcoef(expected.ravel(), double[name].ravel())[0, 1]
        assert agreement > 0.99, f"{name}: {agreement}"
