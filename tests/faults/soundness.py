"""Whether a project's stored results are sound: readable, whole, and those that a new computation gives."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import dagster as dg

from lorif_assets.assets.graph import ASSETS
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.automation.records import disagreements
from lorif_assets.config.settings import load_settings
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.attribution_tables import QUERY_SCORES
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.tables import TABLES
from lorif_assets.project import Project

_SCORED = ["checkpoint", "query_set", "query_id", "side", "rank", "example_id"]
_TOLERANCE = 1e-3


def unreadable(root: Path) -> list[str]:
    """Return what cannot be read of the lake's tables and of the files that their rows point to."""
    lake, found = _project(root).lake, []
    for schema in TABLES.values():
        try:
            rows = lake.read(schema)
        except Exception as error:  # Whatever it is, it is what is looked for.
            found.append(f"{schema.name}: {type(error).__name__}: {error}")
            continue
        for column in (name for name in ("uri", "state_uri") if name in rows.columns):
            found += [f"{schema.name}: {uri}" for uri in rows[column].drop_nulls().unique() if not _is_there(lake, uri)]
    return found


def differences(root: Path, scratch: Path) -> list[str]:
    """Return how the stored results of a project that is up to date differ from those of a new, empty lake, and from records.

    Dagster and MLflow must tell of each result what the tables hold, and nothing may wait to be told.
    """
    project = _project(root)
    freshness = Freshness.of(project)
    found = [f"{asset.name}: {key} is stale" for asset in ASSETS for key in asset.stale(freshness)]
    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        found += disagreements(instance, ASSETS, project)
    found += [f"{project.tracking.waiting} runs are kept from MLflow"] if project.tracking.waiting else []
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(root, scratch, ignore=shutil.ignore_patterns("lake", "dagster", ".materializing*", "*.log"))
    # Bases are fitted once for a checkpoint, to the examples of then.
    shutil.copytree(
        root / "lake", scratch / "lake", ignore=lambda folder, names: _but_bases(root / "lake", folder, names)
    )
    rebuilt = _project(scratch, untracked=True)
    with dg.DagsterInstance.ephemeral() as instance:
        list(bring_up_to_date(instance, ASSETS, rebuilt))
    for schema, columns in (
        (TRAINING_EXAMPLES, ["shard", "row", "example_id", "content_hash"]),
        (QUERY_SCORES, _SCORED),
    ):
        ours, theirs = (one.lake.read(schema).select(columns).sort(columns) for one in (project, rebuilt))
        if schema is TRAINING_EXAMPLES and not ours.equals(theirs):
            found.append(f"{schema.name}: other rows than in a new lake")
    return [*found, *_other_scores(project.lake, rebuilt.lake)]


def _other_scores(ours: Lake, theirs: Lake) -> list[str]:
    key = [name for name in _SCORED if name not in ("rank", "side")]
    both = ours.read(QUERY_SCORES).join(theirs.read(QUERY_SCORES), on=key, how="full", suffix="_new", coalesce=True)
    # An example at the end of a list may be there or not, as equal scores are ordered by rounding.
    shared = both.drop_nulls(["score", "score_new"])
    if shared.height < 0.8 * both.height:
        return [f"query_scores: {shared.height} of {both.height} pairs are in both lakes"]
    spread = shared["score_new"].abs().max() or 1.0
    worst = (shared["score"] - shared["score_new"]).abs().max() or 0.0
    assert isinstance(spread, float)
    assert isinstance(worst, float)
    return [] if worst <= _TOLERANCE * spread else [f"query_scores: {worst} off at a largest score of {spread}"]


def _but_bases(lake: Path, folder: str, names: Sequence[str]) -> Collection[str]:
    return {
        name for name in names if Path(folder) == lake and not name.startswith(("kfac_bases", "checksums", "format"))
    }


def _is_there(lake: Lake, uri: str) -> bool:
    return Path(uri).exists() or Path(lake.root, uri).exists()


def _project(root: Path, *, untracked: bool = False) -> Project:
    settings = load_settings(root / "lorif.toml")
    nowhere = {"tracking": settings.tracking.model_copy(update={"uri": "none"})}
    return Project.of(settings.model_copy(update=nowhere) if untracked else settings)
