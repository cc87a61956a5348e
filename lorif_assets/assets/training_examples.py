"""Training examples: rows of the user's sources, normalised and validated."""

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.example_metadata import example_metadata
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.data.columns import unread_input_notice
from lorif_assets.data.examples import normalise
from lorif_assets.data.rejected import replace_rejected
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

    Rows that cannot be used are set aside in the table `rejected`, with the reason.
    """
    settings, lake = run.settings, run.lake
    pieces = {piece.shard: piece for piece in list_all_shards(settings.sources, settings.base)}
    sources = {source.name: source for source in settings.sources}
    for name in dict.fromkeys(pieces[shard].source for shard in run.partitions if shard in pieces):
        if notice := passed_over_notice(sources[name], settings.base):
            run.log.warning(f"source '{name}': {notice}")
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
        examples = normalise(raw, source.columns, shard)
        replace_rejected(lake, "training_examples", shard, examples.rejected)
        constants = {"shard": shard, "shard_hash": examples.shard_hash, "source_version": pieces[shard].version}
        lake.replace(TRAINING_EXAMPLES, {"shard": shard}, with_constants(examples.examples, constants))
        yield from run.commit(shard, examples.shard_hash, {"source": pieces[shard].uri, **example_metadata(examples)})
