"""What Dagster's list of runs shows of a run: its asset, its checkpoint and its partitions."""

from collections.abc import Sequence

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.assets.partitions import RANGE_END_TAG, RANGE_START_TAG

CHECKPOINT_TAG = "lorif/checkpoint"
PARTITIONS_TAG = "lorif/partitions"


def job_name(asset: AttributionAsset) -> str:
    """Return the name of the job that materializes an asset, and of its runs."""
    return f"materialize_{asset.name}"


def run_tags(partitions: Sequence[str]) -> dict[str, str]:
    """Return the tags of a run of neighbouring partitions of one asset, of one checkpoint if they are two-dimensional."""
    first, last = partitions[0], partitions[-1]
    checkpoint, separator, _ = first.partition("|")
    span = {} if len(partitions) == 1 else {RANGE_START_TAG: first, RANGE_END_TAG: last}
    return {
        **({CHECKPOINT_TAG: checkpoint} if separator else {}),
        PARTITIONS_TAG: first if len(partitions) == 1 else f"{len(partitions)}: {_name(first)} to {_name(last)}",
        **span,
    }


def _name(partition: str) -> str:
    return partition.rpartition("|")[2]
