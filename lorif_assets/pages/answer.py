"""The leading proponents and opponents of one completion: their rows, and how a notebook shows them."""

from collections.abc import Mapping

import polars as pl

from lorif_assets.attribution.score_queries import LOWEST
from lorif_assets.pages.environment import page_environment

WITHDRAWN = "(no longer in the training data)"
_TEMPLATE = "answer.html.jinja"


def proponents(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the highest scores of one query's rows, by rank."""
    return scores.filter(pl.col("side") != LOWEST).sort("rank")


def opponents(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the lowest scores of one query's rows, by rank, also where every pair stands in one ranking."""
    lowest = scores.filter(pl.col("side") == LOWEST)
    if lowest.is_empty():
        lowest = scores.with_columns(rank=pl.col("rank").max() - pl.col("rank") + 1)
    return lowest.sort("rank")


def answer_html(prompt: str, completion: str, about: str, sides: Mapping[str, pl.DataFrame], shown: int) -> str:
    """Return what a notebook shows.

    Args:
        prompt: what was asked.
        completion: what was said.
        about: loss and the like, in a line.
        sides: by title, rows with rank, score, example_id and text.
        shown: rows of each side.
    """
    environment = page_environment("lorif_assets.pages")
    rows = {title: side.head(shown).to_dicts() for title, side in sides.items()}
    return environment.get_template(_TEMPLATE).render(
        prompt=prompt, completion=completion, about=about, sides=rows, withdrawn=WITHDRAWN
    )
