"""`lorif doctor`: what is configured, found and missing, and what attribution will cost."""

import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click
import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from lorif_assets.assets.graph import assets_in_use
from lorif_assets.attribution.checkpoints.averaging_weights import averaging_in_words, checkpoint_weights
from lorif_assets.attribution.checkpoints.learned_by_heart import REMEDY, learned_by_heart
from lorif_assets.automation.records import disagreements
from lorif_assets.automation.sleepers import asleep_in_words, sleepers
from lorif_assets.cli.doctor_cost import cost_table
from lorif_assets.cli.doctor_models import (
    checkpoints_finding,
    described_checkpoint,
    layers_finding,
    memory_finding,
    recipe_finding,
    wasted_notes,
)
from lorif_assets.cli.environment import config_option, dagster_home, project_of_settings
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.secrets import masked_address, secret_advice
from lorif_assets.config.settings import Settings
from lorif_assets.config.sources import Source
from lorif_assets.data.formats.hub_selection import hub_notice
from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.query_files import QuerySurvey, survey_queries
from lorif_assets.data.shards import in_short, passed_over_notice, slices_of_source
from lorif_assets.errors import CheckpointError, LorifError, SettingsError, SourceError
from lorif_assets.evaluation.retraining.trainer_code import changed_trainer_notice
from lorif_assets.evaluation.retraining.training_recipe import imported_trainer, shown_recipe
from lorif_assets.freshness.contents import ExampleReader, Finding, content_findings
from lorif_assets.freshness.discovery import NO_SOURCES
from lorif_assets.freshness.incomplete import look_at_checkpoints
from lorif_assets.freshness.leftovers import Leftovers
from lorif_assets.freshness.view import Freshness
from lorif_assets.influcoder.encoder_places import encoder_in_words
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.lake.tables import TABLES
from lorif_assets.pages.number_format import counted
from lorif_assets.pages.terminal_console import TerminalConsole
from lorif_assets.project import Project


@click.command()
@click.option(
    "--records", is_flag=True, help="Compare what the tables, Dagster and MLflow tell of what was computed, instead."
)
@config_option
def doctor(*, records: bool) -> None:
    """Show what is configured, what was found, what is missing, and what attribution will cost."""
    if not (compare_records(TerminalConsole()) if records else diagnose(TerminalConsole())):
        sys.exit(1)


def compare_records(console: Console) -> bool:
    """Print where Dagster or MLflow tells otherwise than the tables, and return whether all of them agree."""
    project = project_of_settings()
    with dg.DagsterInstance.from_config(str(dagster_home())) as instance:
        found = list(disagreements(instance, assets_in_use(project.settings), project))
        if asleep := sleepers(instance):
            found.append(f"{asleep_in_words(asleep)}, and rests until then; `lorif materialize` wakes it")
    for sentence in found:
        console.print(Text(sentence, style="red"), soft_wrap=True)
    if not found:
        console.print("the tables, Dagster and MLflow agree")
    return not found


