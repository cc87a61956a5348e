"""What an asset of the graph declares: its table, its inputs, and which of its partitions are out of date."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import dagster as dg

from lorif_assets.assets.backfills import assets_asked_for, up_to_date
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.partitions import dimensions
from lorif_assets.config.secrets import kept_secret
from lorif_assets.config.settings import Settings
from lorif_assets.freshness.stale import StalePartitions
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.table_schema import TableSchema
from resources import RESOURCES

OWNERS = ["team:attribution"]
ON_DEMAND_TAG = "lorif/on_demand"
_ON_DEMAND = (
    'Nothing starts it by itself, "Materialize all" neither: select it without what it is made from, or take its own job '
    "or `lorif evaluate`."
)
_NOT_USED = "These settings have no use for it: change them, or select it without what it is made from."

Materializations = Iterator[dg.MaterializeResult[Any]]


def _always(_: Settings) -> bool:
    return True


def _alone(_: Freshness, key: str) -> Sequence[str]:
    return [key]


class Wait(Enum):
    """What a stale partition waits for, of an input and of the assets that the input is made from."""

    FOR_ALL_BEFORE_IT = "until the input's partitions, and all that they wait for themselves, are up to date"
    FOR_IT_ALONE = (
        "until the input's partitions are up to date, which stay fit for use while the data that they come from change"
    )
    NEVER = "for nothing of the input"


@dataclass(frozen=True)
class Input:
    """One asset that another one is made from.

    An asset that is made from another one partition by partition, with the same keys, names it without this.
    """

    asset: "AttributionAsset"
    mapping: dg.PartitionMapping | None = None
    """Which of its partitions; None: that of the same key."""
    wait: Wait = Wait.FOR_ALL_BEFORE_IT
    is_dependency: bool = True
    """Whether Dagster knows of it; Dagster then shows a partition as stale as soon as the input has a new version."""
    is_used: Callable[[Settings], bool] = _always
    """Whether it is an input under these settings."""
    is_read: Callable[[Settings], bool] = _always
    """Whether anything is computed from it under these settings; an input that is not read is only waited for."""


@dataclass(frozen=True, eq=False)
class Declaration:
    """What an asset of the graph declares that Dagster has no words for."""

    table: TableSchema
    inputs: tuple[Input, ...]
    find_stale: Callable[[Freshness], StalePartitions]
    is_used: Callable[[Settings], bool]
    """Whether it has anything to do under these settings."""
    on_demand: bool
    """Whether it is brought up to date only on request, and never by itself."""
    companions: Callable[[Freshness, str], Iterable[str]]
    """The partitions of this asset from whose inputs a partition is computed, itself included."""

    def is_left_out(self, settings: Settings) -> bool:
        """Whether a run leaves it out that was asked for what it is made from as well ("Materialize all")."""
        return self.on_demand or not self.is_used(settings)

    def ordinary_upstream(self, settings: Settings) -> Iterator[dg.AssetKey]:
        """Yield the keys of the assets that it is made from, near and far, and that no run leaves out."""
        for one in self.inputs:
            if not one.asset.is_left_out(settings):
                yield one.asset.key
            yield from one.asset.ordinary_upstream(settings)


@dataclass(frozen=True, eq=False)
class AttributionAsset(Declaration):
    """An asset of the graph: its declaration, and its definition for Dagster."""

    definition: dg.AssetsDefinition

    @property
    def key(self) -> dg.AssetKey:
        """Dagster's key."""
        return self.definition.key

    @property
    def name(self) -> str:
        """The name of the asset in runs, jobs and tracked runs."""
        return self.key.to_user_string()

    @property
    def partitions(self) -> dg.PartitionsDefinition[str]:
        """The partitions, which every asset of the graph has."""
        definition = self.definition.partitions_def
        if definition is None:
            raise TypeError(f"{self.name} has no partitions")
        return definition

    def stale(self, freshness: Freshness) -> StalePartitions:
        """Return the partitions that are missing or out of date, with the reason; none if the asset is not used."""
        if not self.is_used(freshness.settings):
            return {}
        return freshness.explained(self.name, dimensions(self.partitions), self.find_stale(freshness))


