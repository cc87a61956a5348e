"""Query examples: the queries of the user's files, normalised and validated."""

from pathlib import Path

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.example_metadata import example_metadata
from lorif_assets.assets.partition_run import Failures, PartitionRun
from lorif_assets.config.sources import Source
from lorif_assets.data.content.query_objectives import ScalarRules
from lorif_assets.data.earlier_readings import marked
from lorif_assets.data.examples import NormalisedShard, require_usable, sort_out
from lorif_assets.data.query_files import query_source, source_version
from lorif_assets.data.rows.rejected_share import RejectedShare
from lorif_assets.data.shards import read_source
from lorif_assets.errors import LorifError
from lorif_assets.freshness.attribution import stale_query_examples
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.lake.table_writing import with_constants


@attribution_asset(
    group="corpus",
    table=QUERY_EXAMPLES,
    partitions=partitions.query_sets,
    find_stale=stale_query_examples,
    kinds={"deltalake", "pyarrow"},
)
def query_examples(run: PartitionRun) -> Materializations:
    """One query set: prompts and completions whose origin in the training data the user wants to know."""
    failures = Failures(run.log, "query sets", len(run.partitions), "the other query sets")
    for query_set in run.partitions:
        try:
            source, queries = _stored(run, query_set)
        except LorifError as error:
            failures.add(query_set, error)
            continue
        metadata = {"source": Path(source.path).name, **example_metadata(queries)}
        yield from run.commit(query_set, queries.shard_hash, metadata)
    failures.raise_cause_or_all()


def _stored(run: PartitionRun, query_set: str) -> tuple[Source, NormalisedShard]:
    """Read and store a query set, and the rows of it that are set aside."""
    source = query_source(run.settings, query_set)
    raw = read_source(source, run.settings.base)
    scalar_rules = ScalarRules.of(run.settings)
    queries = sort_out(raw, source.columns, query_set, scalar_rules)
    share = RejectedShare(
        run.lake,
        "query_examples",
        f"query set '{query_set}'",
        {query_set: len(raw.rows) + len(raw.malformed)},
        run.settings.data.max_rejected_share,
    )
    share.replace(query_set, queries.rejected, raw.place)
    require_usable(raw, queries)
    share.refuse(query_set, queries.rejected)
    constants = {
        "query_set": query_set,
        "query_set_hash": queries.shard_hash,
        "source_version": marked(source_version(source, run.settings), queries.examples),
    }
    rows = with_constants(queries.examples, constants)
    rows = rows.rename_columns({"example_id": "query_id"}).select(QUERY_EXAMPLES.columns.names)
    run.lake.replace(QUERY_EXAMPLES, {"query_set": query_set}, rows)
    return source, queries
