"""The answer: which training examples made the model say a completion."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from lorif_assets.attribution.score_queries import QueryScores
from lorif_assets.pages.answer import WITHDRAWN, answer_html, opponents, proponents

_SHOWN = 5
_LINE_CHARACTERS = 80
_COLUMNS = ("side", "rank", "score", "shard", "example_id", "text", "metadata")
_FIGURES = ("score_mean", "score_std", "top_10_share", "top_100_share")


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """What one completion was traced to.

    A larger score means that training on the example lowered the loss of the completion more.
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

    @classmethod
    def of(
        cls, scored: QueryScores, query_id: str, table: pl.DataFrame, prompt: str, completion: str, checkpoint: str
    ) -> "Attribution":
        """Return the answer for one of the queries that were scored; `table` has its rows with text and metadata."""
        (summary,) = scored.summaries.filter(pl.col("query_id") == query_id).to_dicts()
        return cls(
            prompt=prompt,
            completion=completion,
            checkpoint=checkpoint,
            loss=summary["loss"],
            n_target_tokens=summary["n_target_tokens"],
            n_examples=summary["n_examples"],
            figures={name: summary[name] for name in _FIGURES},
            table=table.select(_COLUMNS),
        )

    @property
    def proponents(self) -> pl.DataFrame:
        """The listed examples that speak for the completion most, by rank."""
        return proponents(self.table)

    @property
    def opponents(self) -> pl.DataFrame:
        """The listed examples that speak against it most, by rank."""
        return opponents(self.table)

    @property
    def loss_per_token(self) -> float:
        """Mean loss of the completion's tokens, in nats."""
        return self.loss / self.n_target_tokens

    def __repr__(self) -> str:
        lines = [f"Attribution of {_line(self.prompt + self.completion)!r}", f"  {self._about}"]
        for title, rows in (("proponents", self.proponents), ("opponents", self.opponents)):
            lines.append(f"  {title}:")
            lines += [
                f"  {row['rank']:>4} {row['score']:>10.3g}  {row['example_id']}  {_line(row['text'] or WITHDRAWN)}"
                for row in rows.head(_SHOWN).iter_rows(named=True)
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        sides = {
            "Proponents: training on them lowered the loss of this completion": self.proponents,
            "Opponents: training on them raised it": self.opponents,
        }
        return answer_html(self.prompt, self.completion, self._about, sides, 2 * _SHOWN)

    @property
    def _about(self) -> str:
        return (
            f"{self.checkpoint}: loss {self.loss:.2f} nats over {self.n_target_tokens} tokens, "
            f"{self.n_examples:,} examples scored"
        )


def _line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LINE_CHARACTERS else f"{words[: _LINE_CHARACTERS - 4]} ..."
