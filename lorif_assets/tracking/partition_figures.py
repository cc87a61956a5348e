"""The figures of a run's partitions: together, and as a table."""

import csv
import io
from collections.abc import Collection, Mapping

PartitionFigures = Mapping[str, Mapping[str, float]]
"""By partition and name."""


def combined_figures(figures: PartitionFigures, sums: Collection[str], weights: Mapping[str, str]) -> dict[str, float]:
    """Return one value for each figure of several partitions.

    Args:
        figures: of each partition.
        sums: names of those that add up.
        weights: for means of others, the name of the figure that weighs each partition; without one, partitions count alike.
    """
    rows = list(figures.values())
    combined = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        found = [row for row in rows if name in row]
        if name in sums:
            combined[name] = float(sum(row[name] for row in found))
            continue
        shares = [row.get(weights[name], 0.0) if name in weights else 1.0 for row in found]
        shares = shares if sum(shares) else [1.0] * len(found)
        combined[name] = sum(share * row[name] for share, row in zip(shares, found, strict=True)) / sum(shares)
    return combined


def figures_csv(figures: PartitionFigures) -> str:
    """Return a table with a row for each partition."""
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["partition", *names])
    writer.writerows([partition, *(row.get(name, "") for name in names)] for partition, row in figures.items())
    return text.getvalue()
