"""`lorif doctor`: what is configured, found and missing, and what attribution will cost."""

import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from lorif_assets.assets.graph import assets_in_use
from lorif_assets.attribution.block_rows import block_rows
from lorif_assets.attribution.checkpoint_weights import averaging_in_words, checkpoint_weights
from lorif_assets.attribution.cost import CostEstimate, estimate
from lorif_assets.attribution.factor_cost import factor_cost
from lorif_assets.attribution.fitted_recipe import fitted_recipe, level_rank
from lorif_assets.attribution.layer_ranks import affordable_ranks, byte_budget
from lorif_assets.attribution.learned_by_heart import REMEDY, learned_by_heart
from lorif_assets.attribution.memory_verdict import checkpoint_verdict, in_gib
from lorif_assets.attribution.recipe_on_model import tracked_layers
from lorif_assets.attribution.trial import try_architecture
from lorif_assets.attribution.wasted_bytes import wasted_bytes
from lorif_assets.automation.records import disagreements
from lorif_assets.cli.environment import config_option, dagster_home
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.secrets import masked_address, secret_advice
from lorif_assets.config.settings import Settings
from lorif_assets.config.sources import Source
from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.hub_selection import hub_notice
from lorif_assets.data.query_files import QuerySurvey, survey_queries
from lorif_assets.data.shards import in_short, list_shards, passed_over_notice, slices_of_source
from lorif_assets.errors import CheckpointError, LorifError, SettingsError, SourceError
from lorif_assets.evaluation.retraining.training_recipe import imported_trainer, training_recipe
from lorif_assets.freshness.contents import ExampleReader, Finding, content_findings
from lorif_assets.freshness.discovery import NO_SOURCES
from lorif_assets.freshness.incomplete import look_at_checkpoints
from lorif_assets.freshness.leftovers import Leftovers
from lorif_assets.freshness.view import Freshness
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.lake.attribution_tables import KFAC_BASES
from lorif_assets.lake.tables import TABLES
from lorif_assets.mathematics.gradients.layers import TrackedLayer, coverage
from lorif_assets.project import Project

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_COUNTED_TOKENS = 512
"""Of each example, where operations are counted."""
_OPERATIONS_PER_HOUR = 100e12 * 3_600


@click.command()
@click.option(
    "--records", is_flag=True, help="Compare what the tables, Dagster and MLflow tell of what was computed, instead."
)
@config_option
def doctor(*, records: bool) -> None:
    """Show what is configured, what was found, what is missing, and what attribution will cost."""
    if not (compare_records(Console()) if records else diagnose(Console())):
        sys.exit(1)


def compare_records(console: Console) -> bool:
    """Print where Dagster or MLflow tells otherwise than the tables, and return whether all of them agree."""
    project = Project.open()
    with dg.DagsterInstance.from_config(str(dagster_home())) as instance:
        found = list(disagreements(instance, assets_in_use(project.settings), project))
    for sentence in found:
        console.print(Text(sentence, style="red"), soft_wrap=True)
    if not found:
        console.print("the tables, Dagster and MLflow agree")
    return not found