def attribution_asset(
    *,
    group: str,
    table: TableSchema,
    partitions: dg.PartitionsDefinition[str],
    inputs: Sequence[AttributionAsset | Input] = (),
    find_stale: Callable[[Freshness], StalePartitions],
    kinds: set[str],
    name: str | None = None,
    description: str | None = None,
    options: type[dg.Config] | None = None,
    on_device: bool = False,
    one_at_a_time: bool = False,
    on_demand: bool = False,
    is_used: Callable[[Settings], bool] = _always,
    companions: Callable[[Freshness, str], Iterable[str]] = _alone,
) -> Callable[[Callable[..., Materializations]], AttributionAsset]:
    """Make an asset from a function that takes a `PartitionRun`, and its options if there are any, and yields commits.

    Args:
        group: of assets in Dagster's UI.
        table: that the asset writes.
        partitions: of the asset.
        inputs: the assets that it is made from; an asset without `Input` means its partition of the same key.
        find_stale: finds the partitions that are missing or out of date.
        kinds: what Dagster's UI shows as its tools.
        name: of the asset; default: the function's.
        description: of the asset; default: the function's docstring.
        options: what can be chosen for a run; the function's second argument.
        on_device: whether runs wait for a place in the pool of those that use the model.
        one_at_a_time: whether each partition takes a run of its own; else a run takes any number.
        on_demand: as in `AttributionAsset`.
        is_used: as in `AttributionAsset`.
        companions: as in `AttributionAsset`.
    """
    asset_inputs = tuple(item if isinstance(item, Input) else Input(item) for item in inputs)

    def declare(compute: Callable[..., Materializations]) -> AttributionAsset:
        declaration = Declaration(table, asset_inputs, find_stale, is_used, on_demand, companions)
        explained = inspect.cleandoc(description or compute.__doc__ or "")
        definition = dg.asset(
            name=name or compute.__name__,
            description=f"{explained}\n\n{_ON_DEMAND}" if on_demand else explained,
            tags={ON_DEMAND_TAG: "true"} if on_demand else None,
            group_name=group,
            partitions_def=partitions,
            deps=[
                dg.AssetDep(item.asset.key, partition_mapping=item.mapping)
                for item in asset_inputs
                if item.is_dependency
            ],
            backfill_policy=None if one_at_a_time else dg.BackfillPolicy.single_run(),
            # A run of many partitions records each as it is written: see `PartitionRun.commit`.
            output_required=False,
            pool="gpu" if on_device else None,
            code_version="1",
            owners=OWNERS,
            kinds=kinds,
            metadata=_table_metadata(table),
            required_resource_keys=RESOURCES,
        )(_run_function(declaration, compute, options))
        return AttributionAsset(**vars(declaration), definition=definition)

    return declare


def _run_function(
    declaration: Declaration, compute: Callable[..., Materializations], options: type[dg.Config] | None
) -> Callable[..., Materializations]:
    if options is None:

        def run(context: dg.AssetExecutionContext) -> Materializations:
            yield from _run(declaration, compute, context)

        return run

    def configured_run(context: dg.AssetExecutionContext, config: options) -> Materializations:  # type: ignore[valid-type]
        yield from _run(declaration, compute, context, config)

    return configured_run


def _run(
    declaration: Declaration,
    compute: Callable[..., Materializations],
    context: dg.AssetExecutionContext,
    *config: dg.Config,
) -> Materializations:
    """Compute the partitions of a run: of a backfill those that are out of date, and none that nobody can have meant."""
    run = PartitionRun(context)
    run.discard_damaged()
    asked = assets_asked_for(context)
    if declaration.is_left_out(run.settings) and not asked.isdisjoint(declaration.ordinary_upstream(run.settings)):
        reason = _ON_DEMAND if declaration.on_demand else _NOT_USED
        run.log.warning(f"left out, as it was asked for together with what it is made from. {reason}")
    else:
        has_options = any(given != type(given)() for given in config)
        recorded = {} if has_options else up_to_date(context, run.project, declaration.table, declaration.find_stale)
        for key, event in recorded.items():
            yield from run.commit_again(key, event)
        run.partitions = [key for key in run.partitions if key not in recorded]
        if run.partitions:
            with kept_secret(run.settings.secrets):
                yield from compute(run, *config)
    yield from run.end()


def _table_metadata(schema: TableSchema) -> Mapping[str, Any]:
    columns = [
        dg.TableColumn(
            field.name,
            str(field.type),
            description=schema.meanings[field.name]
            + (" (partition column)" if field.name in schema.partition_by else ""),
        )
        for field in schema.columns
    ]
    if schema.open_columns is not None:
        meaning = "one column per tracked layer: the bytes of the example's factors in it"
        columns.append(dg.TableColumn("<layer>", str(schema.open_columns), description=meaning))
    return {"dagster/table_name": schema.name, "dagster/column_schema": dg.TableSchema(columns=columns)}
