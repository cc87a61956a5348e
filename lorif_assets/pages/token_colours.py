"""Tokens with their shares of a score, as runs of text of one colour: five steps of more likely, and of less."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from lorif_assets.attribution.pairs.token_rows import EXAMPLE, QUERY
from lorif_assets.pages.cut_notice import cut_notice

LEVELS = 5
MOST_TOKENS = 1_500
"""Of one side, on a page."""
_WHITE_SPACE = {" ": "space", "\n": "line break", "\r": "line break", "\t": "tab"}


@dataclass(frozen=True)
class ScoredToken:
    """A token's text, and its share of a score; None where it carries no loss."""

    text: str
    score: float | None


@dataclass(frozen=True)
class TokenRun:
    """Adjacent tokens of one colour: `level` from -5 to 5, and the sum of their shares; None where they carry no loss."""

    text: str
    level: int
    score: float | None


@dataclass(frozen=True)
class PairTokens:
    """The tokens of a pair of query and example, each with its share of the score of uncompressed gradients."""

    example: tuple[ScoredToken, ...]
    query: tuple[tuple[ScoredToken, ...], ...]
    """Term by term of what the query asks about."""
    exact_score: float
    stored_score: float | None
    """None where no list has the pair."""
    notice: str | None = None
    """What was cut of the query or the example, where that is known."""


def pair_tokens(rows: pl.DataFrame) -> PairTokens:
    """Return the tokens of one pair from its rows of `token_scores`, with or without a stored score."""
    sides: dict[tuple[str, int], tuple[ScoredToken, ...]] = {
        (str(side), int(str(term))): tuple(ScoredToken(*row) for row in of_term.select("token", "score").iter_rows())
        for (side, term), of_term in rows.sort("term", "position").group_by("side", "term", maintain_order=True)
    }
    exact = rows["exact_score"][0]
    stored = rows["stored_score"][0] if "stored_score" in rows.columns else None
    terms = tuple(tokens for (side, _), tokens in sides.items() if side == QUERY)
    return PairTokens(sides[EXAMPLE, 0], terms, exact, stored, _notice(rows) if "cut" in rows.columns else None)


def _notice(rows: pl.DataFrame) -> str | None:
    cuts = {side: rows.filter(pl.col("side") == side)["cut"].drop_nulls().unique() for side in (QUERY, EXAMPLE)}
    said = cut_notice(cuts[QUERY]), cut_notice(cuts[EXAMPLE], "The example")
    return ". ".join(filter(None, said)) or None


def token_runs(tokens: Sequence[ScoredToken], most: int = MOST_TOKENS) -> list[TokenRun]:
    """Return the tokens as runs; the largest share by magnitude has the strongest colour. Tokens beyond `most` are left out."""
    largest = _largest(tokens)
    runs: list[list[ScoredToken]] = []
    last: tuple[int, bool] | None = None
    for token in tokens[:most]:
        kind = _level(token.score, largest), token.score is None
        if kind != last:
            runs.append([])
        runs[-1].append(token)
        last = kind
    return list(_joined(runs, largest))


def single_tokens(tokens: Sequence[ScoredToken]) -> list[TokenRun]:
    """Return the tokens one by one in the colours of `token_runs`."""
    largest = _largest(tokens)
    return [TokenRun(token.text, _level(token.score, largest), token.score) for token in tokens[:MOST_TOKENS]]


def spoken(text: str) -> str:
    """Return a token as a screen reader can say it: white space by its names, where it is nothing else."""
    if text.strip():
        return text.strip()
    return ", ".join(_WHITE_SPACE.get(character, "white space") for character in text) or "no text"


def n_left_out(tokens: Sequence[ScoredToken], most: int = MOST_TOKENS) -> int:
    """Return how many tokens `token_runs` leaves out."""
    return max(0, len(tokens) - most)


def _largest(tokens: Sequence[ScoredToken]) -> float:
    shares = (abs(token.score) for token in tokens if token.score is not None and math.isfinite(token.score))
    return max(shares, default=0.0)


def _joined(runs: Sequence[Sequence[ScoredToken]], largest: float) -> Iterator[TokenRun]:
    for run in runs:
        scores = [token.score for token in run if token.score is not None]
        text = "".join(token.text for token in run)
        yield TokenRun(text, _level(run[0].score, largest), math.fsum(scores) if scores else None)


def _level(score: float | None, largest: float) -> int:
    if score is None or not largest or not math.isfinite(score):
        return 0
    return round(LEVELS * score / largest)
