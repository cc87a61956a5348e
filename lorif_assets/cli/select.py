"""`lorif select`: part of the training data by its influence on queries, or by name, written as files."""

import json
from pathlib import Path
from typing import BinaryIO

import click

from lorif_assets.api.project import open_project
from lorif_assets.cli.environment import config_option
from lorif_assets.data.id_lists import id_list
from lorif_assets.errors import SettingsError
from lorif_assets.influences.selection import check_output
from lorif_assets.influences.set_influence import SET_RANKINGS, SetRanking
from lorif_assets.influences.wanted_rows import weighted_set
from lorif_assets.pages.selection import print_selection
from lorif_assets.pages.terminal_console import TerminalConsole

_AMOUNT = "A share, such as 10%, or a number of rows"


@click.command()
@click.option(
    "--query-set",
    "query_sets",
    multiple=True,
    metavar="NAME[=WEIGHT]",
    help="Stored queries that rows are selected for; repeatable, weights may be negative. Default: the only one.",
)
@click.option("--query", "queries", multiple=True, metavar="ID", help="Only these queries of the sets; repeatable.")
@click.option("--query-weight", metavar="COLUMN", help="A metadata column of the queries with their weights.")
@click.option("--top", metavar="AMOUNT", help=f"{_AMOUNT}: those that speak for the queries most.")
@click.option("--bottom", metavar="AMOUNT", help=f"{_AMOUNT}: those that speak against them most.")
@click.option(
    "--ids",
    type=click.File("rb"),
    help="In place of a ranking: a file of rows' ids, one a line (- is standard input); shard/id where rows share one.",
)
@click.option("--exclude", is_flag=True, help="Everything but these.")
@click.option(
    "--weights", metavar="COLUMN", help="In place of these: all rows, and a column of this name with weights by rank."
)
@click.option("--by", metavar="COLUMN", help="Rank within the groups of this metadata column, and take of each.")
@click.option("--without-duplicates", is_flag=True, help="Leave out rows that nearly repeat one that is taken.")
@click.option(
    "--ranking",
    default="plain",
    show_default=True,
    type=click.Choice(SET_RANKINGS),
    help="plain: what moves the queries most; relative: for its size (RelatIF); hybrid: RelatIF and shared words (BM25).",
)
@click.option("--source", "sources", multiple=True, help="Select from this source alone; repeatable.")
@click.option("--checkpoint", help="Default: the newest attributed one.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="A .parquet or .jsonl file for rows of one source; else a folder, with a Parquet file for each.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@click.option("--json", "as_json", is_flag=True, help="Print what was selected, and where it came from, as JSON.")
@config_option
def select(
    query_sets: tuple[str, ...],
    queries: tuple[str, ...],
    query_weight: str | None,
    top: str | None,
    bottom: str | None,
    weights: str | None,
    ids: BinaryIO | None,
    by: str | None,
    ranking: SetRanking,
    sources: tuple[str, ...],
    checkpoint: str | None,
    output: Path | None,
    *,
    exclude: bool,
    without_duplicates: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the training data that matter most for queries, or all but those, as their sources have them."""
    if (output is None) != dry_run:
        raise click.UsageError("Name an --output to write to, or ask for a --dry-run.")
    if output is not None:
        # Before rows are ranked, which takes its time.
        check_output(output)
    with open_project() as project:
        selection = project.select(
            dict(map(_weighted, query_sets)),
            queries=queries,
            query_weight=query_weight,
            top=top,
            bottom=bottom,
            weights=weights,
            ids=() if ids is None else id_list(ids.read(), "the list of ids"),
            exclude=exclude,
            by=by,
            without_duplicates=without_duplicates,
            ranking=ranking,
            sources=sources,
            checkpoint=checkpoint,
        )
        lineage = selection.lineage if output is None else selection.write(output)
    if as_json:
        click.echo(json.dumps(lineage, ensure_ascii=False))
    else:
        print_selection(TerminalConsole(), selection, output)


def _weighted(text: str) -> tuple[str, float]:
    try:
        return weighted_set(text)
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint="--query-set") from error
