"""`lorif status`: which partitions are up to date, missing or out of date, and why."""

from collections import Counter
from dataclasses import replace

import click
from rich.console import Console
from rich.table import Table

from lorif_assets.assets.graph import assets_in_use
from lorif_assets.cli.environment import config_option
from lorif_assets.freshness.stale import MISSING
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.snapshot import LakeSnapshot
from lorif_assets.project import Project


@click.command()
@config_option
def status() -> None:
    """Show which partitions are up to date, missing or out of date, and why."""
    show_status(Console())


def show_status(console: Console) -> None:
    """Print one line per asset, and below it the stale partitions by reason."""
    project = Project.open()
    seen = replace(project, lake=LakeSnapshot.of(project.lake))
    freshness = Freshness.of(seen)
    table = Table(
        title=f"active checkpoints: {', '.join(freshness.active_checkpoints) or 'none'}", title_justify="left"
    )
    table.add_column("asset")
    table.add_column("missing", justify="right")
    table.add_column("stale", justify="right")
    table.add_column("why; for instance")
    for asset in assets_in_use(project.settings):
        stale = asset.stale(freshness)
        counts = Counter(partition.reason for partition in stale.values())
        example = next(iter(stale.items()), None)
        table.add_row(
            asset.name,
            str(counts[MISSING] or ""),
            str(counts.total() - counts[MISSING] or ""),
            f"{example[1].reason}: {example[0]}" if example else "[green]up to date[/]",
        )
    console.print(table)
    console.print("An asset is judged by what is stored above it: update the first one that is not up to date first.")
