"""Checks that load the model and compute a few gradients again: whether factors and scores are what they claim to be."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.partitions import checkpoints_in
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.attribution.checkpoints.checkpoint import AttributedCheckpoint, StoredCheckpoint
from lorif_assets.checks.check_result import check_result
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.errors import MismatchError
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import Devices
from resources import inspected_project

# A sample costs two passes of these examples through the model.
_SHARDS, _ROWS = 8, 4
# New factors of the same gradients differ by rounding alone; the rest is room for a spectrum without gaps.
_WITHIN = 1.05
_ROUNDING = 0.002
# Gradients of a model in half precision differ by the batch that they are computed in.
_HALF_PRECISION_ERROR = 0.05
_FAILED = "failed_checkpoints"
_EVALUATED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
_TOP = 10
_RETRIEVED = 0.9


@dg.asset_check(
    asset=gradient_factors.definition,
    pool="gpu",
    description="Stored factors of a sample reproduce its gradients, computed again, as well as new factors do.",
)
def factors_reproduce_gradients(
    context: dg.AssetCheckExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    devices: dg.ResourceParam[Devices],
) -> dg.AssetCheckResult:
    """Compare each layer's relative error with that of new factors of the same rank and format."""
    from lorif_assets.attribution.exact.stored_sample import reconstruction_errors, stored_sample

    wrong, failed, skipped, worst, layers = [], [], [], 0.0, 0
    for name in _to_check(context, _attributed(settings, lake, model_checkpoints)):
        try:
            with _loaded(settings, lake, model_checkpoints, devices, name) as checkpoint:
                sample = stored_sample(checkpoint, shards=_SHARDS, rows=_ROWS)
                errors = reconstruction_errors(checkpoint, sample, settings.batch.tokens)
        except MismatchError as error:
            skipped.append(f"{name}: {error}")
            continue
        for layer, found in errors.items():
            allowed = _WITHIN * found.expected + _rounding(settings.recipe)
            layers += 1
            worst = max(worst, found.error - found.expected)
            if found.error > allowed:
                failed.append(name)
                wrong.append(f"{name}|{layer}: relative error {found.error:.3f}, of new factors {found.expected:.3f}")
    return check_result(
        f"{layers} layers are within {_WITHIN} of the error of new factors",
        wrong,
        remedy="materialize `gradient_factors` of this checkpoint with `recompute: true`",
        layers=layers,
        largest_excess=worst,
        not_checked="\n".join(skipped),
        failed_checkpoints="\n".join(dict.fromkeys(failed)),
    )


@dg.asset_check(
    asset=query_scores.definition,
    pool="gpu",
    description=f"At least {_RETRIEVED:.0%} of a sample of training examples, used as queries, are among their own "
    f"{_TOP} leading proponents, by score or by relative influence.",
)
def examples_retrieve_themselves(
    context: dg.AssetCheckExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    devices: dg.ResourceParam[Devices],
) -> dg.AssetCheckResult:
    """Use training examples as queries: no gradient should match an example's better than its own."""
    from lorif_assets.attribution.exact.stored_sample import own_ranks, stored_sample

    wrong, skipped, ranks = [], [], {}
    for name in _to_check(context, _attributed(settings, lake, model_checkpoints)):
        try:
            with _loaded(settings, lake, model_checkpoints, devices, name) as checkpoint:
                sample = stored_sample(checkpoint, shards=_SHARDS, rows=_ROWS)
                ranks[name] = own_ranks(checkpoint, sample, settings.batch)
        except MismatchError as error:
            skipped.append(f"{name}: {error}")
    failed = []
    rates = {name: sum(rank <= _TOP for rank in found) / len(found) for name, found in ranks.items()}
    for name, rate in rates.items():
        if rate < _RETRIEVED:
            failed.append(name)
            wrong.append(f"{name}: {rate:.0%} of {len(ranks[name])} examples are among their own {_TOP} leading ones")
    return check_result(
        f"self-retrieval at {', '.join(rates) or 'no checkpoint'}",
        wrong,
        remedy="look at the checks of factors and curvature; where they pass, the recipe keeps too little of a gradient: raise "
        "recipe.bytes_per_example, or the r, rank or width that the recipe names",
        severity=dg.AssetCheckSeverity.WARN,
        self_retrieval_rate=min(rates.values(), default=1.0),
        examples=sum(map(len, ranks.values())),
        not_checked="\n".join(skipped),
        failed_checkpoints="\n".join(failed),
    )


def _to_check(context: dg.AssetCheckExecutionContext, checkpoints: Collection[str]) -> list[str]:
    """Return the checkpoints whose sample is computed again: those of the run, and those that failed at the last time.

    A run of the checks alone has no partitions, and looks at all.
    """
    in_run = checkpoints_in(context.run.tags, context.instance)
    (key,) = context.selected_asset_check_keys
    results = context.instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=_EVALUATED)
    last = results[0].event.dagster_event if results and results[0].event else None
    failed = str(last.asset_check_evaluation_data.metadata[_FAILED].value).splitlines() if last else []
    return [name for name in checkpoints if in_run is None or name in in_run or name in failed]


def _attributed(settings: Settings, lake: Lake, model_checkpoints: Checkpoints) -> list[str]:
    """Return the active checkpoints that have factors."""
    active = Freshness.of(inspected_project(settings, lake, model_checkpoints)).active_checkpoints
    stored = set(lake.read(GRADIENT_FACTORS, ["checkpoint"])["checkpoint"])
    return [name for name in active if name in stored]


@contextmanager
def _loaded(
    settings: Settings, lake: Lake, model_checkpoints: Checkpoints, devices: Devices, name: str
) -> Iterator[AttributedCheckpoint]:
    stored = StoredCheckpoint.read(lake, name, settings.recipe)
    # An error about what is missing comes before any wait for a device.
    _ = stored.factors
    with devices.lease() as group:
        yield stored.load(model_checkpoints, group)


def _rounding(recipe: Recipe) -> float:
    return _ROUNDING if recipe.model_dtype == "float32" else _HALF_PRECISION_ERROR
