"""Attribution of a mixture of experts from end to end, in memory."""

from typing import Any

import numpy as np
import pytest

import lorif_assets
from tests.data.conftest import make_tokenizer
from tests.mathematics.gradients.families import tiny_model


@pytest.mark.parametrize("recipe", [{"curvature": "ekfac"}, {"curvature": "svd", "r": 4, "oversample": 2}])
def test_scores_of_a_mixture_of_experts_are_finite_though_some_experts_are_never_reached(
    recipe: dict[str, Any],
) -> None:
    model = tiny_model("mixtral", num_local_experts=16)
    rows = [{"id": str(i), "input_ids": [5 + i, 6 + i, 7 + i, 8 + i]} for i in range(6)]
    fitted = lorif_assets.fit(model, make_tokenizer(), rows, {**recipe, "projection_factor": 2})
    (found,) = fitted.attribute([{"id": "q", "input_ids": [9, 10, 11]}])
    scores = found.table["score"].to_numpy()
    assert np.isfinite(scores).all()
    assert np.abs(scores).max() > 0
