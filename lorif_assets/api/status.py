"""What is missing or out of date in a project, asset by asset."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from lorif_assets.assets.graph import assets_in_use
from lorif_assets.data.rows.rejected import rejected_counts
from lorif_assets.freshness.leftovers import Leftovers
from lorif_assets.freshness.stale import MISSING
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.snapshot import LakeSnapshot
from lorif_assets.project import Project


@dataclass(frozen=True)
class ProjectStatus:
    """The checkpoints that the settings want attributed, and a row for each asset in use, upstream first.

    `assets` has the columns asset, missing and stale (numbers of partitions), reason and partition (of the first; null
    where all is up to date). `rejected` has the assets that have set rows aside, each with how many by kind of reason. `faults`
    says what could not be looked at, and why, by what it is; `notes` which checkpoints were passed over, and why, what is
    stored that nothing outside names any more, and what waits for MLflow.
    """

    active_checkpoints: Sequence[str]
    assets: pl.DataFrame
    rejected: Mapping[str, Mapping[str, int]]
    faults: Mapping[str, str]
    notes: Sequence[str] = ()


def project_status(project: Project) -> ProjectStatus:
    """Compare what a project's settings want with what its lake holds.

    Raises:
        SettingsError: the settings name no source, or a checkpoint or query set that is not there.
        SourceError: a source cannot be looked at.
    """
    freshness = Freshness.of(replace(project, lake=LakeSnapshot.of(project.lake)))
    rows, rejected = [], {}
    for asset in assets_in_use(project.settings):
        found = asset.stale(freshness)
        reasons = Counter(partition.reason for partition in found.values())
        first = next(iter(found), None)
        reason = found[first].reason if first else None
        if counts := rejected_counts(freshness.lake, asset.name, freshness.active_checkpoints):
            rejected[asset.name] = counts
        rows.append((asset.name, reasons[MISSING], reasons.total() - reasons[MISSING], reason, first))
    kinds = {"asset": pl.String, "missing": pl.Int64, "stale": pl.Int64, "reason": pl.String, "partition": pl.String}
    table, discovered = pl.DataFrame(rows, schema=kinds, orient="row"), freshness.discovered
    waiting = project.tracking.waiting
    kept = [f"{waiting} runs wait in {project.tracking.queue} until MLflow can be reached"] if waiting else []
    notes = (*discovered.notes, *Leftovers.of(freshness).notes(project.settings.automation), *kept)
    return ProjectStatus(freshness.active_checkpoints, table, rejected, discovered.faults, notes)
