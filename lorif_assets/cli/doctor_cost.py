"""What attribution will cost, as `lorif doctor` prints it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
from rich.table import Table

from lorif_assets.attribution.forecast.cost import CostEstimate, estimate
from lorif_assets.attribution.forecast.factor_cost import FactorCost, factor_cost
from lorif_assets.attribution.recipes.block_rows import block_rows
from lorif_assets.automation.dagster_home import named_home
from lorif_assets.automation.measured_rate import MeasuredRate, measured_rate
from lorif_assets.cli.doctor_models import described_checkpoint
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.settings import Settings, existing_settings_file
from lorif_assets.data.shards import list_shards
from lorif_assets.progress import duration
from lorif_assets.project import Project

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_COUNTED_TOKENS = 512
"""Of each example, where operations are counted."""
_OPERATIONS_PER_SECOND = 100e12
_UNITS = {"hours": 3_600, "minutes": 60, "seconds": 1}


def cost_table(project: Project, n_examples: int, max_length: int, n_checkpoints: int) -> Table:
    """Return what a checkpoint like the newest costs, of so many examples of so many tokens at most, and so many of them."""
    checkpoint, settings = described_checkpoint(project), project.settings
    skeleton = project.checkpoints.skeleton(checkpoint, track=settings.recipe.track)
    n_shards = sum(len(list_shards(source, settings.base)) for source in settings.sources)
    cost = estimate(skeleton, settings.recipe, n_examples, n_shards)
    rows = settings.batch.scan_rows or block_rows(cost.decoded_numbers, project.devices.groups()[0].first)
    table = _table_of(cost, rows, checkpoint.name, n_examples, max_length)
    counted = _counted(skeleton, settings) if settings.recipe.track == "weights" else None
    if counted:
        table.add_row("factors beside the bare passes", *_beside_the_floor(counted, settings))
    time = _time_of_factors(_newest_rate(settings), counted, n_examples, max_length, settings)
    if time:
        table.add_row("time of the factors", time.spent(1), time.source)
    if n_checkpoints > 1:
        stored = cost.factor_bytes + cost.curvature_bytes + cost.fisher_bytes
        spent = f"{time.spent(n_checkpoints)} for the factors; " if time else ""
        totals = f"{spent}{n_checkpoints * cost.objects:,} files and {n_checkpoints * cost.commits:,} commits"
        table.add_row(f"all {n_checkpoints} active checkpoints", _bytes(n_checkpoints * stored), totals)
    if settings.exact_scores.enabled:
        table.add_row("exact re-ranking", _bytes(cost.whole_inverse_bytes), _exact_passes(settings.exact_scores))
    return table


@dataclass(frozen=True)
class _Time:
    """What the factors of a checkpoint take, of what kind of device, and where that is known from."""

    seconds: float
    unit: str
    source: str

    def spent(self, checkpoints: int) -> str:
        """Return the time of so many checkpoints in words."""
        seconds = self.seconds * checkpoints
        if seconds < 1:
            return f"less than 1 {self.unit} second"
        name, size = next((name, size) for name, size in _UNITS.items() if seconds >= size)
        return f"{_number(seconds / size)} {self.unit} {name}"


def _newest_rate(settings: Settings) -> MeasuredRate | None:
    """Return the rate that Dagster has recorded, if it has; nothing is made for the question."""
    home = named_home(existing_settings_file())
    if not (home / "dagster.yaml").is_file():
        return None
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            return measured_rate(instance, settings.recipe.factor_hash)
    except Exception:
        # Whatever keeps a database from being read, what is diagnosed here does not need it.
        return None


def _time_of_factors(
    rate: MeasuredRate | None, counted: FactorCost | str | None, n_examples: int, max_length: int, settings: Settings
) -> _Time | None:
    """Return the time at the rate that was measured, else at the one that is counted."""
    from lorif_assets.mathematics.operation_counts import H200

    if rate:
        tokens = n_examples * rate.tokens_per_example
        of_devices = f"{rate.devices} x {rate.hardware}" if rate.devices > 1 else rate.hardware
        source = (
            f"measured: {_number(rate.tokens_per_second)} tokens/s of a worker on {of_devices}, {rate.shards} shards of "
            f"{rate.checkpoint} on {rate.finished:%Y-%m-%d}, {rate.tokens_per_example:,.0f} tokens per example"
        )
        unit = "CPU" if rate.hardware.startswith("a CPU") else "GPU"
        return _Time(rate.devices * tokens / rate.tokens_per_second, unit, source)
    if not isinstance(counted, FactorCost):
        return None
    examples, tokens = _full_batch(settings)
    seconds = counted.whole.seconds(H200) * n_examples * max_length / (examples * tokens)
    source = (
        f"no measured rate is known: counted for an H200, and examples of {max_length:,} tokens; a run records its own"
    )
    return _Time(seconds, "GPU", source)


def _full_batch(settings: Settings) -> tuple[int, int]:
    """Return the examples of the batch that is counted, and the tokens of each."""
    tokens = min(settings.batch.tokens, _COUNTED_TOKENS)
    return settings.batch.tokens // tokens, tokens


def _counted(skeleton: "PreTrainedModel", settings: Settings) -> FactorCost | str:
    """Return what the factors of a full batch ask for, or why that cannot be counted."""
    examples, tokens = _full_batch(settings)
    try:
        return factor_cost(skeleton, settings.recipe, examples, tokens, settings.batch)
    except (RuntimeError, ValueError, TypeError) as error:
        # Some models look at numbers, which the counting has none of.
        return f"cannot be counted for this model: {str(error).splitlines()[0]}"


def _beside_the_floor(counted: FactorCost | str, settings: Settings) -> Sequence[str]:
    """What the factors ask for as multiples of the model's two passes without them, and for which batches."""
    from lorif_assets.mathematics.operation_counts import H200

    batches = f"counted for batches of {settings.batch.tokens:,} tokens, not measured"
    if isinstance(counted, str):
        return counted, batches
    products = counted.whole.all_flops / counted.floor.all_flops
    data = counted.whole.bytes / counted.floor.bytes
    return (
        f"{products:.2f} x products, {data:.2f} x bytes; {counted.share_of_floor(H200):.0%} of their rate on an H200",
        batches,
    )