def diagnose(console: Console) -> bool:
    """Print the diagnosis, and return whether everything that attribution needs was found."""
    project = Project.open()
    settings = project.settings
    # Names and paths in findings are there to be copied.
    table = Table(Column(), Column(), Column(overflow="fold"), show_header=False, box=None, padding=(0, 2))
    sound = True

    def row(label: str, finding: Callable[[], str]) -> None:
        nonlocal sound
        try:
            table.add_row("[green]ok[/]", label, escape(finding()))
        except LorifError as error:
            sound = False
            table.add_row("[red]fault[/]", label, escape(str(error)))

    def notes(label: str, texts: Iterable[str]) -> None:
        for text in texts:
            table.add_row("[yellow]note[/]", label, escape(text))

    examples: dict[str, int] = defaultdict(int)

    def source_finding(index: int) -> str:
        source = settings.sources[index]
        shards = slices_of_source(source, settings.base)
        examples[source.name] = sum(shard.rows for shard in shards)
        return _shards(source, shards, settings.base)

    query_sets: list[str] = []

    def query_finding() -> str:
        found = survey_queries(settings)
        query_sets.extend(found.files)
        return _query_sets(found)

    readers: list[ExampleReader] = []

    def tokenizer_finding() -> str:
        _checkpoints(project)
        readers.append(ExampleReader.of(project, project.checkpoints.find()[-1]))
        found = f"{readers[0].vocabulary:,} ids, at most {readers[0].max_length:,} tokens of an example"
        return f"{found}; {readers[0].notice}" if readers[0].notice else found

    row("lake", lambda: _lake(project))
    row("tracking", lambda: masked_address(settings.tracking_uri) if settings.tracking_uri else "off")
    notes("secrets", map(secret_advice, settings.written_secrets))
    if not settings.sources:
        row("sources", _no_sources)
    for index, source in enumerate(settings.sources):
        row(f"source {source.name}", lambda index=index: source_finding(index))  # type: ignore[misc]
    row("query sets", query_finding)
    row("checkpoints", lambda: _checkpoints(project))
    notes("checkpoints", _notes(project))
    notes("stored", _leftovers(project))
    row("tokenizer", tokenizer_finding)
    for label, of_model in _of_models(project).items():
        row(label, of_model)
    contents = content_findings(project, next(iter(readers), None), examples, query_sets)
    sound = _shown_as_sound(table, contents) and sound
    notes("recipe", _wasted(project))
    notes("learned by heart", _learned(project))
    if sound:
        row("active", lambda: _active(project))
        row("scores", lambda: _looked_at(project))
    console.print(table)
    if sound:
        console.print(_cost(project, sum(examples.values()), readers[0].max_length))
    return sound


def _shown_as_sound(table: Table, findings: Iterable[Finding]) -> bool:
    """Show what was found of contents, and return whether none of it is a fault."""
    faults = 0
    for finding in findings:
        faults += finding.is_fault
        verdict = "[red]fault[/]" if finding.is_fault else "[yellow]note[/]"
        table.add_row(verdict, finding.what, escape(finding.text))
    return faults == 0


def _of_models(project: Project) -> Mapping[str, Callable[[], str]]:
    """What is found out of the model and of what else is trained, by label."""
    evaluation = project.settings.evaluation
    findings: dict[str, Callable[[], str]] = {
        "layers": lambda: _layers(project),
        "recipe": lambda: _recipe(project),
        "engine": project.engine.found,
        "devices": lambda: ", ".join(str(group) for group in project.devices.groups()),
        "memory": lambda: _memory(project),
    }
    if project.settings.influcoder.enabled:
        findings["influcoder"] = _influcoder
    if evaluation.trainer or evaluation.command:
        findings["training recipe"] = lambda: _training_recipe(evaluation)
    return findings


def _cost(project: Project, n_examples: int, max_length: int) -> Table:
    checkpoint, settings = project.checkpoints.find()[-1], project.settings
    skeleton = project.checkpoints.skeleton(checkpoint, track=settings.recipe.track)
    n_shards = sum(len(list_shards(source, settings.base)) for source in settings.sources)
    cost = estimate(skeleton, settings.recipe, n_examples, n_shards)
    rows = settings.batch.scan_rows or block_rows(cost.decoded_numbers, project.devices.groups()[0].first)
    table = _cost_table(cost, rows, checkpoint.name, n_examples, max_length)
    if settings.recipe.track == "weights":
        table.add_row(
            "factors beside the bare passes",
            _beside_the_floor(skeleton, settings),
            f"counted for batches of {settings.batch.tokens:,} tokens, not measured",
        )
    if settings.exact_scores.enabled:
        table.add_row("exact re-ranking", _bytes(cost.whole_inverse_bytes), _exact_passes(settings.exact_scores))
    return table


