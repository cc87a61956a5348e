"""Group scores: each query's influence summed over training examples that share a value of their metadata."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial

import polars as pl

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.beside_scores import Computed, beside_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.attribution.checkpoints.checkpoint import (
    AttributedCheckpoint,
    StoredCheckpoint,
    averaged_attributions,
)
from lorif_assets.attribution.exact.score_noise import noise_shares, shrunk_scores
from lorif_assets.attribution.scores.group_sums import GROUP_ROWS, group_sums
from lorif_assets.attribution.scores.score_checkpoint import score_every_example
from lorif_assets.attribution.scores.score_modes import ReadQuerySet
from lorif_assets.attribution.scores.score_rows import MOST_PAIRS
from lorif_assets.errors import LorifError
from lorif_assets.freshness.attribution import stale_group_scores
from lorif_assets.lake.attribution_tables import GROUP_SCORES
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES


@attribution_asset(
    group="attribution",
    table=GROUP_SCORES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[Input(query_scores)],
    find_stale=stale_group_scores,
    is_used=lambda settings: settings.groups.enabled,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def group_scores(run: PartitionRun) -> Materializations:
    """Each query's influence summed over all training examples that share a value of a column, with its standard error.

    Off unless `groups.columns` names columns: it scans all examples once more, as only leading scores are stored. Sums are of
    posterior means, by the noise that is measured on a sample (`groups.shrunk`).
    """
    settings = run.settings
    for name, query_sets in run.by_checkpoint().items():
        *earlier, stored = averaged_attributions(settings, run.checkpoints, run.stored(name))
        with run.lease() as group, run.tracked(name, query_sets.values(), settings.groups.model_dump()):
            checkpoint = stored.load(run.checkpoints, group)
            metadata = run.lake.read(TRAINING_EXAMPLES, ["shard", "example_id", "metadata"])
            shares = _noise_shares(run, checkpoint, query_sets) if settings.groups.shrunk else {}
            compute = partial(_sums, run, checkpoint, earlier, metadata, shares)
            yield from beside_scores(run, GROUP_SCORES, name, query_sets, settings.groups.version, compute)
            # Before another run gets the devices: the memory is not free while a name refers to the model.
            del checkpoint, compute


def _noise_shares(run: PartitionRun, checkpoint: AttributedCheckpoint, query_sets: Iterable[str]) -> dict[str, float]:
    """Return the shares of the query sets that can be read; of another one the error comes with its sums."""
    queries = {}
    for query_set in query_sets:
        with suppress(LorifError):
            queries[query_set] = ReadQuerySet.of(checkpoint, query_set).tokenized.examples
    return noise_shares(checkpoint, queries, run.settings.batch)


def _sums(
    run: PartitionRun,
    checkpoint: AttributedCheckpoint,
    earlier: list[StoredCheckpoint],
    metadata: pl.DataFrame,
    shares: Mapping[str, float],
    query_set: str,
) -> Computed:
    """Return the sums of a query set, in as many scans as memory asks for."""
    queries = ReadQuerySet.of(checkpoint, query_set).tokenized.examples
    noise_share = shares.get(query_set)
    n_examples = checkpoint.stored.factors.n_examples
    at_once = max(1, MOST_PAIRS // max(1, n_examples))
    frames = [pl.DataFrame(schema=GROUP_ROWS)]
    scans = -(-len(queries) // at_once)
    label = f"{checkpoint.stored.record.name} {query_set} by group"
    with run.progress(label, scans * n_examples, "examples") as progress:
        for first in range(0, len(queries), at_once):
            scored = score_every_example(
                checkpoint,
                earlier,
                queries[first : first + at_once],
                run.checkpoints,
                top_k="all",
                batch=run.settings.batch,
                progress=progress,
                reason="groups are sums over all examples",
            )
            scores = scored.scores if noise_share is None else shrunk_scores(scored.scores, noise_share)
            pairs = scores.join(metadata, on=["shard", "example_id"], how="left")
            frames += [group_sums(pairs, column) for column in run.settings.groups.columns]
    sums = pl.concat(frames).with_columns(noise_share=pl.lit(noise_share, dtype=pl.Float64))
    return sums, {} if noise_share is None else {"noise_share": noise_share}
