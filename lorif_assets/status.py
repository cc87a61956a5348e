"""`lorif status`: which partitions are up to date, missing or stale, and why."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from lorif_assets.assets.graph import assets_in_use
from lorif_assets.discovery import discover
from lorif_assets.project_resources import project_resources
from lorif_assets.settings import load_settings
from lorif_assets.stale_partitions import MISSING, StalePartitions
from lorif_assets.staleness import Staleness
from resources.lake_snapshot import LakeSnapshot


def show_status(console: Console) -> None:
    """Print one line per asset, and below it the stale partitions by reason."""
    resources = project_resources(load_settings())
    seen = LakeSnapshot.of(resources["lake"])
    found = discover(resources["settings"], resources["model_checkpoints"], seen)
    staleness = Staleness(resources["settings"], seen, resources["model_checkpoints"], found)
    table = Table(
        title=f"active checkpoints: {', '.join(staleness.active_checkpoints) or 'none'}", title_justify="left"
    )
    table.add_column("asset")
    table.add_column("missing", justify="right")
    table.add_column("stale", justify="right")
    table.add_column("why; for instance")
    for name in (asset.key.to_user_string() for asset in assets_in_use(resources["settings"])):
        stale: StalePartitions = getattr(staleness, name)()
        counts = Counter(partition.reason for partition in stale.values())
        example = next(iter(stale.items()), None)
        table.add_row(
            name,
            str(counts[MISSING] or ""),
            str(counts.total() - counts[MISSING] or ""),
            f"{example[1].reason}: {example[0]}" if example else "[green]up to date[/]",
        )
    console.print(table)
    console.print("An asset is judged by what is stored above it: update the first one that is not up to date first.")