def _beside_the_floor(skeleton: "PreTrainedModel", settings: Settings) -> str:
    """What the factors of a full batch ask for, as multiples of the model's two passes without them."""
    from lorif_assets.mathematics.operation_counts import H200

    tokens = min(settings.batch.tokens, _COUNTED_TOKENS)
    try:
        cost = factor_cost(skeleton, settings.recipe, settings.batch.tokens // tokens, tokens, settings.batch)
    except (RuntimeError, ValueError, TypeError) as error:
        # Some models look at numbers, which the counting has none of.
        return f"cannot be counted for this model: {str(error).splitlines()[0]}"
    products = cost.whole.all_flops / cost.floor.all_flops
    share = cost.share_of_floor(H200)
    return f"{products:.2f} x products, {cost.whole.bytes / cost.floor.bytes:.2f} x bytes; {share:.0%} of their rate on an H200"


def _exact_passes(exact: ExactScoreSettings) -> str:
    solved = f", {2 * exact.cg_rounds} over {exact.cg_examples:,} for each query" if exact.query_solver == "cg" else ""
    return f"memory of the device; 2 passes over {exact.examples:,} examples{solved}, 1 over those listed"


def _shards(source: Source, shards: Sequence[ShardSlice], base: Path) -> str:
    if faults := [shard.fault for shard in shards if shard.fault]:
        more = f" ({len(faults) - 1} more files cannot be read)" if faults[1:] else ""
        raise SourceError(f"{faults[0]}{more}")
    found = f"{sum(shard.rows for shard in shards):,} rows in {len(shards)} shards, {source.path}"
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
    if faults := freshness.discovered.faults:
        raise LorifError("; ".join(f"{what}: {reason}" for what, reason in faults.items()))
    return f"{', '.join(freshness.active_checkpoints)}; {', '.join(freshness.active_query_sets) or 'no query set'}"


def _learned(project: Project) -> list[str]:
    return [f"{one.words}; {REMEDY}" for one in learned_by_heart(project.lake) if one.is_noteworthy]


def _looked_at(project: Project) -> str:
    groups = Freshness.of(project).averaging_groups
    if not groups:
        return "no active checkpoint is attributed yet"
    records = {record.name: record for record in Freshness.of(project).records}
    *_, group = groups.values()
    recipe = project.settings.recipe
    weights = checkpoint_weights(recipe, project.checkpoints, [records[name] for name in group])
    return averaging_in_words(dict(zip(group, weights, strict=True)), recipe)


def _no_sources() -> str:
    raise SettingsError(NO_SOURCES)


def _checkpoints(project: Project) -> str:
    found = project.checkpoints.find()
    if not found:
        raise LorifError(f"{project.checkpoints.location} has no checkpoint yet")
    if faults := list(filter(None, (checkpoint.fault() for checkpoint in found))):
        raise CheckpointError("; ".join(faults))
    # Of what a registry lists as ready, only the newest is downloaded, for its layers; of the hub, no weights.
    found[-1].check_description()
    names = f"{len(found)}: {found[0].name} to {found[-1].name}" if len(found) > 1 else found[0].name
    bases = dict.fromkeys(str(checkpoint.base.path) for checkpoint in found if checkpoint.adapter)
    return f"{names}; adapters on {', '.join(bases)}" if bases else names


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


def _layers(project: Project) -> str:
    _checkpoints(project)
    recipe, checkpoint = project.settings.recipe, project.checkpoints.find()[-1]
    skeleton = project.checkpoints.skeleton(checkpoint, track=recipe.track)
    tracked = tracked_layers(skeleton, recipe)
    small = project.checkpoints.small_copy(checkpoint)
    is_tried = small is not None and try_architecture(small, tracked)
    found = f"{len(tracked)} tracked: {tracked[0].name} to {tracked[-1].name}; {coverage(skeleton, tracked)}"
    return found if is_tried else f"{found}; that gradients arrive is not tried here, but when it is loaded"


def _fitted(project: Project) -> tuple[Recipe, list[TrackedLayer]]:
    """Return the recipe on the newest checkpoint, and the layers that it tracks there."""
    recipe, checkpoint = project.settings.recipe, project.checkpoints.find()[-1]
    tracked = tracked_layers(project.checkpoints.skeleton(checkpoint, track=recipe.track), recipe)
    return fitted_recipe(recipe, tracked), tracked


def _recipe(project: Project) -> str:
    _checkpoints(project)
    recipe, tracked = _fitted(project)
    shapes = {layer.name: recipe.projection.shape(layer) for layer in tracked}
    if recipe.whitens and (budget := byte_budget(recipe, shapes)) is not None:
        affordable_ranks(recipe, shapes, budget)
    widths = sorted({width for shape in shapes.values() for width in shape})
    sides = f"sides of {widths[0]:,} to {widths[-1]:,} numbers" if widths[1:] else f"sides of {widths[0]:,} numbers"
    projected = sum(shape != (layer.d_in, layer.d_out) for layer, shape in zip(tracked, shapes.values(), strict=True))
    where = f"{projected} of {len(tracked)} layers projected" if projected else "no layer projected"
    ranks = (
        f"about {level_rank(recipe, tracked)} components of a layer"
        if recipe.uniform_rank is None
        else f"rank {recipe.rank}"
    )
    how = "fitted to the model" if project.settings.recipe.is_left_to_the_model else "as set"
    found = f"{how}: {sides}, {where}, {ranks} in {recipe.factor_dtype}"
    return "; ".join([found, *_fitted_bases(project)])


def _fitted_bases(project: Project) -> Iterator[str]:
    """Yield what became of the recipe at the newest checkpoint that has bases of it."""
    columns = ["checkpoint", "d1", "d2", "rank", "bytes_per_example", "expected_agreement", "recipe_hash"]
    names, recipe = [checkpoint.name for checkpoint in project.checkpoints.find()], project.settings.recipe
    found = project.lake.read(KFAC_BASES, columns, checkpoint=names).filter(recipe_hash=recipe.factor_hash)
    name = next((name for name in reversed(names) if name in set(found["checkpoint"])), None)
    if name is None or not recipe.whitens:
        return
    rows = found.filter(checkpoint=name).to_dicts()
    widest, size = max(max(row["d1"], row["d2"]) for row in rows), sum(row["bytes_per_example"] for row in rows)
    ranks = [row["rank"] for row in rows]
    yield f"at {name} sides of up to {widest:,} numbers, ranks of {min(ranks)} to {max(ranks)}, {size:,} bytes"
    if (agreement := rows[0]["expected_agreement"]) is not None:
        yield f"expected agreement with exact EK-FAC {agreement:.2f} (NDCG@20)"


def _wasted(project: Project) -> list[str]:
    try:
        return wasted_bytes(*_fitted(project))
    except (LorifError, IndexError):
        # The rows of checkpoints and layers say it.
        return []


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


def _cost_table(cost: CostEstimate, scan_rows: int, checkpoint: str, n_examples: int, max_length: int) -> Table:
    table = Table(title=f"cost of a checkpoint like {checkpoint}, {n_examples:,} examples", title_justify="left")
    table.add_column("what")
    table.add_column("size", justify="right")
    table.add_column("where")
    table.add_row("tracked layers", f"{cost.n_layers:,}", "recipe.include_layers, recipe.exclude_layers")
    table.add_row("projected gradient", f"{cost.gradient_numbers:,} numbers", "recipe.max_width or projection_factor")
    table.add_row(
        "stored per example", _bytes(cost.bytes_per_example), "recipe.bytes_per_example or rank, recipe.factor_dtype"
    )
    table.add_row("gradient_factors", _bytes(cost.factor_bytes), "disk")
    table.add_row(
        "curvature states", _bytes(cost.curvature_bytes), "disk; recipe.curvature, recipe.r, recipe.oversample"
    )
    if cost.fisher_bytes:
        table.add_row("sums by shard", _bytes(cost.fisher_bytes), "disk; fewer, larger shards make fewer of them")
    table.add_row("largest curvature fit", _bytes(3 * cost.largest_state_bytes), "memory of the device")
    table.add_row("block of a scan", f"{scan_rows:,} examples", "batch.scan_rows, else by the device's free memory")
    table.add_row("dense query", _bytes(cost.bytes_per_query), "memory of the device, each query of a set")
    table.add_row("passes over the factors", f"{cost.factor_passes} + 1", "fitting + scoring")
    table.add_row(
        "files and commits", f"{cost.objects:,} and {cost.commits:,}", "lake; fewer, larger shards take fewer"
    )
    operations = cost.operations(n_examples * max_length)
    table.add_row(
        "passes of the model",
        f"{operations / 1e15:,.3g} PFLOP at most",
        f"{operations / _OPERATIONS_PER_HOUR:,.3g} hours at 100 TFLOP/s, of examples of {max_length:,} tokens",
    )
    return table


def _bytes(size: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("KB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:,.1f} {unit}"
    return f"{size} B"
