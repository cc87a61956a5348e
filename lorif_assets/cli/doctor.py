"""`lorif doctor`: what is configured, found and missing, and what attribution will cost."""

import shutil
import sys
from collections import defaultdict
from collections.abc import Callable

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorif_assets.attribution.cost import CostEstimate, estimate
from lorif_assets.attribution.fit_bases import affordable_ranks, byte_budget
from lorif_assets.attribution.memory_verdict import checkpoint_verdict, in_gib
from lorif_assets.cli.environment import config_option
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.data.query_files import query_files
from lorif_assets.data.shards import list_shards, passed_over_notice
from lorif_assets.errors import LorifError, SettingsError
from lorif_assets.evaluation.retraining.training_recipe import imported_trainer, training_recipe
from lorif_assets.freshness.contents import ExampleReader, content_findings
from lorif_assets.freshness.discovery import NO_SOURCES
from lorif_assets.freshness.view import Freshness
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.lake.tables import TABLES
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.project import Project


@click.command()
@config_option
def doctor() -> None:
    """Show what is configured, what was found, what is missing, and what attribution will cost."""
    if not diagnose(Console()):
        sys.exit(1)


def diagnose(console: Console) -> bool:
    """Print the diagnosis, and return whether everything that attribution needs was found."""
    project = Project.open()
    settings = project.settings
    table = Table(show_header=False, box=None, padding=(0, 2))
    sound = True

    def row(label: str, finding: Callable[[], str]) -> None:
        nonlocal sound
        try:
            table.add_row("[green]ok[/]", label, escape(finding()))
        except LorifError as error:
            sound = False
            table.add_row("[red]fault[/]", label, escape(str(error)))

    examples: dict[str, int] = defaultdict(int)

    def source_finding(index: int) -> str:
        source = settings.sources[index]
        shards = list_shards(source, settings.base)
        examples[source.name] = sum(shard.rows for shard in shards)
        notice = passed_over_notice(source, settings.base)
        found = f"{examples[source.name]:,} rows in {len(shards)} shards, {source.path}"
        return f"{found}; {notice}" if notice else found

    query_sets: list[str] = []

    def query_finding() -> str:
        query_sets.extend(query_files(settings))
        return ", ".join(query_sets) or "no file yet"

    readers: list[ExampleReader] = []

    def tokenizer_finding() -> str:
        _checkpoints(project)
        readers.append(ExampleReader.of(project, project.checkpoints.find()[-1]))
        return f"{readers[0].vocabulary:,} ids, at most {readers[0].max_length:,} tokens of an example"

    row("lake", lambda: _lake(project))
    row("tracking", lambda: settings.tracking_uri or "off")
    if not settings.sources:
        row("sources", _no_sources)
    for index, source in enumerate(settings.sources):
        row(f"source {source.name}", lambda index=index: source_finding(index))  # type: ignore[misc]
    row("query sets", query_finding)
    row("checkpoints", lambda: _checkpoints(project))
    row("tokenizer", tokenizer_finding)
    row("layers", lambda: _layers(project))
    row("devices", lambda: ", ".join(str(group) for group in project.devices.groups()))
    row("memory", lambda: _memory(project))
    if settings.influcoder.enabled:
        row("influcoder", _influcoder)
    if settings.evaluation.trainer or settings.evaluation.command:
        row("training recipe", lambda: _training_recipe(settings.evaluation))
    for finding in content_findings(project, next(iter(readers), None), examples, query_sets):
        sound = sound and not finding.is_fault
        verdict = "[red]fault[/]" if finding.is_fault else "[yellow]note[/]"
        table.add_row(verdict, finding.what, escape(finding.text))
    if sound:
        row("active", lambda: _active(project))
    console.print(table)
    if sound:
        console.print(_cost(project, sum(examples.values())))
    return sound


def _cost(project: Project, n_examples: int) -> Table:
    checkpoint, settings = project.checkpoints.find()[-1], project.settings
    skeleton = project.checkpoints.skeleton(checkpoint)
    n_shards = sum(len(list_shards(source, settings.base)) for source in settings.sources)
    return _cost_table(estimate(skeleton, settings.recipe, n_examples, n_shards), checkpoint.name, n_examples)


