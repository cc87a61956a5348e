"""Ground truth of the linear datamodeling score: which examples each subset has, and the losses after retraining on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from jaxtyping import Bool, Float64

from lorif_assets.config.content_hash import content_hash
from lorif_assets.errors import MismatchError
from lorif_assets.lake.evaluation_tables import SUBSET_LOSSES, SUBSETS
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    from lorif_assets.mathematics.evaluation.datamodeling import Reliability

FEWEST_SUBSETS = 3
"""Without three, nothing can be correlated."""


@dataclass(frozen=True)
class GroundTruth:
    """Subsets that models were retrained on, and each query's loss under them, averaged over the seeds there are."""

    subsets: Sequence[str]
    members: Bool[np.ndarray, "M N"]
    losses: Float64[np.ndarray, "Q M"]
    reliability: "Reliability | None"
    """How far seeds agree, over the subsets that were trained with all seeds; None if there are too few."""
    n_models: int
    version: str


def ground_truth_version(lake: Lake, query_set: str, versions: Mapping[str, Mapping[int, str]]) -> str:
    """Return the hash of the subsets and seeds whose losses for a query set are up to date."""
    return content_hash(
        current_losses(lake, query_set, versions).select("subset", "seed").unique().sort("subset", "seed").rows()
    )


def read_ground_truth(
    lake: Lake,
    query_set: str,
    versions: Mapping[str, Mapping[int, str]],
    query_ids: Sequence[str],
    example_ids: Sequence[str],
) -> GroundTruth:
    """Read the losses that are up to date; more subsets or seeds may follow later.

    Args:
        lake: the tables.
        query_set: whose losses.
        versions: by subset and seed, the version that losses of the query set should have.
        query_ids: the queries, in the order of the result.
        example_ids: the training examples, in the order of the result.

    Raises:
        MismatchError: there are fewer than three subsets, or a query has no losses.
    """
    losses = current_losses(lake, query_set, versions)
    subsets = sorted(losses["subset"].unique().to_list())
    if len(subsets) < FEWEST_SUBSETS:
        raise MismatchError(
            f"the query set {query_set!r} has up-to-date losses of {len(subsets)} retrained subsets, of {len(versions)} "
            f"that the settings ask for; at least {FEWEST_SUBSETS} are needed. Materialize `subset_losses` first"
        )
    unknown = sorted(set(query_ids) - set(losses["query_id"].to_list()))
    if unknown:
        raise MismatchError(
            f"the query {unknown[0]!r} of {query_set!r} was scored, but has no losses after retraining; materialize "
            "`subset_losses` again"
        )
    by_seed = [
        _matrix(group, query_ids, subsets)
        for _, group in sorted(losses.group_by("seed"), key=lambda item: str(item[0]))
    ]
    member_rows = lake.read(SUBSETS, ["subset", "example_ids"], subset=subsets)
    members = {subset: set(names) for subset, names in member_rows.iter_rows()}
    return GroundTruth(
        subsets,
        np.array([[name in members[subset] for name in example_ids] for subset in subsets]),
        np.nanmean(np.stack(by_seed), axis=0),
        _reliability(by_seed),
        losses.select("subset", "seed").unique().height,
        ground_truth_version(lake, query_set, versions),
    )


def current_losses(lake: Lake, query_set: str, versions: Mapping[str, Mapping[int, str]]) -> pl.DataFrame:
    """Return subset, seed, query_id and loss of the stored losses of a query set that have these versions."""
    columns = ["subset", "seed", "query_id", "loss", "computed_from"]
    version_table = pl.DataFrame(
        [(subset, str(seed), version) for subset, seeds in versions.items() for seed, version in seeds.items()],
        schema={"subset": pl.String, "seed": pl.String, "computed_from": pl.String},
        orient="row",
    )
    rows = lake.read(SUBSET_LOSSES, columns, query_set=query_set)
    return rows.join(version_table, on=["subset", "seed", "computed_from"], how="semi")


def _matrix(losses: pl.DataFrame, query_ids: Sequence[str], subsets: Sequence[str]) -> Float64[np.ndarray, "Q M"]:
    """Return one seed's losses, NaN for a subset that was not trained with it."""
    matrix = np.full((len(query_ids), len(subsets)), np.nan)
    queries, places = ({name: at for at, name in enumerate(names)} for names in (query_ids, subsets))
    for subset, query_id, loss in losses.select("subset", "query_id", "loss").iter_rows():
        if query_id in queries:
            matrix[queries[query_id], places[subset]] = loss
    return matrix


def _reliability(by_seed: Sequence[Float64[np.ndarray, "Q M"]]) -> "Reliability | None":
    from lorif_assets.mathematics.evaluation.datamodeling import reliability

    complete = ~np.isnan(np.stack(by_seed)).any(axis=(0, 1))
    if complete.sum() < FEWEST_SUBSETS:
        return None
    return reliability([matrix[:, complete] for matrix in by_seed])
