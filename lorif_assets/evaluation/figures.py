"""The table of evaluation figures: what each evaluation measured, by method and query."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import polars as pl

from lorif_assets.config.methods import MethodName
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES
from lorif_assets.lake.lake import Lake
from lorif_assets.mathematics.evaluation.intervals import Comparison, Estimate

MEAN, QUERY, DIFFERENCE = "mean", "query", "difference"


@dataclass(frozen=True)
class Figure:
    """One measured figure; `low` and `high` are the ends of its 95 % interval, if it has one."""

    metric: str
    statistic: str
    method: str | None
    value: float
    low: float | None = None
    high: float | None = None
    query_id: str | None = None

    @classmethod
    def of(cls, metric: str, statistic: str, method: str, estimate: Estimate) -> "Figure":
        """Return an estimate as a figure."""
        return cls(metric, statistic, method, estimate.value, estimate.low, estimate.high)


def comparison_figures(metric: str, comparison: Comparison, query_ids: Sequence[str]) -> list[Figure]:
    """Return means, differences and the figures of single queries of a comparison of methods."""
    return [
        *(Figure.of(metric, MEAN, method, found) for method, found in comparison.mean.items()),
        *(Figure.of(metric, DIFFERENCE, method, found) for method, found in comparison.differences.items()),
        *(
            Figure(metric, QUERY, method, float(value), query_id=query_id)
            for method, values in comparison.per_query.items()
            for query_id, value in zip(query_ids, values, strict=True)
        ),
    ]


def reference_method(methods: Iterable[str]) -> str:
    """Return the method that the others are compared with: LoRIF if present, else the first."""
    names = list(methods)
    return str(MethodName.LORIF) if MethodName.LORIF in names else names[0]


def shared_per_example() -> pl.Expr:
    """Return what a method of `method_costs` keeps once for all examples, in bytes per example; null where unknown."""
    return pl.col("shared_bytes").cast(pl.Float64) / pl.max_horizontal(pl.col("n_examples"), 1)


def store_figures(
    lake: Lake, checkpoint: str, query_set: str, evaluation: str, figures: Iterable[Figure], version: str
) -> None:
    """Replace what one evaluation measured at a checkpoint for a query set."""
    partition = {"checkpoint": checkpoint, "query_set": query_set, "evaluation": evaluation}
    columns = {**partition, "computed_from": version}
    rows = [{**columns, **asdict(figure)} for figure in figures]
    schema = {
        field.name: pl.Float64 if field.name in {"value", "low", "high"} else pl.String
        for field in EVALUATION_FIGURES.columns
    }
    lake.replace(EVALUATION_FIGURES, partition, pl.DataFrame(rows, schema=schema).to_arrow())


def stored_figure_versions(lake: Lake, evaluation: str) -> Mapping[str, str]:
    """Return by partition (checkpoint and query set) the version of what an evaluation measured."""
    columns = ["checkpoint", "query_set", "computed_from"]
    rows = lake.read(EVALUATION_FIGURES, columns, evaluation=evaluation).unique()
    return {f"{checkpoint}|{query_set}": version for checkpoint, query_set, version in rows.iter_rows()}
