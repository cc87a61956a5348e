"""The answer: which training examples made the model say a completion."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from lorif_assets.attribution.pairs.token_rows import TOKEN_ROWS
from lorif_assets.attribution.scores.group_sums import group_sums
from lorif_assets.attribution.scores.score_queries import QueryScores
from lorif_assets.attribution.scores.stored_rankings import WHEN_WHICH, Ranking
from lorif_assets.data.content.query_objectives import SCALAR, asks_for_loss, effects, value_name
from lorif_assets.data.passages import asked_and_said, passage_metadata
from lorif_assets.pages.answer import answer_html, opponents, proponents
from lorif_assets.pages.cut_notice import cut_notice
from lorif_assets.pages.passages import WITHDRAWN

_SHOWN = 5
_LINE_CHARACTERS = 80
_COLUMNS = ("side", "rank", "score", "shard", "example_id", "text", "metadata")
_RELATIVE_COLUMNS = ("side", "rank", "relative_score", *_COLUMNS[2:])
_TOKEN_COLUMNS = tuple(name for name in TOKEN_ROWS if name != "query_id")
_FIGURES = ("score_mean", "score_std", "top_10_share", "top_100_share")


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """What one completion was traced to.

    A larger score means that training on the example made the completion more likely, or of a scalar raised it more.
    """

    prompt: str
    completion: str
    checkpoint: str
    """The checkpoint's name, or that of the model's class where there is no lake."""
    loss: float
    """Of the completion, summed over its tokens, in nats."""
    n_target_tokens: int
    """Tokens of the completion that carry loss."""
    n_examples: int
    """Training examples that were scored."""
    figures: Mapping[str, float]
    """score_mean and score_std over all examples; top_10_share and top_100_share, the share (0 to 1) of all positive scores
    that the 10 and 100 highest hold."""
    table: pl.DataFrame = field(compare=False)
    """One row per listed example: side (highest, lowest; all where every example was asked for), rank from 1, score, shard,
    example_id, text and metadata (JSON); text and metadata are null where the example was withdrawn meanwhile."""
    relative: pl.DataFrame = field(compare=False)
    """The same for the ranking by relative influence, the score over the example's size, in a column `relative_score`: what
    is specific to the completion. Only the two ends of that ranking are listed."""
    tokens: pl.DataFrame = field(compare=False)
    """What single tokens contributed, where it was asked for: a row for every token of a listed example (side "example") and,
    beside each, of what was asked about ("query"), with shard, example_id, position, token_id, token and score, its share of
    `exact_score`, which either side sums to: the score from uncompressed gradients. `stored_score` is that in `table`."""
    objective: Mapping[str, Any]
    """What was asked about, where that is not the completion's loss, by the field of a query file; `loss` is then its value."""
    notice: str | None = None
    """A sentence on what was cut of the question, where it is too long for the model: the answer is to what was left of it."""

    @classmethod
    def of(
        cls,
        scored: QueryScores,
        query_id: str,
        with_texts: Callable[[pl.DataFrame], pl.DataFrame],
        row: Mapping[str, Any],
        checkpoint: str,
    ) -> "Attribution":
        """Return the answer for one of the queries that were scored, whose row says what was asked.

        `with_texts` adds text and metadata to rows.
        """
        prompt, completion = asked_and_said(row)
        (summary,) = scored.summaries.filter(pl.col("query_id") == query_id).to_dicts()
        return cls(
            prompt=prompt,
            completion=completion,
            checkpoint=checkpoint,
            loss=summary["loss"],
            n_target_tokens=summary["n_target_tokens"],
            n_examples=summary["n_examples"],
            figures={name: summary[name] for name in _FIGURES},
            table=with_texts(scored.scores.filter(pl.col("query_id") == query_id)).select(_COLUMNS),
            relative=with_texts(scored.relative.filter(pl.col("query_id") == query_id)).select(_RELATIVE_COLUMNS),
            tokens=scored.tokens.filter(pl.col("query_id") == query_id).select(_TOKEN_COLUMNS),
            objective=json.loads(row.get("objective") or "{}"),
            notice=cut_notice(scored.cuts.get(query_id, ())),
        )

    def by(self, column: str) -> pl.DataFrame:
        """Return the influence of the listed examples summed by a column of their metadata.

        Ask with `top_k="all"` for sums over all training examples.

        Args:
            column: its name.

        Returns:
            value, n_examples, score_sum, score_mean, its standard_error, and low and high, a 95 % interval of the sum by
            the standard error; the largest sum first. The last three are null where not all examples are listed: those at
            the ends were chosen by their scores.
        """
        rows = self.table.select("score", "metadata", query_id=pl.lit(""))
        sums = group_sums(rows, column).drop("query_id", "column")
        if self.table["shard", "example_id"].n_unique() >= self.n_examples:
            return sums
        return sums.with_columns(pl.lit(None, pl.Float64).alias(name) for name in ("standard_error", "low", "high"))

    @property
    def proponents(self) -> pl.DataFrame:
        """The listed examples that speak for the completion most, by rank."""
        return proponents(self.table)

    @property
    def opponents(self) -> pl.DataFrame:
        """The listed examples that speak against it most, by rank."""
        return opponents(self.table)

    @property
    def relative_proponents(self) -> pl.DataFrame:
        """The listed examples that speak for the completion most for their size, by rank."""
        return proponents(self.relative)

    @property
    def relative_opponents(self) -> pl.DataFrame:
        """The listed examples that speak against it most for their size, by rank."""
        return opponents(self.relative)

    @property
    def loss_per_token(self) -> float:
        """Mean loss of the completion's tokens, in nats; NaN where something other than a loss was asked about."""
        return self.loss / self.n_target_tokens if asks_for_loss(self.objective) else math.nan

    @property
    def value(self) -> str:
        """What `loss` is, and how much."""
        unit = "" if SCALAR in self.objective else " nats"
        return f"{value_name(self.objective)} {self.loss:.2f}{unit}"

    def rows(self, n_rows: int, ranking: Ranking = "plain") -> pl.DataFrame:
        """The first proponents, then the first opponents, of a ranking, with their sides named so.

        Args:
            n_rows: of each side.
            ranking: "plain", by score; or "relative", by relative influence.
        """
        table = self.table if ranking == "plain" else self.relative
        sides = {"proponent": proponents(table), "opponent": opponents(table)}
        return pl.concat(rows.head(n_rows).with_columns(side=pl.lit(side)) for side, rows in sides.items())

    def as_json(self, n_rows: int, ranking: Ranking = "plain") -> dict[str, Any]:
        """The answer as JSON values, with the first rows of each side of a ranking; metadata as objects."""
        rows = self.rows(n_rows, ranking)
        return {
            "checkpoint": self.checkpoint,
            "prompt": self.prompt,
            "completion": self.completion,
            "loss": self.loss,
            "objective": self.objective,
            "n_target_tokens": self.n_target_tokens,
            "n_examples": self.n_examples,
            "notice": self.notice,
            **self.figures,
            "ranking": ranking,
            **{
                f"{side}s": [
                    {**row, "metadata": passage_metadata(row)}
                    for row in rows.filter(pl.col("side") == side).drop("side").iter_rows(named=True)
                ]
                for side in ("proponent", "opponent")
            },
        }

    def __repr__(self) -> str:
        lines = [f"Attribution of {_line(self.prompt + self.completion)!r}", f"  {self._about}"]
        for title, rows, column in (
            ("proponents", self.proponents, "score"),
            ("opponents", self.opponents, "score"),
            ("relative proponents", self.relative_proponents, "relative_score"),
        ):
            lines.append(f"  {title}:")
            lines += [
                f"  {row['rank']:>4} {row[column]:>10.3g}  {row['example_id']}  {_line(row['text'] or WITHDRAWN)}"
                for row in rows.head(_SHOWN).iter_rows(named=True)
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        effect = effects(self.objective)
        sides = {
            f"Proponents: training on them {effect.proponents}": self.proponents,
            f"Opponents: training on them {effect.opponents}": self.opponents,
            f"Relative proponents: {WHEN_WHICH['relative']}": self.relative_proponents.with_columns(
                score="relative_score"
            ),
        }
        return answer_html(self.prompt, self.completion, self._about, sides, 2 * _SHOWN)

    @property
    def _about(self) -> str:
        # Each completion of a contrast or a weighted set has tokens of its own.
        tokens = f" over {self.n_target_tokens} tokens" if asks_for_loss(self.objective) else ""
        about = f"{self.checkpoint}: {self.value}{tokens}, {self.n_examples:,} examples scored"
        return f"{about}. {self.notice}" if self.notice else about


def _line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LINE_CHARACTERS else f"{words[: _LINE_CHARACTERS - 4]} ..."
