"""The names of an evaluation's random subsets: those to retrain on, or those of external ground truth."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from lorif_assets.config.settings import Settings
from lorif_assets.errors import SourceError

MEMBERS_FILE, LOSSES_FILE = "members.parquet", "losses.parquet"


def subsets(settings: Settings) -> Sequence[str]:
    """Return the partitions of subset losses; none if the settings name neither a training recipe nor ground truth.

    Raises:
        SourceError: the members of external ground truth cannot be read.
    """
    evaluation = settings.evaluation
    if evaluation.ground_truth:
        return external_subsets(Path(settings.resolve(evaluation.ground_truth)))
    if not (evaluation.trainer or evaluation.command):
        return []
    return [subset_name(number) for number in range(evaluation.subsets)]


def subset_name(number: int) -> str:
    """Return the partition of a random subset."""
    return f"subset-{number:04d}"


def subset_number(name: str) -> int:
    """Return the number of a random subset from the name of its partition."""
    return int(name.rpartition("-")[2])


def external_subsets(folder: Path) -> list[str]:
    """Return the names of the subsets of external ground truth."""
    file = folder / MEMBERS_FILE
    try:
        names = pq.read_table(file, columns=["subset"])["subset"].unique().to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"the ground truth {file} cannot be read: {error}; expected a Parquet file with the columns subset and example_id"
        ) from error
    return sorted(str(name) for name in names)
