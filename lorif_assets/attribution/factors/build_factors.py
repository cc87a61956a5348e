"""Building a shard's gradient factors on a worker; the rows are committed by the process that handed the shard out."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.checkpoints.opened import OpenedCheckpoint
from lorif_assets.attribution.factors.factor_rows import ShardFactors, factor_rows
from lorif_assets.attribution.stored.curvatures import write_shard_sums
from lorif_assets.attribution.stored.versions import factor_version
from lorif_assets.data.rows.rejected import rejected_table
from lorif_assets.data.rows.rejected_share import RejectedShare
from lorif_assets.data.rows.rejection_reasons import first_and_counts
from lorif_assets.data.tokens.tokenization import n_tokens
from lorif_assets.errors import MismatchError, SourceError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.table_writing import with_constants
from lorif_assets.lake.written_rows import WrittenRows

if TYPE_CHECKING:
    from lorif_assets.data.tokens.tokenization import TokenizedShard


@dataclass(frozen=True)
class ReadShard:
    """A shard's examples as the checkpoint's tokenizer reads them."""

    shard: str
    shard_hash: str
    tokenized: "TokenizedShard"


@dataclass(frozen=True)
class ComputedShard:
    """A shard and its factors."""

    source: ReadShard
    factors: ShardFactors
    seconds: float


@dataclass(frozen=True)
class BuiltShard:
    """A shard ready to be committed: its rows, also in a file already, those set aside, and what was measured and noticed."""

    shard: str
    rows: pa.Table | WrittenRows
    rejected: pa.Table
    notices: Mapping[str, int]
    figures: Mapping[str, Any]
    version: str


@dataclass(frozen=True)
class RefusedShard:
    """A shard that cannot be used, and why, with its rows that were set aside."""

    shard: str
    rejected: pa.Table
    reason: SourceError


def factor_part(checkpoint: str, shard: str) -> str:
    """Return the name under which a shard's examples that are set aside at a checkpoint are stored."""
    return f"{checkpoint}|{shard}"


@dataclass(frozen=True)
class FactorBuilding:
    """What is done for each shard of a checkpoint. `share` says how many of all its rows may be set aside."""

    share: RejectedShare

    def read(self, state: OpenedCheckpoint, shard: str) -> ReadShard | RefusedShard:
        """Read and tokenise a shard; it is refused before its gradients are computed.

        Raises:
            MismatchError: it is gone.
        """
        examples = state.stored.lake.read(TRAINING_EXAMPLES, shard=shard).sort("row")
        if examples.is_empty():
            raise MismatchError(f"the shard {shard!r} has left `training_examples` since the run began")
        tokenized = state.model.tokenized(examples.to_arrow())
        try:
            if not tokenized.examples:
                reasons = first_and_counts(tokenized.rejected["reason"].to_pylist())
                raise SourceError(f"no example of the shard {shard!r} can be used with this tokenizer; {reasons}")
            self.share.refuse(factor_part(state.stored.record.name, shard), tokenized.rejected)
        except SourceError as error:
            return RefusedShard(shard, tokenized.rejected, error)
        return ReadShard(shard, str(examples["shard_hash"][0]), tokenized)

    def compute(self, state: OpenedCheckpoint, read: ReadShard | RefusedShard) -> ComputedShard | RefusedShard:
        """Compute the factors of a shard that is not refused.

        Raises:
            LorifError: no example has a finite loss and finite gradients, or a single one does not fit in memory.
        """
        if isinstance(read, RefusedShard):
            return read
        started, examples = time.monotonic(), read.tokenized.examples
        tokens = n_tokens(examples)
        name = state.stored.record.name
        state.worker.log.info(f"{name}|{read.shard}: read {len(examples):,} examples of {tokens:,} tokens")
        with state.worker.progress(f"{name} {read.shard}", tokens, "tok") as progress:
            factors = factor_rows(state.model, examples, state.bases, state.batch, progress)
        state.batch = state.batch.model_copy(update={"tokens": factors.batch_tokens})
        return ComputedShard(read, factors, time.monotonic() - started)

    def store(self, state: OpenedCheckpoint, computed: ComputedShard | RefusedShard) -> BuiltShard | RefusedShard:
        """Write a shard's sums, by a worker of a cluster its rows too, and return these with what is to be said of them."""
        if isinstance(computed, RefusedShard):
            return computed
        read, factors, stored = computed.source, computed.factors, state.stored
        constants = {
            "checkpoint": stored.record.name,
            "shard": read.shard,
            "recipe_hash": stored.recipe.factor_hash,
            "weights_hash": stored.record.weights_hash,
            "tokenizer_hash": stored.record.tokenizer_hash,
            "projection": state.model.projection,
            "shard_hash": read.shard_hash,
            "factor_codec": stored.recipe.factor_dtype,
            "bases": stored.record.bases_fingerprint,
            "fisher": _written_sums(stored, factors),
        }
        rows = with_constants(factors.rows, constants)
        partition = {"checkpoint": stored.record.name, "shard": read.shard}
        return BuiltShard(
            shard=read.shard,
            rows=stored.lake.write_ahead(GRADIENT_FACTORS, partition, rows) if state.worker.is_remote else rows,
            rejected=pa.concat_tables([read.tokenized.rejected, rejected_table(factors.not_finite)]),
            notices=read.tokenized.notices,
            figures={**_figures(state.model, computed, rows), "recipe": stored.recipe.factor_hash},
            version=factor_version(stored.recipe, stored.record, read.shard_hash),
        )