def _exact_passes(exact: ExactScoreSettings) -> str:
    solved = f", {2 * exact.cg_rounds} over {exact.cg_examples:,} for each query" if exact.query_solver == "cg" else ""
    return f"memory of the device; 2 passes over {exact.examples:,} examples{solved}, 1 over those listed"


def _table_of(cost: CostEstimate, scan_rows: int, checkpoint: str, n_examples: int, max_length: int) -> Table:
    table = Table(title=f"cost of a checkpoint like {checkpoint}, {n_examples:,} examples", title_justify="left")
    table.add_column("what", overflow="fold")
    table.add_column("size", justify="right")
    # Names of settings are there to be copied: none is broken in a terminal of 80 columns.
    table.add_column("where", overflow="fold", min_width=len("recipe.bytes_per_example"))
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
        "files and commits",
        f"{cost.objects:,} and {cost.commits:,}",
        "lake; in an object store two requests or more for each, with its checksums; fewer, larger shards take fewer",
    )
    operations = cost.operations(n_examples * max_length)
    seconds = operations / _OPERATIONS_PER_SECOND
    table.add_row(
        "passes of the model",
        f"{operations / 1e15:,.3g} PFLOP at most",
        f"{duration(seconds) if seconds >= 1 else 'less than 1 s'} at 100 TFLOP/s, of examples of {max_length:,} tokens",
    )
    return table


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= 1_000 else f"{number:.3g}"


def _bytes(size: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("KB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:,.1f} {unit}"
    return f"{size} B"
