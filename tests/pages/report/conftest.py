"""A report with two queries, hostile text in every place that data can reach, and numbers that are not finite."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from lorif_assets.data.passages import Part
from lorif_assets.pages.report.content import Influence, LayerSpectrum, QueryInfluences, ReportContent, WhitenedLayer

HOSTILE = '<script>alert("x")</script>'


def influence(rank: int, score: float, **changes: Any) -> Influence:
    made = Influence(
        rank, f"docs/{rank:03d}", "docs-00000", score, (Part(f"Passage number {rank}.", True),), {"topic": "with"}
    )
    return replace(made, **changes)


def query(query_id: str, **changes: Any) -> QueryInfluences:
    made = QueryInfluences(
        query_id=query_id,
        prompt="The with statement",
        completion=" calls __exit__.",
        metadata={"topics": ["with"]},
        loss=6.0,
        n_target_tokens=3,
        n_examples=200,
        score_std=0.5,
        top_10_share=0.25,
        top_100_share=0.75,
        proponents=tuple(influence(rank, 1.0 / rank) for rank in range(1, 6)),
        opponents=tuple(influence(rank, -0.5 / rank, example_id=f"bad/{rank:03d}") for rank in range(1, 6)),
    )
    return replace(made, **changes)


def layer(number: int, **changes: Any) -> LayerSpectrum:
    made = LayerSpectrum(f"h.{number}.attn.c_attn", 8, 16, (4.0, 2.0, 1.0, 0.5), 10.0, 0.08, 4, 0.75)
    return replace(made, **changes)


def whitened(number: int, **changes: Any) -> WhitenedLayer:
    made = WhitenedLayer(f"h.{number}.attn.c_attn", 8, 16, (4.0, 2.0, 1.0), 32.0, 0.025, 3, 21, 0.4132)
    return replace(made, **changes)


@pytest.fixture
def report() -> Callable[..., ReportContent]:
    def make(**changes: Any) -> ReportContent:
        made = ReportContent(
            checkpoint="step-000600",
            query_set="python-questions",
            model_type="gpt2",
            n_parameters=1_234_567,
            step=600,
            n_examples=200,
            recipe={"projection factor": 4, "rank": 1, "damping": 1.0},
            layers=tuple(layer(number) for number in range(3)),
            queries=(query("first"), query("second")),
            created=datetime(2026, 1, 2, tzinfo=UTC),
            provenance={"weights": "abc"},
        )
        return replace(made, **changes)

    return make
