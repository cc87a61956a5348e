"""Agreement with exact EK-FAC, where it is among the methods."""

import numpy as np
import pytest

from lorif_assets.attribution.stored.versions import datamodeling_version
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.evaluation.ekfac_agreement import agreement_figures
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores

EXACT = np.array([[3.0, 2.0, 1.0, -1.0]], dtype=np.float32)
TURNED = EXACT[:, [1, 0, 2, 3]]


def scored(**by_method):
    return EvaluatedScores(["q"], list("abcd"), by_method, "v")


def value(figures, method):
    (found,) = (f.value for f in figures if f.statistic == "mean" and f.method == method)
    return found


def test_the_gains_are_the_exact_scores_of_the_first_places():
    figures = agreement_figures(scored(lorif=TURNED, bm25=EXACT, ekfac=EXACT), 100)
    discounts = 1 / np.log2([2, 3, 4])
    assert value(figures, "bm25") == pytest.approx(1)
    assert value(figures, "lorif") == pytest.approx([2, 3, 1] @ discounts / ([3, 2, 1] @ discounts))
    assert {f.method for f in figures} == {"lorif", "bm25"}
    assert {f.metric for f in figures} == {"ndcg_at_20"}


def test_without_exact_ekfac_or_anything_beside_it_there_is_nothing_to_agree_with():
    assert agreement_figures(scored(lorif=EXACT), 100) == []
    assert agreement_figures(scored(ekfac=EXACT), 100) == []


def test_only_evaluations_that_compare_exact_ekfac_are_out_of_date_for_it():
    plain, compared = EvaluationSettings(), EvaluationSettings(methods=("lorif", "ekfac"))
    assert datamodeling_version(plain, "s", "g") != datamodeling_version(compared, "s", "g")
    assert datamodeling_version(plain, "s", "g") == datamodeling_version(
        EvaluationSettings(methods=("lorif",)), "s", "g"
    )
