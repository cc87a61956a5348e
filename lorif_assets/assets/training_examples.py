"""Training examples: rows of the user's sources, normalised and validated."""

from collections.abc import Iterable, Mapping

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.example_metadata import example_metadata
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.data.columns import unread_input_notice
from lorif_assets.data.examples import require_usable, sort_out
from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.rejected_share import RejectedShare
from lorif_assets.data.shards import list_all_shards, passed_over_notice, read_shard
from lorif_assets.errors import SourceError
from lorif_assets.freshness.attribution import stale_training_examples
from lorif_assets.lake.attribution_tables import TRAINING_EXAMPLES
from lorif_assets.lake.table_writing import with_constants


@attribution_asset(
    group="corpus",
    table=TRAINING_EXAMPLES,
    partitions=partitions.shards,
    find_stale=stale_training_examples,
    kinds={"deltalake", "pyarrow"},
)
def training_examples(run: PartitionRun) -> Materializations:
    """One slice of the training data, normalised: text, prompt and completion, chat messages or token ids.

    Rows that cannot be used are set aside in the table `rejected`, with the reason; where they are more than
    `data.max_rejected_share` of their source's, the run stops, and what was stored of the shard stays.
    """
    settings, lake = run.settings, run.lake
    pieces = {piece.shard: piece for piece in list_all_shards(settings.sources, settings.base)}
    sources = {source.name: source for source in settings.sources}
    for name in dict.fromkeys(pieces[shard].source for shard in run.partitions if shard in pieces):
        if notice := passed_over_notice(sources[name], settings.base):
            run.log.warning(f"source '{name}': {notice}")
    shares = _rejected_shares(run, pieces.values())
    for shard in run.partitions:
        if shard not in pieces:
            raise SourceError(
                f"no source has the shard {shard!r} any more (its file was moved, removed or cut differently); sources "
                f"have {', '.join(list(pieces)[:4]) or 'no shard at all'}"
            )
        source = sources[pieces[shard].source]
        raw = read_shard(source, pieces[shard], settings.base)
        if notice := unread_input_notice(source.columns, raw.columns):
            run.log.warning(f"{shard}: {notice}")
        examples = sort_out(raw, source.columns, shard)
        shares[source.name].replace(shard, examples.rejected)
        require_usable(raw, examples)
        shares[source.name].refuse(shard, examples.rejected)
        constants = {"shard": shard, "shard_hash": examples.shard_hash, "source_version": pieces[shard].version}
        lake.replace(TRAINING_EXAMPLES, {"shard": shard}, with_constants(examples.examples, constants))
        yield from run.commit(shard, examples.shard_hash, {"source": pieces[shard].uri, **example_metadata(examples)})


def _rejected_shares(run: PartitionRun, pieces: Iterable[ShardSlice]) -> Mapping[str, RejectedShare]:
    """Return, by source, what may be set aside of its rows in all of its shards."""
    by_source: dict[str, list[ShardSlice]] = {source.name: [] for source in run.settings.sources}
    for piece in pieces:
        by_source[piece.source].append(piece)
    return {
        name: RejectedShare(
            run.lake,
            "training_examples",
            f"source '{name}'",
            sum(piece.rows for piece in of_source),
            {piece.shard for piece in of_source},
            run.settings.data.max_rejected_share,
        )
        for name, of_source in by_source.items()
    }
