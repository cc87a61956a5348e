"""Which partitions of the assets that attribute are missing or out of date, and why.

The stored state decides this, not events: the answer is the same after a missed event, a daemon that was down or a killed
run.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from lorif_assets.attribution.checkpoints.compared import compared_versions, participants
from lorif_assets.attribution.stored.bases import bases_version
from lorif_assets.attribution.stored.factors import stored_factor_versions
from lorif_assets.attribution.stored.versions import (
    factor_versions,
    preconditioner_version,
    recalled_version,
    report_version,
)
from lorif_assets.config.content_hash import content_hash
from lorif_assets.data.earlier_readings import read_otherwise, refused_before, unmarked
from lorif_assets.data.query_files import query_source, source_version
from lorif_assets.errors import SourceError
from lorif_assets.freshness.incomplete import marked_version
from lorif_assets.freshness.sources import stale_shards, without_missing_samples
from lorif_assets.freshness.stale import Stale, StalePartitions, stale_partitions
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.attribution_tables import (
    CHECKPOINTS,
    EXACT_SCORES,
    GROUP_SCORES,
    KFAC_BASES,
    QUERY_SUMMARIES,
    REPORTS,
    TOKEN_SCORES,
)
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.models.training.optimizer_states import optimizer_version


def stale_training_examples(freshness: Freshness) -> StalePartitions:
    """Return shards whose rows in the source changed since they were read, or were read otherwise by an earlier version."""
    stored = _source_versions(freshness, TRAINING_EXAMPLES, "shard")
    return _with_earlier_readings(
        freshness, TRAINING_EXAMPLES, stored, freshness.discovered.shards, stale_shards(freshness.settings, stored)
    )


def stale_query_examples(freshness: Freshness) -> StalePartitions:
    """Return active query sets whose file was written since it was read, or was read otherwise by an earlier version."""
    settings = freshness.settings
    wanted, unreadable = {}, {}
    for name in freshness.active_query_sets:
        try:
            wanted[name] = source_version(query_source(settings, name), settings)
        except SourceError as error:
            unreadable[name] = Stale(f"it cannot be read: {error}", content_hash([name, str(error)]))
    stored = _source_versions(freshness, QUERY_EXAMPLES, "query_set")
    stale = {**stale_partitions(wanted, without_missing_samples(stored, wanted), "its file changed"), **unreadable}
    return _with_earlier_readings(freshness, QUERY_EXAMPLES, stored, freshness.active_query_sets, stale)


def _source_versions(freshness: Freshness, table: TableSchema, key: str) -> Mapping[str, str]:
    return {
        part: unmarked(version)
        for part, version in freshness.stored_versions(table, key, column="source_version").items()
    }


def _with_earlier_readings(
    freshness: Freshness, table: TableSchema, stored: Mapping[str, str], parts: Sequence[str], stale: StalePartitions
) -> StalePartitions:
    """Return what is stale, and of the parts whose source did not change those that are to be read again all the same."""
    same = [part for part in parts if part in stored and part not in stale]
    again = read_otherwise(freshness.lake, table, same) | (refused_before(freshness.lake, table.name) & {*same})
    reason = "an earlier version read its rows otherwise"
    return {**stale, **{part: Stale(reason, f"{stored[part]} read again") for part in same if part in again}}


def stale_checkpoints(freshness: Freshness) -> StalePartitions:
    """Return active checkpoints whose files or tracked layers changed since they were recorded."""
    files = {checkpoint.name: checkpoint for checkpoint in freshness.project.checkpoints.find()}
    wanted = {name: files[name].version() for name in freshness.active_checkpoints}
    stored = freshness.stored_versions(CHECKPOINTS, "checkpoint", column="files_version")
    changed = stale_partitions(wanted, without_missing_samples(stored, wanted), "its files changed")
    recipes = dict.fromkeys(wanted, freshness.settings.recipe.factor_hash)
    recorded = freshness.stored_versions(CHECKPOINTS, "checkpoint", column="recipe_hash")
    return {**stale_partitions(recipes, recorded, "the recipe changed"), **changed}


def stale_bases(freshness: Freshness) -> StalePartitions:
    """Return layers of active checkpoints without K-FAC bases of this recipe and these weights; new data need no others.

    Where the curvature is made of the optimiser's state, another state asks for others too.
    """
    fitted_otherwise = freshness.stale_by_checkpoint(
        lambda record: dict.fromkeys(
            record.layer_shapes,
            bases_version(freshness.settings.recipe, record.weights_hash, record.tokenizer_hash),
        ),
        lambda record: freshness.lake.read(KFAC_BASES, ["layer", "version"], checkpoint=record.name).iter_rows(),
        "the weights or the recipe changed",
    )
    return {**_bases_of_other_states(freshness), **fitted_otherwise}


def _bases_of_other_states(freshness: Freshness) -> StalePartitions:
    folders = {files.name: files.path for files in freshness.discovered.checkpoint_files}
    return {
        f"{record.name}|{layer}": Stale(
            "the optimiser's state changed", content_hash([layer, optimizer_version(folders[record.name])])
        )
        for record in freshness.records
        if record.frozen_bases and record.frozen_bases.has_other_state(folders[record.name])
        for layer in record.layer_shapes
    }


def stale_factors(freshness: Freshness) -> StalePartitions:
    """Return shards of active checkpoints whose data, weights or factor recipe changed."""
    return freshness.stale_by_checkpoint(
        lambda record: factor_versions(freshness.settings.recipe, record, freshness.shard_hashes),
        lambda record: stored_factor_versions(freshness.lake, record.name),
        "its data, the weights, the recipe or the bases changed",
    )


def stale_preconditioners(freshness: Freshness, table: TableSchema) -> StalePartitions:
    """Return layers of active checkpoints whose curvature in a table holds other data, or is of another recipe or basis."""
    return freshness.stale_by_checkpoint(
        lambda record: dict.fromkeys(
            record.layer_shapes, preconditioner_version(freshness.settings.recipe, record, freshness.shard_hashes)
        ),
        lambda record: freshness.lake.read(table, ["layer", "version"], checkpoint=record.name).iter_rows(),
        "the factors or the recipe changed",
    )


def stale_scores(freshness: Freshness) -> StalePartitions:
    """Return query sets of active checkpoints whose scores come from other factors, curvature, queries or recipe."""
    stored = freshness.stored_versions(QUERY_SUMMARIES, "checkpoint", "query_set")
    return stale_partitions(_score_versions(freshness), stored, "the factors, queries or recipe changed")


def stale_exact_scores(freshness: Freshness) -> StalePartitions:
    """Return query sets of active checkpoints whose exact scores belong to other scores, or to other settings."""
    version = freshness.settings.exact_scores.version
    return _stale_beside_scores(
        freshness, EXACT_SCORES, version, "the scores, or the settings of exact scores, changed"
    )


def stale_group_scores(freshness: Freshness) -> StalePartitions:
    """Return query sets of active checkpoints whose sums by group belong to other scores, or to other columns."""
    version = freshness.settings.groups.version
    return _stale_beside_scores(freshness, GROUP_SCORES, version, "the scores or the columns changed")


def stale_token_scores(freshness: Freshness) -> StalePartitions:
    """Return query sets of active checkpoints whose scores by token belong to other scores, or to more or fewer of them."""
    return _stale_beside_scores(freshness, TOKEN_SCORES, freshness.settings.token_scores.version, "the scores changed")


def _stale_beside_scores(
    freshness: Freshness, table: TableSchema, version: Callable[[str], str], reason: str
) -> StalePartitions:
    """Return query sets of active checkpoints whose rows in a table have not the version that goes with their scores'."""
    wanted = {key: version(scores) for key, scores in _score_versions(freshness).items()}
    return stale_partitions(wanted, freshness.stored_versions(table, "checkpoint", "query_set"), reason)


