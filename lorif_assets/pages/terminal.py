"""Influences as tables in a terminal."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

import polars as pl
from rich.console import Console
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from lorif_assets.attribution.scores.stored_rankings import Ranking
from lorif_assets.data.content.query_objectives import effects
from lorif_assets.data.near_duplicates import near_duplicates
from lorif_assets.data.passages import passage_metadata
from lorif_assets.pages.answer import opponents, proponents
from lorif_assets.pages.passages import WITHDRAWN, visible
from lorif_assets.pages.token_colours import LEVELS, ScoredToken, n_left_out, pair_tokens, token_runs

_MOST_CHARACTERS = 220
_MOST_TOKENS = 400
_SHOWN_TOKENS = 3


def print_influences(
    console: Console, table: pl.DataFrame, n_rows: int, ranking: Ranking = "plain", asked: Container[str] = ()
) -> None:
    """Print the leading proponents and opponents of one query.

    Args:
        console: where to print.
        table: scores of one query with what the examples say, as `with_passages` gives them.
        n_rows: rows to print of each side.
        ranking: that the table's ranks are of.
        asked: what the query asks about, as its objective has it; nothing where that is the loss of a completion.
    """
    column, which = ("score", "") if ranking == "plain" else ("relative_score", ", for their size")
    for title, style, rows in _sides(table, asked, which):
        printed = Table(title=title, title_justify="left", expand=True, title_style=style)
        printed.add_column("#", justify="right", width=3)
        printed.add_column("score", justify="right", width=9)
        printed.add_column("example", max_width=min(28, console.width // 3), overflow="fold")
        printed.add_column("text", ratio=1, overflow="fold")
        listed = rows.head(n_rows).to_dicts()
        for first, *others in near_duplicates([row["text"] or f"{WITHDRAWN} {row['rank']}" for row in listed]):
            row = listed[first]
            about = ", ".join(str(value) for value in passage_metadata(row).values())
            text = WITHDRAWN if row["text"] is None else " ".join(row["text"].split())
            printed.add_row(
                str(row["rank"]),
                f"{row[column]:.3g}",
                Text(f"{row['example_id']}\n{about}" if about else row["example_id"]),
                Text(text[:_MOST_CHARACTERS] + (" ..." if len(text) > _MOST_CHARACTERS else ""))
                + Text(_near([listed[at] for at in others]), "dim"),
            )
        console.print(printed)


def _near(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return in words which rows are folded under one that ranks higher."""
    said = ", ".join(f"{row['rank']} {row['example_id']}" for row in rows)
    return f"\nnear-duplicates at rank {said}" if rows else ""


def print_tokens(
    console: Console, table: pl.DataFrame, tokens: pl.DataFrame, n_rows: int, asked: Container[str] = ()
) -> None:
    """Print the leading proponents and opponents of one query with their tokens coloured, and beside each the query's.

    Args:
        console: where to print.
        table: scores of one query.
        tokens: rows of the same pairs' tokens, as `token_scores` has them.
        n_rows: pairs to print of each side.
        asked: what the query asks about, as its objective has it; nothing where that is the loss of a completion.
    """
    console.print(
        Text.assemble("Tokens in ", (" blue ", _colour(LEVELS)), " raise the score, in ", (" red ", _colour(-LEVELS)))
        + Text(" lower it; the strongest colour is the largest share.")
    )
    for title, style, rows in _sides(table, asked, ""):
        console.print(Text(title, style))
        for row in rows.head(n_rows).iter_rows(named=True):
            of_pair = tokens.filter(pl.col("shard") == row["shard"], pl.col("example_id") == row["example_id"])
            head = f"{row['rank']:>3} {row['score']:>10.3g}  {row['example_id']}"
            if of_pair.is_empty():
                console.print(Text(f"{head}  {WITHDRAWN}"))
                continue
            pair = pair_tokens(of_pair)
            console.print(
                Text(f"{head}  (from uncompressed gradients, this checkpoint alone: {pair.exact_score:.3g})", "bold")
            )
            for side, of_side in (("example", pair.example), *(("query", term) for term in pair.query)):
                line = Text(f"{side}: ", "dim") + _coloured(of_side) + Text(f"\n  most: {_leading(of_side)}", "dim")
                console.print(Padding(line, (0, 0, 0, 4)))


def _sides(table: pl.DataFrame, asked: Container[str], which: str) -> Sequence[tuple[str, str, pl.DataFrame]]:
    """Return title, colour and rows of either side; the lowest scores of a query may all be positive, and raised nothing."""
    effect = effects(asked)
    above, below = proponents(table).filter(pl.col("score") > 0), opponents(table).filter(pl.col("score") < 0)
    return (
        (f"proponents: training on them {effect.proponents}{which}", "green", above),
        (f"opponents: training on them {effect.opponents}{which}", "red", below),
    )


def _coloured(tokens: Sequence[ScoredToken]) -> Text:
    text = Text()
    for run in token_runs(tokens, _MOST_TOKENS):
        text.append(visible(run.text), "dim" if run.score is None else _colour(run.level))
    if left_out := n_left_out(tokens, _MOST_TOKENS):
        text.append(f" ... {left_out} more tokens", "dim")
    return text


def _leading(tokens: Sequence[ScoredToken]) -> str:
    """Return the tokens with the largest shares in words, for a terminal without colours too."""
    scored = sorted(((abs(t.score), t) for t in tokens if t.score is not None), key=lambda pair: -pair[0])
    return ", ".join(f"{visible(token.text)!r} {token.score:+.3g}" for _, token in scored[:_SHOWN_TOKENS])


def _colour(level: int) -> Style:
    """A background that is the stronger, the larger the share."""
    if not level:
        return Style()
    shade = 255 - round(abs(level) / LEVELS * 150)
    red, green, blue = (shade, shade, 255) if level > 0 else (255, shade, shade)
    return Style(color="black", bgcolor=f"#{red:02x}{green:02x}{blue:02x}")
