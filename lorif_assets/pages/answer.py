"""The leading proponents and opponents of one completion: their rows, and how a notebook shows them."""

from collections.abc import Mapping

import polars as pl

from lorif_assets.attribution.scores.score_rows import LOWEST
from lorif_assets.pages.environment import page_environment
from lorif_assets.pages.passages import WITHDRAWN

_TEMPLATE = "answer.html.jinja"


def proponents(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the highest scores of one query's rows, by rank."""
    return scores.filter(pl.col("side") != LOWEST).sort("rank")


def opponents(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the lowest scores of one query's rows, by rank, also where all pairs are in one ranking."""
    lowest = scores.filter(pl.col("side") == LOWEST)
    if lowest.is_empty():
        lowest = scores.with_columns(rank=pl.col("rank").max() - pl.col("rank") + 1)
    return lowest.sort("rank")


def answer_html(prompt: str, completion: str, details: str, sides: Mapping[str, pl.DataFrame], n_rows: int) -> str:
    """Return what a notebook shows.

    Args:
        prompt: what came before the completion.
        completion: what the model said.
        details: loss and the like, in a line.
        sides: by title, rows with rank, score, example_id and text.
        n_rows: rows to show of each side.
    """
    environment = page_environment("lorif_assets.pages")
    rows = {title: side.head(n_rows).to_dicts() for title, side in sides.items()}
    return environment.get_template(_TEMPLATE).render(
        prompt=prompt, completion=completion, details=details, sides=rows, withdrawn=WITHDRAWN
    )