def stale_reports(freshness: Freshness) -> StalePartitions:
    """Return reports that show other scores than those stored, or say something else of their checkpoint's files.

    Of a checkpoint that lost a file, the stored reports are marked, active or not.
    """
    notices = freshness.discovered.looked.report_notices()
    stored, settings = freshness.stored_versions(REPORTS, "checkpoint", "query_set"), freshness.settings
    scores = {**_marked_scores(freshness, set(notices), stored), **_score_versions(freshness)}
    wanted = {
        key: marked_version(report_version(settings, version), notices.get(key.partition("|")[0]))
        for key, version in scores.items()
    }
    return stale_partitions(wanted, stored, "the scores changed, or what is to be said of the checkpoint")


def _marked_scores(freshness: Freshness, checkpoints: Collection[str], reports: Collection[str]) -> Mapping[str, str]:
    """Return the versions of the stored scores of checkpoints that are not active, and have reports under the recipe."""
    recipe = freshness.settings.recipe
    recorded = [name for name in checkpoints if name not in freshness.active_checkpoints and freshness.record(name)]
    columns = ["checkpoint", "query_set", "computed_from"]
    rows = freshness.lake.read(QUERY_SUMMARIES, columns, checkpoint=recorded, recipe_hash=recipe.score_hash)
    keys = {f"{checkpoint}|{query_set}": version for checkpoint, query_set, version in rows.unique().iter_rows()}
    return {key: version for key, version in keys.items() if key in reports}


def stale_comparisons(freshness: Freshness) -> StalePartitions:
    """Return active query sets whose stored scores are not the compared ones; with one checkpoint, there is no comparison."""
    lake, stored = freshness.lake, compared_versions(freshness.lake)
    wanted = {
        query_set: compared.version
        for query_set, compared in participants(lake, freshness.active_query_sets, freshness.settings.recipe).items()
        if compared.neighbours or query_set in stored
    }
    return stale_partitions(wanted, stored, "the scores of a checkpoint changed")


def _score_versions(freshness: Freshness) -> Mapping[str, str]:
    if not freshness.settings.recipe.recalls:
        return freshness.exact_score_versions
    search = freshness.settings.influcoder.search_hash
    return {
        key: recalled_version(version, freshness.encoders.get(key.partition("|")[0], ""), search)
        for key, version in freshness.exact_score_versions.items()
    }
