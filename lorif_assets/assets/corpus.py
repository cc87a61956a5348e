"""Training examples and query examples: rows of the user's sources, normalised and validated."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.rejected_rows import replace_rejected, with_constants
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.config.settings import Settings
from lorif_assets.data.examples import NormalisedShard, normalise
from lorif_assets.data.query_files import query_source, source_version
from lorif_assets.data.shards import list_all_shards, read_shard, read_source
from lorif_assets.errors import SourceError
from lorif_assets.lake.attribution_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake

_CODE_VERSION = "1"


@dg.asset(
    group_name="corpus",
    partitions_def=partitions.shards,
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    code_version=_CODE_VERSION,
    owners=OWNERS,
    kinds={"deltalake", "pyarrow"},
    metadata=table_metadata(TRAINING_EXAMPLES),
)
def training_examples(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake]
) -> Iterator[dg.MaterializeResult[Any]]:
    """One slice of the training data, normalised: text, prompt and completion, chat messages or token ids.

    Rows that cannot be used are set aside in the table `rejected`, with the reason.
    """
    commits = PartitionCommits(context)
    pieces = {piece.shard: piece for piece in list_all_shards(settings.sources, settings.base)}
    sources = {source.name: source for source in settings.sources}
    for shard in context.partition_keys:
        if shard not in pieces:
            raise SourceError(
                f"no source has the shard {shard!r} any more (its file was moved, removed or cut differently); sources "
                f"have {', '.join(list(pieces)[:4]) or 'no shard at all'}"
            )
        source = sources[pieces[shard].source]
        raw = read_shard(source, pieces[shard], settings.base)
        examples = normalise(raw, source.columns, shard)
        replace_rejected(lake, "training_examples", shard, examples.rejected)
        constants = {"shard": shard, "shard_hash": examples.shard_hash, "source_version": pieces[shard].version}
        rows = with_constants(examples.examples, constants)
        lake.replace(TRAINING_EXAMPLES, {"shard": shard}, rows)
        yield from commits.commit(
            shard, examples.shard_hash, {"source": pieces[shard].uri, **_counts(examples), **_preview(examples)}
        )


@dg.asset(
    group_name="corpus",
    partitions_def=partitions.query_sets,
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    code_version=_CODE_VERSION,
    owners=OWNERS,
    kinds={"deltalake", "pyarrow"},
    metadata=table_metadata(QUERY_EXAMPLES),
)
def query_examples(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake]
) -> Iterator[dg.MaterializeResult[Any]]:
    """One query set: prompts and completions about whose origin in the training data the user asks."""
    commits = PartitionCommits(context)
    for query_set in context.partition_keys:
        source = query_source(settings, query_set)
        queries = normalise(read_source(source, settings.base), source.columns, query_set)
        replace_rejected(lake, "query_examples", query_set, queries.rejected)
        constants = {
            "query_set": query_set,
            "query_set_hash": queries.shard_hash,
            "source_version": source_version(source, settings),
        }
        rows = with_constants(queries.examples, constants)
        rows = rows.rename_columns({"example_id": "query_id"}).select(QUERY_EXAMPLES.columns.names)
        lake.replace(QUERY_EXAMPLES, {"query_set": query_set}, rows)
        yield from commits.commit(
            query_set,
            queries.shard_hash,
            {"source": Path(source.path).name, **_counts(queries), **_preview(queries)},
        )


def _counts(examples: NormalisedShard) -> dict[str, Any]:
    return {
        "dagster/row_count": examples.examples.num_rows,
        "rejected_rows": examples.rejected.num_rows,
        "bytes": examples.examples.nbytes,
    }


def _preview(examples: NormalisedShard) -> dict[str, Any]:
    first = examples.examples.slice(0, 3).to_pylist()
    lines = "\n".join(f"* `{row['example_id']}` {_excerpt(row)}" for row in first)
    return {"first_rows": dg.MetadataValue.md(lines)}


def _excerpt(row: dict[str, Any]) -> str:
    content = row["text"] or row["completion"] or row["messages"] or str(row["input_ids"])
    return " ".join(content[:120].split()).replace("`", "'")
