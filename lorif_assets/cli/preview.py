"""`lorif preview`: the tokens of a source's or query set's first rows, as the model gets them."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from lorif_assets.attribution.recipes.recipe_on_model import longest_input
from lorif_assets.cli.environment import config_option, project_of_settings
from lorif_assets.config.settings import Settings
from lorif_assets.config.sources import Source
from lorif_assets.data.content.query_objectives import ScalarRules
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.preview import PreviewedRow, first_queries, first_rows, preview_rows
from lorif_assets.data.query_files import query_files, query_source
from lorif_assets.data.tokens.rules import TokenRules
from lorif_assets.errors import CheckpointError, SettingsError
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.loading.vocabulary import vocabulary_size
from lorif_assets.pages.passages import visible
from lorif_assets.pages.terminal_console import TerminalConsole
from lorif_assets.project import Project

_Reader = Callable[[Source, Path, int], Iterator[tuple[str, RawShard]]]
_Chosen = tuple[Source, _Reader, TokenRules, ScalarRules | None]


@click.command()
@click.option("--checkpoint", help="Whose tokenizer reads the rows; default: the newest.")
@click.option("--source", help="A source of training data; default: every source and query set.")
@click.option("--queries", help="A query set, in place of a source.")
@click.option("--rows", default=5, show_default=True, type=click.IntRange(min=1), help="Rows to show of each.")
@click.option("--json", "as_json", is_flag=True, help="Print each row as a JSON object on a line of its own.")
@config_option
def preview(checkpoint: str | None, source: str | None, queries: str | None, rows: int, *, as_json: bool) -> None:
    """Show the tokens that the model gets of each example: which carry loss, what was cut, what was set aside."""
    project = project_of_settings()
    chosen = _chosen(project.settings, source, queries)
    console = TerminalConsole()
    for title, previewed in _previews(project, checkpoint, chosen, rows):
        if as_json:
            for row in previewed:
                click.echo(json.dumps(row.as_json(), ensure_ascii=False))
        else:
            print_preview(console, title, previewed)


def print_preview(console: Console, title: str, previewed: Sequence[PreviewedRow]) -> None:
    """Print rows with the tokens that carry loss in green; where there are no colours, between double brackets."""
    console.print(Text(title, style="bold"))
    for row in previewed:
        console.print(_heading(row))
        if row.rejected is None:
            console.print(_marked(row, in_colour=console.color_system is not None))


def _heading(row: PreviewedRow) -> Text:
    heading = Text("\n").append(row.example_id, style="bold")
    if row.rejected is not None:
        return heading.append(f"  set aside: {row.rejected} ({row.place})", style="red")
    weight = "" if row.weight == 1 else f", weight {row.weight:g}"
    heading.append(f"  {len(row.input_ids)} tokens, {row.n_targets} with loss{weight}", style="dim")
    for said in ((f"cut: {row.cut}",) if row.cut else ()) + row.notices:
        heading.append(f"\n{said}", style="yellow")
    return heading


def _marked(row: PreviewedRow, *, in_colour: bool) -> Text:
    text = Text()
    for piece in row.pieces:
        shown = visible(piece.text)
        if piece.loss:
            text.append(shown if in_colour else f"[[{shown}]]", style="green")
        else:
            text.append(shown, style="dim")
    return text


def _previews(
    project: Project, checkpoint: str | None, chosen: Sequence[_Chosen], rows: int
) -> Iterator[tuple[str, list[PreviewedRow]]]:
    files = _checkpoint(project.checkpoints, checkpoint)
    with TerminalConsole(stderr=True).status(f"loading the tokenizer of {files.name}"):
        skeleton = project.checkpoints.skeleton(files)
        tokenizer = project.checkpoints.load_tokenizer(files)
    longest, vocabulary = longest_input(skeleton, tokenizer, project.settings.recipe), vocabulary_size(skeleton)
    for source, read, rules, scalar_rules in chosen:
        previewed: list[PreviewedRow] = []
        for shard, raw in read(source, project.settings.base, rows):
            previewed += preview_rows(raw, source.columns, shard, tokenizer, longest, vocabulary, rules, scalar_rules)
        yield f"{source.name} ({source.path}), by the tokenizer of {files.name}", previewed


def _checkpoint(checkpoints: Checkpoints, name: str | None) -> CheckpointFiles:
    if name is not None:
        return checkpoints.get(name)
    if whole := checkpoints.newest_complete():
        return whole
    found = checkpoints.find()
    if not found:
        raise CheckpointError(f"{checkpoints.location} has no checkpoint yet, whose tokenizer would read the rows")
    found[-1].check_description()
    return found[-1]


def _chosen(settings: Settings, source: str | None, queries: str | None) -> list[_Chosen]:
    if source is not None and queries is not None:
        raise SettingsError("--source and --queries exclude each other; name one of them")
    of_examples, of_queries = TokenRules.of_examples(settings.recipe), TokenRules.of_queries(settings.recipe)
    scalar_rules = ScalarRules.of(settings)

    def query_set(name: str) -> _Chosen:
        return query_source(settings, name), first_queries, of_queries, scalar_rules

    if queries is not None:
        return [query_set(queries)]
    chosen: list[_Chosen] = [
        (one, first_rows, of_examples, None) for one in settings.sources if source in {None, one.name}
    ]
    if source is None:
        return [*chosen, *map(query_set, query_files(settings))]
    if not chosen:
        names = ", ".join(one.name for one in settings.sources) or "none"
        raise SettingsError(f"there is no source {source!r}; the settings have {names}")
    return chosen
