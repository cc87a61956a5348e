"""Gradient factors: one forward and backward pass per example, kept as rank-c factors of its projected gradients."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, Wait, attribution_asset
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.example_metadata import rejected_metadata
from lorif_assets.assets.kfac_bases import kfac_bases
from lorif_assets.assets.partition_run import Failures, PartitionRun
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.attribution.checkpoint import StoredCheckpoint
from lorif_assets.attribution.curvatures import write_shard_sums
from lorif_assets.attribution.factor_rows import ShardFactors, factor_rows
from lorif_assets.attribution.model import AttributedModel
from lorif_assets.attribution.shard_pipeline import overlapped
from lorif_assets.attribution.stored_factors import stored_factor_versions
from lorif_assets.attribution.versions import factor_version, factor_versions
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import BatchSettings
from lorif_assets.data.rejected import rejected_table
from lorif_assets.data.rejected_share import RejectedShare
from lorif_assets.data.rejection_reasons import first_and_counts
from lorif_assets.data.tokenization import TokenizedShard, n_tokens
from lorif_assets.errors import LorifError, MismatchError, SourceError
from lorif_assets.freshness.attribution import stale_factors
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, TRAINING_EXAMPLES
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_writing import with_constants
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from lorif_assets.mathematics.curvature.ekfac import KfacBases


class FactorConfig(dg.Config):
    """Options of one run of `gradient_factors`."""

    recompute: bool = False
    """Compute shards again whose stored factors already come from the same data, weights and recipe."""


@attribution_asset(
    group="attribution",
    table=GRADIENT_FACTORS,
    partitions=partitions.checkpoint_by_shard,
    inputs=[
        Input(training_examples, partitions.same(partitions.SHARD)),
        Input(checkpoints, partitions.same(partitions.CHECKPOINT)),
        # Frozen bases are fit for the shards that are stored while others are being read.
        Input(kfac_bases, partitions.whole_checkpoint(), Wait.FOR_IT_ALONE),
    ],
    find_stale=stale_factors,
    options=FactorConfig,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def gradient_factors(run: PartitionRun, config: FactorConfig) -> Materializations:
    """Rank-c factors of every example's gradient in every tracked layer; with EK-FAC, of the whitened gradient.

    A run of many shards loads each checkpoint once, reads the next shard and writes the last while one is computed,
    commits each as it is written, and skips those that are up to date: a killed run goes on where it stopped.
    """
    recipe = run.settings.recipe
    for name, shards in run.by_checkpoint().items():
        stored = run.stored(name)
        record = stored.record
        if recipe.whitens and not record.frozen_bases:
            raise MismatchError(
                f"the checkpoint {name!r} has no K-FAC bases of this recipe and these weights; materialize `kfac_bases` first"
            )
        known = {} if config.recompute else stored_factor_versions(run.lake, name)
        wanted = factor_versions(recipe, record, _shard_hashes(run.lake, shards))
        to_do = [shard for shard in shards if known.get(shard) != wanted[shard]]
        for shard in shards.keys() - set(to_do):
            run.log.info(f"{shards[shard]}: up to date, left as it is")
            yield from run.commit(shards[shard], wanted[shard], {"left_as_is": True})
        if not to_do:
            continue
        # One bad shard must not keep the others from being computed.
        failures = Failures(run.log, "shards", len(to_do), "the next shard")
        with (
            run.lease() as group,
            run.tracked(name, [shards[shard] for shard in to_do], recipe.model_dump()) as tracked,
        ):
            for index, (shard, written) in enumerate(_written_shards(run, stored, to_do, group)):
                try:
                    version, metadata = written.result()
                except (LorifError, RuntimeError) as error:
                    failures.add(shards[shard], error)
                    continue
                if tracked:
                    figures = {key: value for key, value in metadata.items() if type(value) in {int, float}}
                    tracked.metrics(figures, index)
                yield from run.commit(shards[shard], version, metadata)
            failures.raise_if_any()


def _written_shards(
    run: PartitionRun, stored: StoredCheckpoint, shards: Sequence[str], devices: DeviceGroup
) -> Iterator[tuple[str, Future[tuple[str, dict[str, Any]]]]]:
    """Compute and store shards, and yield each with its data version and metadata, or with its error.

    The checkpoint stays loaded only while this runs: its memory is free before another run gets the devices.
    """
    attributed = stored.load(run.checkpoints, devices).model
    loaded = {layer: stored.bases(layer, devices.first) for layer in stored.record.layer_shapes}
    bases = {layer: found for layer, found in loaded.items() if found}
    share = _rejected_share(run, stored.record.name)
    work = _ShardWork(run.log, run.settings.recipe, run.lake, attributed, bases, share, run.settings.batch)
    yield from overlapped(shards, work.read, work.compute, work.write)


def _rejected_share(run: PartitionRun, checkpoint: str) -> RejectedShare:
    shards = run.lake.read(TRAINING_EXAMPLES, ["shard"])["shard"].value_counts()
    return RejectedShare(
        run.lake,
        "gradient_factors",
        f"the training examples at {checkpoint!r}",
        {f"{checkpoint}|{shard}": rows for shard, rows in shards.iter_rows()},
        run.settings.data.max_rejected_share,
    )


def _shard_hashes(lake: Lake, shards: Iterable[str]) -> dict[str, str]:
    stored = dict(file_constants(lake, TRAINING_EXAMPLES, ["shard", "shard_hash"]).iter_rows())
    for shard in shards:
        if shard not in stored:
            raise MismatchError(f"the shard {shard!r} is not in `training_examples`; materialize it there first")
    return {shard: stored[shard] for shard in shards}


@dataclass(frozen=True)
class _ReadShard:
    shard: str
    shard_hash: str
    tokenized: "TokenizedShard"


@dataclass(frozen=True)
class _ComputedShard:
    source: _ReadShard
    factors: ShardFactors
    seconds: float


@dataclass
class _ShardWork:
    """What is done for each shard of one checkpoint."""

    log: logging.Logger
    recipe: Recipe
    lake: Lake
    attributed: AttributedModel
    bases: "Mapping[str, KfacBases]"
    share: RejectedShare
    batch: BatchSettings
    """Budgets of the next shard: what did not fit in one would not fit in the next."""

    def read(self, shard: str) -> _ReadShard:
        examples = self.lake.read(TRAINING_EXAMPLES, shard=shard).sort("row")
        if examples.is_empty():
            raise MismatchError(f"the shard {shard!r} has left `training_examples` since the run began")
        tokenized = self.attributed.tokenized(examples.to_arrow())
        self._require_usable(shard, tokenized)
        return _ReadShard(shard, str(examples["shard_hash"][0]), tokenized)

    def _require_usable(self, shard: str, tokenized: "TokenizedShard") -> None:
        """Refuse a shard before its gradients are computed; its rows that are set aside are stored then."""
        part, rejected = self._part(shard), tokenized.rejected
        try:
            if not tokenized.examples:
                reasons = first_and_counts(rejected["reason"].to_pylist())
                raise SourceError(f"no example of the shard {shard!r} can be used with this tokenizer; {reasons}")
            self.share.refuse(part, rejected)
        except SourceError:
            self.share.replace(part, rejected)
            raise

    def _part(self, shard: str) -> str:
        return f"{self.attributed.record.name}|{shard}"

    def compute(self, shard: _ReadShard) -> _ComputedShard:
        started, examples = time.monotonic(), shard.tokenized.examples
        tokens = n_tokens(examples)
        name = self.attributed.record.name
        self.log.info(f"{name}|{shard.shard}: read {len(examples):,} examples of {tokens:,} tokens")
        with Progress(f"{name} {shard.shard}", tokens, "tok", self.log) as progress:
            factors = factor_rows(self.attributed, examples, self.bases, self.batch, progress)
        self.batch = self.batch.model_copy(update={"tokens": factors.batch_tokens})
        return _ComputedShard(shard, factors, time.monotonic() - started)

    def write(self, shard: _ComputedShard) -> tuple[str, dict[str, Any]]:
        """Store a shard, and return its data version and metadata."""
        from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

        read, factors, record = shard.source, shard.factors, self.attributed.record
        tokens = n_tokens(read.tokenized.examples)
        rejected = pa.concat_tables([read.tokenized.rejected, rejected_table(factors.not_finite)])
        part = self._part(read.shard)
        self.share.replace(part, rejected)
        self.share.refuse(part, rejected)
        n_rows = factors.rows.num_rows
        sums = {layer: FisherDiagonal(squares, n_rows, factors.squared) for layer, squares in factors.squares.items()}
        fisher = write_shard_sums(self.lake, record.name, sums) if self.bases else ""
        constants = {
            "checkpoint": record.name,
            "shard": read.shard,
            "recipe_hash": self.recipe.factor_hash,
            "weights_hash": record.weights_hash,
            "tokenizer_hash": record.tokenizer_hash,
            "projection": self.attributed.projection,
            "shard_hash": read.shard_hash,
            "factor_codec": self.recipe.factor_dtype,
            "bases": record.bases_fingerprint,
            "fisher": fisher,
        }
        rows = with_constants(factors.rows, constants)
        self.lake.replace(GRADIENT_FACTORS, {"checkpoint": record.name, "shard": read.shard}, rows)
        factor_bytes = sum(pc.sum(pc.binary_length(rows[layer])).as_py() for layer in record.layer_shapes)
        metadata = {
            "dagster/row_count": rows.num_rows,
            **rejected_metadata(rejected, read.tokenized.notices),
            "truncated_examples": read.tokenized.n_truncated,
            "max_length": self.attributed.max_length,
            "truncation": self.recipe.truncation,
            "tokens": tokens,
            "tokens_per_second": round(tokens / max(shard.seconds, 1e-9), 1),
            "batch_tokens": factors.batch_tokens,
            "seconds": round(shard.seconds, 3),
            "bytes": factor_bytes,
            "bytes_per_example": round(factor_bytes / rows.num_rows, 1),
            "mean_loss_per_token": float(
                np.sum(rows["loss"].to_numpy()) / max(np.sum(rows["n_target_tokens"].to_numpy()), 1)
            ),
            "device": str(self.attributed.devices),
            "projection": self.attributed.projection,
            "layers": dg.MetadataValue.table(
                [dg.TableRecord({"layer": name, "d1": d1, "d2": d2}) for name, (d1, d2) in record.layer_shapes.items()]
            ),
        }
        return factor_version(self.recipe, record, read.shard_hash), metadata
