"""`lorif withdraw`: stored shards that no source names any more, listed, and taken out or kept by a recorded decision."""

from collections.abc import Sequence

import click
import dagster as dg

from lorif_assets.automation.sole_process import sole_process
from lorif_assets.automation.withdrawal import keep
from lorif_assets.automation.withdrawal import withdraw as take_out
from lorif_assets.cli.environment import config_option, dagster_home, project_of_settings
from lorif_assets.errors import SettingsError
from lorif_assets.freshness.leftovers import Leftovers, LeftoverShard
from lorif_assets.freshness.view import Freshness
from lorif_assets.pages.number_format import counted


@click.command()
# Without names: all those that nobody decided to keep.
@click.argument("shards", nargs=-1, metavar="[SHARD]...")
@click.option("--keep", "is_kept", is_flag=True, help="Record that they stay.")
@click.option("--yes", "is_confirmed", is_flag=True, help="Do it, in place of listing what would be done.")
@config_option
def withdraw(*, shards: tuple[str, ...], is_kept: bool, is_confirmed: bool) -> None:
    """Take stored shards that no source names any more out of the scores, or record that they stay."""
    project = project_of_settings()
    with sole_process(project.lake, click.echo):
        found = Leftovers.of(Freshness.of(project))
        chosen = _chosen(found.shards, shards)
        for leftover in chosen:
            click.echo(_line(leftover))
        if not chosen:
            click.echo("no stored shard without a source is left to decide about")
            return
        # Of a shard without rows an interrupted withdrawal left its factors: there is nothing to keep.
        names = [leftover.shard for leftover in chosen if leftover.n_rows or not is_kept]
        what = f"{counted(len(names), 'shard')} {'kept' if is_kept else 'withdrawn'}"
        if found.n_unread:
            click.echo(
                f"the sources have {counted(found.n_unread, 'shard')} to be read first, which may have these rows"
            )
        if not is_confirmed:
            click.echo(f"nothing was done; with --yes: {what}")
            return
        if is_kept:
            keep(project.lake, names)
        else:
            with dg.DagsterInstance.from_config(str(dagster_home())) as instance:
                take_out(project.lake, instance, names)
    click.echo(what if is_kept else f"{what}; `lorif materialize` computes the scores without them")


def _chosen(found: Sequence[LeftoverShard], names: Sequence[str]) -> Sequence[LeftoverShard]:
    """Return the leftover shards that are named, or all that nobody decided about.

    Raises:
        SettingsError: one of the names is not that of such a shard.
    """
    if not names:
        return [leftover for leftover in found if leftover.decided is None]
    by_name = {leftover.shard: leftover for leftover in found}
    for name in names:
        if name not in by_name:
            raise SettingsError(
                f"{name!r} is no stored shard without a source; there are {', '.join(by_name) or 'none'}. A shard that a "
                "source has would be read again: take its rows out of the source"
            )
    return [by_name[name] for name in dict.fromkeys(names)]


def _line(leftover: LeftoverShard) -> str:
    twice = f", {len(leftover.superseded):,} of them in other shards too" if leftover.superseded else ""
    decided = f", kept as decided on {leftover.decided[:10]}" if leftover.decided else ""
    return f"{leftover.shard}: {counted(leftover.n_rows, 'row')}{twice}{decided}"
