"""What a selection of training data is asked for."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lorif_assets.errors import SettingsError
from lorif_assets.influences.choice import Amount, Choice
from lorif_assets.influences.ranked import Side
from lorif_assets.influences.set_influence import SetRanking

IDS_FILE = "ids.txt"
"""What a list of ids is called where it has no name yet."""
_RANKED_BY = ("query_sets", "queries", "query_weight", "by", "without_duplicates", "checkpoint")


def weighted_set(text: str) -> tuple[str, float]:
    """Return the name and the weight of a query set from NAME or NAME=WEIGHT.

    Raises:
        SettingsError: the weight is no number.
    """
    name, separator, weight = text.rpartition("=")
    if not separator:
        return text, 1.0
    try:
        return name, float(weight)
    except ValueError as error:
        raise SettingsError(f"{text!r} is no NAME=WEIGHT of a query set: a number is expected after =") from error


@dataclass(frozen=True, kw_only=True)
class WantedRows:
    """What is to be selected: exactly one of `top`, `bottom`, `weights` and `ids` is there.

    `query_sets` have a weight each, and `queries` are those of them that count; none: all. The amounts are shares ("10%") or
    numbers; `weights` names a column to write in place of leaving rows out; `ids` name rows, each by its id or as shard/id, and
    nothing is ranked. `sources`: those to select from; none: all.
    """

    query_sets: Mapping[str, float] = field(default_factory=dict)
    queries: tuple[str, ...] = ()
    query_weight: str | None = None
    ranking: SetRanking = "plain"
    top: object = None
    bottom: object = None
    weights: str | None = None
    ids: tuple[str, ...] = ()
    exclude: bool = False
    by: str | None = None
    without_duplicates: bool = False
    sources: tuple[str, ...] = ()
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("top", "bottom", "weights") if getattr(self, name) is not None]
        given += ["ids"] if self.ids else []
        if len(given) != 1:
            raise SettingsError(
                "a selection is of the `top` or the `bottom` of the ranking, of `weights` or of `ids`: name one, not "
                f"{' and '.join(given) or 'none'}"
            )
        if self.ids and (idle := [name for name in _RANKED_BY if getattr(self, name)]):
            raise SettingsError(
                f"`ids` name rows, and nothing is ranked: leave {' and '.join(f'`{name}`' for name in idle)} out"
            )
        if self.exclude and self.weights is not None:
            raise SettingsError(
                "`exclude` leaves out an end of the ranking, `weights` leave nothing out: name one of them"
            )
        _ = self.choice

    @property
    def choice(self) -> Choice | None:
        """The end of the ranking that is taken, or not; None where all get weights, or rows are named.

        Raises:
            SettingsError: its amount is none.
        """
        if self.weights is not None or self.ids:
            return None
        side, amount = (Side.PROPONENTS, self.top) if self.top is not None else (Side.OPPONENTS, self.bottom)
        return Choice(side, Amount.parse(amount), self.exclude)

    @property
    def command(self) -> str:
        """The command that selects the same; of ids, from a file that has them."""
        sets = [
            name if weight == 1 and "=" not in name else f"{name}={weight:g}"
            for name, weight in self.query_sets.items()
        ]
        options: dict[str, Sequence[object]] = {
            "--query-set": sets,
            "--query": self.queries,
            "--query-weight": [self.query_weight],
            "--checkpoint": [self.checkpoint],
            "--ranking": [] if self.ids else [self.ranking],
            "--top": [self.top],
            "--bottom": [self.bottom],
            "--weights": [self.weights],
            "--ids": [IDS_FILE] if self.ids else [],
            "--by": [self.by],
            "--source": self.sources,
        }
        words = [word for name, values in options.items() for value in values if value for word in (name, str(value))]
        flags = {"--exclude": self.exclude, "--without-duplicates": self.without_duplicates}
        return shlex.join(["lorif", "select", *words, *(name for name, is_set in flags.items() if is_set)])
