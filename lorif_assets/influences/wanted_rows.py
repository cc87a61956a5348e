"""What a selection of training data is asked for."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lorif_assets.errors import SettingsError
from lorif_assets.influences.choice import Amount, Choice
from lorif_assets.influences.ranked import Side
from lorif_assets.influences.set_influence import SetRanking


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
    """What is to be selected: exactly one of `top`, `bottom` and `weights` is there.

    `query_sets` have a weight each, and `queries` are those of them that count; none: all. The amounts are shares ("10%") or
    numbers; `weights` names a column to write in place of leaving rows out. `sources`: those to select from; none: all.
    """

    query_sets: Mapping[str, float] = field(default_factory=dict)
    queries: tuple[str, ...] = ()
    query_weight: str | None = None
    ranking: SetRanking = "plain"
    top: object = None
    bottom: object = None
    weights: str | None = None
    exclude: bool = False
    by: str | None = None
    without_duplicates: bool = False
    sources: tuple[str, ...] = ()
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("top", "bottom", "weights") if getattr(self, name) is not None]
        if len(given) != 1:
            raise SettingsError(
                f"a selection is of the `top` or the `bottom` of the ranking, or of `weights`: name one, not "
                f"{' and '.join(given) or 'none'}"
            )
        if self.exclude and self.weights is not None:
            raise SettingsError(
                "`exclude` leaves out an end of the ranking, `weights` leave nothing out: name one of them"
            )
        _ = self.choice

    @property
    def choice(self) -> Choice | None:
        """The end of the ranking that is taken, or not; None where all get weights.

        Raises:
            SettingsError: its amount is none.
        """
        if self.weights is not None:
            return None
        side, amount = (Side.PROPONENTS, self.top) if self.top is not None else (Side.OPPONENTS, self.bottom)
        return Choice(side, Amount.parse(amount), self.exclude)

    @property
    def command(self) -> str:
        """The command that selects the same."""
        sets = [
            name if weight == 1 and "=" not in name else f"{name}={weight:g}"
            for name, weight in self.query_sets.items()
        ]
        options: dict[str, Sequence[object]] = {
            "--query-set": sets,
            "--query": self.queries,
            "--query-weight": [self.query_weight],
            "--checkpoint": [self.checkpoint],
            "--ranking": [self.ranking],
            "--top": [self.top],
            "--bottom": [self.bottom],
            "--weights": [self.weights],
            "--by": [self.by],
            "--source": self.sources,
        }
        words = [word for name, values in options.items() for value in values if value for word in (name, str(value))]
        flags = {"--exclude": self.exclude, "--without-duplicates": self.without_duplicates}
        return shlex.join(["lorif", "select", *words, *(name for name, is_set in flags.items() if is_set)])
