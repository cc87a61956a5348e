"""The reports that are stored: which there are, and where."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorif_assets.errors import MismatchError
from lorif_assets.lake.attribution_tables import REPORTS
from lorif_assets.lake.lake import Lake
from lorif_assets.pages.addresses import report_address
from lorif_assets.project import Project


@dataclass(frozen=True)
class StoredReport:
    """The report of a checkpoint and query set; `where` is a path, or an address in an object store."""

    checkpoint: str
    query_set: str
    where: str


def newest_reports(project: Project, checkpoint: str | None, query_set: str | None) -> Sequence[StoredReport]:
    """Return the reports of the newest checkpoint that has any, or of those that are named, the last written first.

    Raises:
        MismatchError: there is none.
    """
    rows = project.lake.read(REPORTS, ["checkpoint", "query_set"]).unique().sort("checkpoint", "query_set")
    stored = [
        StoredReport(name, asked, place_of_page(project.lake, report_address(name, asked)))
        for name, asked in rows.iter_rows()
    ]
    found = [one for one in stored if checkpoint in {None, one.checkpoint} and query_set in {None, one.query_set}]
    if not found:
        there = ", ".join(f"{one.checkpoint} {one.query_set}" for one in stored) or "none at all"
        raise MismatchError(
            f"the lake has no report of {query_set or 'any query set'} at {checkpoint or 'any checkpoint'}; it has {there}. "
            "`lorif materialize` writes those of what is active"
        )
    # A checkpoint whose files are gone is older than those that are there.
    order = {one.name: number for number, one in enumerate(project.checkpoints.complete())}
    newest = max(found, key=lambda one: order.get(one.checkpoint, -1)).checkpoint
    return sorted((one for one in found if one.checkpoint == newest), key=_written, reverse=True)


def place_of_page(lake: Lake, address: str) -> str:
    """Return where a page is, by its address: tables say where it was written, before a project may have been moved."""
    return f"{lake.root.rstrip('/')}/{address}"


def _written(report: StoredReport) -> float:
    file = Path(report.where)
    return file.stat().st_mtime if file.is_file() else 0.0