def commit_factors(stored: StoredCheckpoint, share: RejectedShare, built: BuiltShard | RefusedShard) -> BuiltShard:
    """Store a shard's rows, and those of its examples that are set aside, and return it.

    Raises:
        SourceError: it is refused, or with the shards before it too many rows are set aside.
    """
    checkpoint = stored.record.name
    part = factor_part(checkpoint, built.shard)
    share.replace(part, built.rejected)
    if isinstance(built, RefusedShard):
        raise built.reason
    share.refuse(part, built.rejected)
    stored.lake.replace(GRADIENT_FACTORS, {"checkpoint": checkpoint, "shard": built.shard}, built.rows)
    return built


def _written_sums(stored: StoredCheckpoint, factors: ShardFactors) -> str:
    """Write the sums of squared rotated gradients to a new folder and return it; empty without whitening."""
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

    if not stored.record.frozen_bases:
        return ""
    n_rows = factors.rows.num_rows
    sums = {layer: FisherDiagonal(squares, n_rows, factors.squared) for layer, squares in factors.squares.items()}
    return write_shard_sums(stored.lake, stored.record.name, sums)


def _figures(model: AttributedModel, computed: ComputedShard, rows: pa.Table) -> dict[str, Any]:
    read = computed.source
    tokens = n_tokens(read.tokenized.examples)
    factor_bytes = sum(pc.sum(pc.binary_length(rows[layer])).as_py() for layer in model.record.layer_shapes)
    return {
        "truncated_examples": read.tokenized.n_truncated,
        "max_length": model.max_length,
        "truncation": model.recipe.truncation,
        "tokens": tokens,
        "tokens_per_second": round(tokens / max(computed.seconds, 1e-9), 1),
        "batch_tokens": computed.factors.batch_tokens,
        "seconds": round(computed.seconds, 3),
        "bytes": factor_bytes,
        "bytes_per_example": round(factor_bytes / rows.num_rows, 1),
        "mean_loss_per_token": float(
            np.sum(rows["loss"].to_numpy()) / max(np.sum(rows["n_target_tokens"].to_numpy()), 1)
        ),
        "device": str(model.devices),
        "hardware": model.devices.hardware,
        "projection": model.projection,
    }
