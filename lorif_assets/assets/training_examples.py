"""Training examples: rows of the user's sources, normalised and validated."""

from collections.abc import Iterable, Mapping
from functools import partial

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.example_metadata import example_metadata
from lorif_assets.assets.partition_run import Failures, PartitionRun
from lorif_assets.config.sources import Source
from lorif_assets.data.content.columns import unread_input_notice
from lorif_assets.data.earlier_readings import marked
from lorif_assets.data.examples import NormalisedShard, require_usable, sort_out
from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.rows.rejected_share import RejectedShare
from lorif_assets.data.shards import Survey, passed_over_notice, read_shard, survey
from lorif_assets.errors import SourceError, TooManyRejectedError
from lorif_assets.freshness.attribution import stale_training_examples
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.file_constants import logged_rows
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
    `data.max_rejected_share` of their source's, the run stops, and what was stored of the shard stays. A shard that cannot be
    read, or of which no row can be used, fails by itself.
    """
    settings = run.settings
    found = survey(settings.sources, settings.base)
    pieces = {piece.shard: piece for piece in found.shards}
    sources = {source.name: source for source in settings.sources}
    for name in dict.fromkeys(pieces[shard].source for shard in run.partitions if shard in pieces):
        if notice := passed_over_notice(sources[name], settings.base):
            run.log.warning(f"source '{name}': {notice}")
    shares = _rejected_shares(run, pieces.values())
    failures = Failures(run.log, "shards", len(run.partitions), "the next shard")
    for shard in run.partitions:
        try:
            if shard not in pieces:
                raise SourceError(_gone(shard, found))
            source = sources[pieces[shard].source]
            examples = _stored(run, source, pieces[shard], shares[source.name])
        except TooManyRejectedError:
            raise
        except SourceError as error:
            failures.add(shard, error)
            continue
        yield from run.commit(shard, examples.shard_hash, {"source": pieces[shard].uri, **example_metadata(examples)})
    failures.raise_cause_or_all()


def _stored(run: PartitionRun, source: Source, piece: ShardSlice, share: RejectedShare) -> NormalisedShard:
    """Read and store a shard, and the rows of it that are set aside."""
    shard = piece.shard
    raw = read_shard(source, piece, run.settings.base)
    if notice := unread_input_notice(source.columns, raw.columns):
        run.log.warning(f"{shard}: {notice}")
    examples = sort_out(raw, source.columns, shard)
    share.count(shard, len(raw.rows) + len(raw.malformed))
    share.replace(shard, examples.rejected, raw.place)
    require_usable(raw, examples)
    share.refuse(shard, examples.rejected)
    constants = {
        "shard": shard,
        "shard_hash": examples.shard_hash,
        "source_version": marked(piece.version, examples.examples),
    }
    run.lake.replace(TRAINING_EXAMPLES, {"shard": shard}, with_constants(examples.examples, constants))
    return examples


def _gone(shard: str, found: Survey) -> str:
    if shard.startswith(found.unread_prefixes):
        return f"the shard {shard!r} cannot be looked at, as its source or file cannot be read: `lorif doctor` says why"
    there = ", ".join(piece.shard for piece in found.shards[:4]) or "no shard at all"
    return f"no source has the shard {shard!r} any more (its file was moved, removed or cut differently); sources have {there}"


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
            {piece.shard: piece.rows for piece in of_source},
            run.settings.data.max_rejected_share,
            # Of rows that sequences are packed in, there are more examples.
            partial(logged_rows, run.lake, TRAINING_EXAMPLES),
        )
        for name, of_source in by_source.items()
    }
