"""The content of a page on which everything was measured, with invented figures."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lorif_assets.mathematics.evaluation.intervals import Estimate
from lorif_assets.mathematics.evaluation.roc import FALSE_POSITIVE_RATES
from lorif_assets.mathematics.gradients.projection import Projection
from lorif_assets.pages.evaluation import method_plots, recipe_plots
from lorif_assets.pages.evaluation.content import (
    Cost,
    EvaluationContent,
    GroundTruthFigures,
    Interval,
    Measured,
    QueryScatter,
    RecipeTrial,
    Removal,
    Retrieval,
    Selected,
)

HOSTILE = "<script>alert('x')</script>"
METHODS = ("lorif", "dense_logra", "bm25", "random")
Make = Callable[..., EvaluationContent]

LDS = Measured(
    means={
        "lorif": Interval(0.31, 0.25, 0.36),
        "dense_logra": Interval(0.36, 0.3, 0.42),
        "bm25": Interval(0.3, 0.2, 0.4),
        "random": Interval(0.01, -0.05, 0.06),
    },
    differences={
        "dense_logra": Interval(-0.05, -0.08, -0.02),
        "bm25": Interval(0.01, -0.06, 0.09),
        "random": Interval(0.3, 0.22, 0.37),
    },
    per_query=dict.fromkeys(METHODS, (0.1, 0.4, -0.2)),
)


def trial(bytes_per_example: float, r: int, **changes: object) -> RecipeTrial:
    made = RecipeTrial(
        curvature="svd",
        projection=Projection(factor=4, seed=0),
        rank=1,
        r=r,
        damping=1.0,
        curvature_form="tail_corrected",
        factor_dtype="bf16",
        bytes_per_example=bytes_per_example,
        n_examples=500,
        lds=Interval(0.2 + r / 1000, 0.1, 0.4),
        agreement=0.8,
        seconds=2.0,
    )
    return replace(made, **changes)


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> Make:
    """A page's content with some of it changed. Pictures are not drawn."""
    monkeypatch.setattr("lorif_assets.pages.look.png", lambda figure: b"")
    for plots in (method_plots, recipe_plots):
        for name in [name for name in vars(plots) if name.endswith("_figure")]:
            monkeypatch.setattr(plots, name, lambda *content: None)

    def make(**changes: object) -> EvaluationContent:
        made = EvaluationContent(
            checkpoint="step-000600",
            query_set="questions",
            model_type="gpt2",
            n_parameters=1_000_000,
            step=600,
            n_examples=3_000,
            n_queries=3,
            lds=LDS,
            ground_truth=GroundTruthFigures(50, 100, 0.4, 0.571, 0.756),
            costs={
                method: Cost(float(size), 1.5, 0.25)
                for method, size in zip(METHODS, (2048, 49152, 424, 0), strict=True)
            },
            scatters=(QueryScatter("best", "q0", "The with statement", " ends.", "lorif", 0.4, (-1, 1), (0.5, -0.5)),),
            tail_patch=Measured(
                {method: Interval(0.004, 0.003, 0.005) for method in METHODS},
                {method: Interval(0.0, -0.001, 0.001) for method in METHODS[1:]},
                {},
            ),
            retrieval=Retrieval(
                {"recall_at_10": Measured({method: Interval(0.75) for method in METHODS}, {}, {})},
                {method: tuple(FALSE_POSITIVE_RATES.tolist()) for method in METHODS},
                2,
                3_000,
            ),
            removals=(
                Removal("lorif", 100, (0.11, 0.13)),
                Removal("random", 100, (0.01, 0.02)),
            ),
            selections=(
                Selected(
                    300,
                    3,
                    {"lorif": Estimate(2.5, 2.25, 2.75), "bm25": Estimate(3.0, 2.5, 3.5)},
                    {"bm25": Estimate(0.5, 0.25, 0.75)},
                ),
            ),
            trials=(trial(1024, 32), trial(1024, 64), trial(2048, 64, damping=0.1)),
            missing=(),
            stale_results=(),
            created=datetime(2026, 1, 2, tzinfo=UTC),
            provenance={"weights": "abc"},
            version="v1",
        )
        return replace(made, **changes)

    return make