class _Findings:
    """What was found, a row each; `faults` has those that are at fault, by what they say.

    `announce` is told what is looked at, before it is found.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.announce = announce
        # Names and paths in findings are there to be copied.
        self.table = Table(Column(), Column(), Column(overflow="fold"), show_header=False, box=None, padding=(0, 2))
        self.faults: dict[str, str] = {}

    def row(self, label: str, finding: Callable[[], str]) -> None:
        self.announce(f"looking at {label}")
        try:
            self.table.add_row("[green]ok[/]", label, escape(finding()))
        except LorifError as error:
            self.fault(label, str(error))

    def fault(self, label: str, text: str) -> None:
        # What several findings stumble over is told once.
        first = self.faults.get(text)
        if first == label:
            return
        self.faults.setdefault(text, label)
        self.table.add_row("[red]fault[/]", label, escape(f"see {first}" if first else text))

    def notes(self, label: str, texts: Iterable[str]) -> None:
        for text in texts:
            self.table.add_row("[yellow]note[/]", label, escape(text))

    def contents(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            if finding.is_fault:
                self.fault(finding.what, finding.text)
            else:
                self.notes(finding.what, [finding.text])


def diagnose(console: Console) -> bool:
    """Print the diagnosis, and return whether everything that attribution needs was found."""
    project = project_of_settings()
    with console.status("looking at lorif.toml") as status:
        found = _Findings(status.update)
        n_examples, reader = _look(project, found)
    console.print(found.table)
    if reader:
        _print_costs(console, project, n_examples, reader.max_length, sound=not found.faults)
    return not found.faults


def _look(project: Project, found: _Findings) -> tuple[int, ExampleReader | None]:
    """Find everything; return how many training examples there are, and what reads them, if anything can."""
    settings = project.settings
    examples: dict[str, int] = defaultdict(int)

    def source_finding(index: int) -> str:
        source = settings.sources[index]
        shards = slices_of_source(source, settings.base)
        examples[source.name] = sum(shard.rows for shard in shards)
        return _shards(source, shards, settings.base)

    query_sets: list[str] = []

    def query_finding() -> str:
        surveyed = survey_queries(settings)
        query_sets.extend(surveyed.files)
        return _query_sets(surveyed)

    readers: list[ExampleReader] = []

    def tokenizer_finding() -> str:
        readers.append(ExampleReader.of(project, described_checkpoint(project)))
        reader = readers[0]
        lengths = f"{reader.vocabulary:,} ids, at most {reader.max_length:,} tokens of an example"
        return f"{lengths}; {reader.notice}" if reader.notice else lengths

    found.row("lake", lambda: _lake(project))
    found.row("tracking", lambda: masked_address(settings.tracking_uri) if settings.tracking_uri else "off")
    found.notes("tracking", _untracked(project))
    found.notes("secrets", map(secret_advice, settings.written_secrets))
    if not settings.sources:
        found.row("sources", _no_sources)
    for index, source in enumerate(settings.sources):
        found.row(f"source {source.name}", lambda index=index: source_finding(index))  # type: ignore[misc]
    found.row("query sets", query_finding)
    found.row("checkpoints", lambda: checkpoints_finding(project))
    found.notes("checkpoints", _notes(project))
    found.notes("stored", _leftovers(project))
    found.row("tokenizer", tokenizer_finding)
    for label, of_model in _of_models(project).items():
        found.row(label, of_model)
    found.notes("training recipe", filter(None, [changed_trainer_notice(settings, project.lake)]))
    found.announce("reading rows of the data")
    contents = list(content_findings(project, next(iter(readers), None), examples, query_sets))
    found.contents(contents)
    found.notes("recipe", wasted_notes(project))
    found.notes("learned by heart", _learned(project))
    if not found.faults:
        found.row("active", lambda: _active(project))
        found.row("scores", lambda: _looked_at(project))
    rows = {f"source {name}": number for name, number in examples.items()}
    packed = {finding.what: finding.n_examples for finding in contents if finding.n_examples is not None}
    return sum((rows | packed).values()), next(iter(readers), None)


def _print_costs(console: Console, project: Project, n_examples: int, max_length: int, *, sound: bool) -> None:
    """Print what attribution costs where everything was found, or all but the weights."""
    if sound:
        active = Freshness.of(project).active_checkpoints
        console.print(cost_table(project, n_examples, max_length, len(active)))
    elif described_checkpoint(project).is_description:
        # What else is at fault, and keeps the costs from being counted, the rows say.
        with suppress(LorifError):
            console.print(cost_table(project, n_examples, max_length, 1))


def _of_models(project: Project) -> Mapping[str, Callable[[], str]]:
    """What is found out of the model and of what else is trained, by label."""
    evaluation = project.settings.evaluation
    findings: dict[str, Callable[[], str]] = {
        "layers": lambda: layers_finding(project),
        "recipe": lambda: recipe_finding(project),
        "engine": project.engine.found,
        "devices": lambda: ", ".join(str(group) for group in project.devices.groups()),
        "memory": lambda: memory_finding(project),
    }
    if project.settings.influcoder.enabled:
        findings["influcoder"] = lambda: _influcoder(project.settings)
    if evaluation.trainer or evaluation.command:
        findings["training recipe"] = lambda: _training_recipe(evaluation)
    return findings


def _shards(source: Source, shards: Sequence[ShardSlice], base: Path) -> str:
    if faults := [shard.fault for shard in shards if shard.fault]:
        more = f" ({len(faults) - 1} more files cannot be read)" if faults[1:] else ""
        raise SourceError(f"{faults[0]}{more}")
    rows = counted(sum(shard.rows for shard in shards), "row")
    found = f"{rows} in {counted(len(shards), 'shard')}, {source.path}"
    return "; ".join([found, *filter(None, (hub_notice(source), passed_over_notice(source, base)))])


def _query_sets(found: QuerySurvey) -> str:
    names = ", ".join(found.files) or "no file yet"
    if found.faults:
        raise SourceError(f"{'; '.join(found.faults.values())}. The others: {names}")
    return f"{names}; passed over: {in_short(found.passed_over)}" if found.passed_over else names


def _lake(project: Project) -> str:
    project.lake.require_writable()
    for schema in TABLES.values():
        project.lake.table(schema)
    return project.settings.lake_root


def _influcoder(settings: Settings) -> str:
    require_influcoder()
    place = encoder_in_words(settings, settings.influcoder.encoder, "influcoder.encoder")
    return f"its libraries are installed; training starts from {place}"


def _training_recipe(evaluation: EvaluationSettings) -> str:
    if evaluation.trainer:
        imported_trainer(evaluation.trainer)
    elif shutil.which(evaluation.command[0]) is None:
        raise SettingsError(f"`evaluation.command` cannot be started: there is no program {evaluation.command[0]!r}")
    return shown_recipe(evaluation)


def _active(project: Project) -> str:
    freshness = Freshness.of(project)
    if faults := freshness.discovered.faults:
        raise LorifError("; ".join(f"{what}: {reason}" for what, reason in faults.items()))
    return f"{', '.join(freshness.active_checkpoints)}; {', '.join(freshness.active_query_sets) or 'no query set'}"


def _learned(project: Project) -> list[str]:
    return [f"{one.words}; {REMEDY}" for one in learned_by_heart(project.lake) if one.is_noteworthy]


def _looked_at(project: Project) -> str:
    freshness = Freshness.of(project)
    groups = freshness.averaging_groups
    if not groups:
        return "no active checkpoint is attributed yet"
    records = {record.name: record for record in freshness.records}
    *_, group = groups.values()
    recipe = project.settings.recipe
    weights = checkpoint_weights(recipe, project.checkpoints, [records[name] for name in group])
    return averaging_in_words(dict(zip(group, weights, strict=True)), recipe)


def _no_sources() -> str:
    raise SettingsError(NO_SOURCES)


def _notes(project: Project) -> Sequence[str]:
    try:
        return list(look_at_checkpoints(project).sentences(active=project.settings.active.checkpoints))
    except CheckpointError:
        # The row of the checkpoints says it.
        return ()


def _leftovers(project: Project) -> Sequence[str]:
    try:
        return Leftovers.of(Freshness.of(project)).notes(project.settings.automation)
    except LorifError:
        # The rows of the sources and the checkpoints say it.
        return ()


def _untracked(project: Project) -> Iterator[str]:
    if silence := project.tracking.silence:
        yield f"MLflow does not answer ({silence}): attribution goes on, and what is to be tracked is kept until it does"
    if waiting := project.tracking.waiting:
        yield f"what is to be tracked of {waiting:,} run{'s' if waiting > 1 else ''} is kept until MLflow takes it"