def _lake(project: Project) -> str:
    project.lake.require_writable()
    for schema in TABLES.values():
        project.lake.table(schema)
    return project.settings.lake_root


def _influcoder() -> str:
    require_influcoder()
    return "its libraries are installed"


def _training_recipe(evaluation: EvaluationSettings) -> str:
    if evaluation.trainer:
        imported_trainer(evaluation.trainer)
    elif shutil.which(evaluation.command[0]) is None:
        raise SettingsError(f"`evaluation.command` cannot be started: there is no program {evaluation.command[0]!r}")
    return training_recipe(evaluation)


def _active(project: Project) -> str:
    freshness = Freshness.of(project)
    return f"{', '.join(freshness.active_checkpoints)}; {', '.join(freshness.active_query_sets) or 'no query set'}"


def _no_sources() -> str:
    raise SettingsError(NO_SOURCES)


def _checkpoints(project: Project) -> str:
    found = project.checkpoints.find()
    if not found:
        raise LorifError(f"{project.checkpoints.location} has no checkpoint yet")
    for checkpoint in found:
        # Of what a registry lists as ready, only the newest is downloaded, for its layers.
        if checkpoint is found[-1] or not checkpoint.is_complete():
            checkpoint.check()
    return f"{len(found)}: {found[0].name} to {found[-1].name}" if len(found) > 1 else found[0].name


def _layers(project: Project) -> str:
    _checkpoints(project)
    recipe, checkpoint = project.settings.recipe, project.checkpoints.find()[-1]
    skeleton = project.checkpoints.skeleton(checkpoint)
    tracked = select_layers(skeleton, recipe.include_layers, recipe.exclude_layers)
    if recipe.whitens:
        shapes = {layer.name: recipe.projection.shape(layer) for layer in tracked}
        if (budget := byte_budget(recipe, shapes)) is not None:
            affordable_ranks(recipe, shapes, budget)
    return f"{len(tracked)} tracked: {tracked[0].name} to {tracked[-1].name}"


def _memory(project: Project) -> str:
    _checkpoints(project)
    checkpoint, settings = project.checkpoints.find()[-1], project.settings
    devices = project.devices.groups()[0]
    verdict = checkpoint_verdict(project.checkpoints, checkpoint, settings.recipe, settings.batch, devices)
    verdict.refuse_shortage(checkpoint.name, devices)
    if verdict.remedies:
        return f"batches are cut to {verdict.most_tokens:,} tokens, as {verdict.shortage}"
    parts = ", ".join(f"{what} {in_gib(size)}" for what, size in verdict.parts.items() if size)
    return f"about {in_gib(verdict.needs.total)} of {in_gib(verdict.memory)} free GiB of {devices}: {parts}"


def _cost_table(cost: CostEstimate, checkpoint: str, n_examples: int) -> Table:
    table = Table(title=f"cost of a checkpoint like {checkpoint}, {n_examples:,} examples", title_justify="left")
    table.add_column("what")
    table.add_column("size", justify="right")
    table.add_column("where")
    table.add_row("tracked layers", f"{cost.n_layers:,}", "recipe.include_layers, recipe.exclude_layers")
    table.add_row("projected gradient", f"{cost.gradient_numbers:,} numbers", "recipe.projection_factor or max_width")
    table.add_row(
        "stored per example", _bytes(cost.bytes_per_example), "recipe.rank or bytes_per_example, recipe.factor_dtype"
    )
    table.add_row("gradient_factors", _bytes(cost.factor_bytes), "disk")
    table.add_row(
        "curvature states", _bytes(cost.curvature_bytes), "disk; recipe.curvature, recipe.r, recipe.oversample"
    )
    if cost.fisher_bytes:
        table.add_row("sums by shard", _bytes(cost.fisher_bytes), "disk; fewer, larger shards make fewer of them")
    table.add_row("largest curvature fit", _bytes(3 * cost.largest_state_bytes), "memory of the device")
    table.add_row("dense query", _bytes(cost.bytes_per_query), "memory of the device, each query of a set")
    table.add_row("passes over the factors", f"{cost.factor_passes} + 1", "fitting + scoring")
    return table


def _bytes(size: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("KB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:,.1f} {unit}"
    return f"{size} B"
