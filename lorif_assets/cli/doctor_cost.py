"""What attribution will cost, as `lorif doctor` prints it."""

from typing import TYPE_CHECKING

from rich.table import Table

from lorif_assets.attribution.block_rows import block_rows
from lorif_assets.attribution.cost import CostEstimate, estimate
from lorif_assets.attribution.factor_cost import factor_cost
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.settings import Settings
from lorif_assets.data.shards import list_shards
from lorif_assets.progress import duration
from lorif_assets.project import Project

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_COUNTED_TOKENS = 512
"""Of each example, where operations are counted."""
_OPERATIONS_PER_SECOND = 100e12


def cost_table(project: Project, n_examples: int, max_length: int) -> Table:
    """Return what a checkpoint like the newest costs, of so many examples of so many tokens at most."""
    checkpoint, settings = project.checkpoints.find()[-1], project.settings
    skeleton = project.checkpoints.skeleton(checkpoint, track=settings.recipe.track)
    n_shards = sum(len(list_shards(source, settings.base)) for source in settings.sources)
    cost = estimate(skeleton, settings.recipe, n_examples, n_shards)
    rows = settings.batch.scan_rows or block_rows(cost.decoded_numbers, project.devices.groups()[0].first)
    table = _table_of(cost, rows, checkpoint.name, n_examples, max_length)
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


def _table_of(cost: CostEstimate, scan_rows: int, checkpoint: str, n_examples: int, max_length: int) -> Table:
    table = Table(title=f"cost of a checkpoint like {checkpoint}, {n_examples:,} examples", title_justify="left")
    table.add_column("what", overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("where", overflow="fold")
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
    seconds = operations / _OPERATIONS_PER_SECOND
    table.add_row(
        "passes of the model",
        f"{operations / 1e15:,.3g} PFLOP at most",
        f"{duration(seconds) if seconds >= 1 else 'less than 1 s'} at 100 TFLOP/s, of examples of {max_length:,} tokens",
    )
    return table


def _bytes(size: int) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("KB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:,.1f} {unit}"
    return f"{size} B"
