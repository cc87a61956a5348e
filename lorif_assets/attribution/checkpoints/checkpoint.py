"""One attributed checkpoint: what the lake holds of it, its model, and the checkpoints its scores are averaged with."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from lorif_assets.attribution.checkpoints.active import active_checkpoints, comparable_base
from lorif_assets.attribution.checkpoints.averaging_weights import checkpoint_weights
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord, checkpoint_record
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.attribution.stored.factors import StoredFactors, stored_factors
from lorif_assets.attribution.stored.preconditioners import StoredPreconditioners, stored_preconditioners
from lorif_assets.attribution.stored.versions import averaged_version, score_version
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.errors import SettingsError
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.curvature import LayerPreconditioner
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases


@dataclass(frozen=True)
class StoredCheckpoint:
    """What the lake holds of a recorded checkpoint under a recipe; factors and preconditioners are looked up once."""

    lake: Lake
    recipe: Recipe
    record: CheckpointRecord

    @classmethod
    def read(cls, lake: Lake, name: str, recipe: Recipe) -> "StoredCheckpoint":
        """Read a checkpoint's record.

        Raises:
            MismatchError: there is none, or it was written with other settings for layers or projection.
        """
        return cls(lake, recipe, checkpoint_record(lake, name, recipe))

    @cached_property
    def factors(self) -> StoredFactors:
        """The gradient factors of all its shards.

        Raises:
            MismatchError: there are none, or some were not computed from what the record and the recipe say.
        """
        return stored_factors(self.lake, self.record, self.recipe)

    @cached_property
    def preconditioners(self) -> StoredPreconditioners:
        """The preconditioners of all its layers.

        Raises:
            MismatchError: some are missing, or were not fitted to these factors.
        """
        return stored_preconditioners(self.lake, self.record, self.recipe, self.factors)

    @property
    def immutable_files(self) -> set[str]:
        """The files of its factors, curvature and bases, none of which is ever written again."""
        bases = self.record.frozen_bases.uris.values() if self.record.frozen_bases else ()
        states = (row["state_uri"] for row in self.preconditioners.rows.values())
        return {*(file.path for file in self.factors.files), *states, *bases}

    def bases(self, layer: str, device: "torch.device") -> "KfacBases | None":
        """Return the bases that a layer's gradients are whitened in, or None where they are not."""
        frozen = self.record.frozen_bases
        return frozen.load(self.lake, layer, device) if frozen else None

    def score_version(self, query_set_hash: str) -> str:
        """Return the version of a query set's scores by this checkpoint alone."""
        refined = self.preconditioners.basis_versions
        return score_version(self.recipe, self.record, self.factors.shard_hashes, query_set_hash, refined)

    def load(self, model_checkpoints: Checkpoints, devices: DeviceGroup) -> "AttributedCheckpoint":
        """Load the model.

        Raises:
            MismatchError: the files changed since they were recorded.
            CheckpointError: it cannot be loaded, or its tokenizer does not fit its embeddings.
        """
        return AttributedCheckpoint(self, AttributedModel.load(self.record, self.recipe, model_checkpoints, devices))


class QueriedCheckpoint(Protocol):
    """A checkpoint to which queries are put: its model and its factors may be used in this process, or by workers."""

    @property
    def stored(self) -> StoredCheckpoint:
        """What the lake holds of it."""
        ...

    @property
    def parts(self) -> int:
        """Into how many parts a scan of its factors is best cut."""
        ...

    def with_model(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function of a `LoadedCheckpoint` and of these arguments returns."""
        ...

    def scanned(self, scan: Callable[..., Any], parts: Sequence[Any], progress: Progress) -> Iterator[Any]:
        """Yield what a function of a part, a device and a progress returns for each part, in their order.

        Args:
            scan: the function.
            parts: each with the number of its examples, `n_examples`.
            progress: advances by examples.
        """
        ...


class LoadedCheckpoint(Protocol):
    """A checkpoint whose model is in this process."""

    @property
    def stored(self) -> StoredCheckpoint:
        """What the lake holds of it."""
        ...

    @property
    def model(self) -> AttributedModel:
        """Its model."""
        ...

    @property
    def device(self) -> "torch.device":
        """Where gradients and scores are computed."""
        ...

    def inverse_of(self, layer: str) -> "LayerPreconditioner":
        """Return a layer's stored inverse curvature, on the model's device."""
        ...


@dataclass(frozen=True)
class AttributedCheckpoint:
    """A checkpoint with its model loaded, which computes the gradients that are compared with what is stored."""

    stored: StoredCheckpoint
    model: AttributedModel

    @property
    def device(self) -> "torch.device":
        """Where gradients and scores are computed."""
        return self.model.device

    @property
    def parts(self) -> int:
        """One: a scan is not cut."""
        return 1

    def with_model(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function of this checkpoint returns."""
        return function(self, *arguments)

    def scanned(self, scan: Callable[..., Any], parts: Sequence[Any], progress: Progress) -> Iterator[Any]:
        """Scan the parts, one after the other."""
        return (scan(part, self.device, progress) for part in parts)

    def inverse_of(self, layer: str) -> "LayerPreconditioner":
        """Return a layer's stored inverse curvature, on the model's device."""
        return self.stored.preconditioners.load(layer, self.model.device)


def averaged_checkpoints(
    settings: Settings, found: Sequence[CheckpointFiles], checkpoint: StoredCheckpoint
) -> list[StoredCheckpoint]:
    """Return the checkpoints whose scores are averaged for one of them, which comes last.

    The others are chosen by `recipe.averaged_checkpoints` from the active checkpoints before it, in order of step, then
    name, whose files still exist and that were recorded under the current factor recipe; by "auto", where the first of
    them is its base model and reads with its tokenizer.

    Args:
        settings: the project's.
        found: the complete checkpoints that there are, in order.
        checkpoint: the one in question.

    Raises:
        SettingsError: the recipe names a checkpoint that is not there, or not active.
    """
    recipe, lake, name = settings.recipe, checkpoint.lake, checkpoint.record.name
    if not (recipe.averages or recipe.averages_fine_tunes):
        return [checkpoint]
    recorded = set(lake.read(CHECKPOINTS, ["checkpoint"], recipe_hash=recipe.factor_hash)["checkpoint"])
    others = averaged_names(settings, found, name, recorded)
    return [*(StoredCheckpoint.read(lake, one, recipe) for one in others), checkpoint]


def averaged_names(
    settings: Settings, found: Sequence[CheckpointFiles], name: str, recorded: Collection[str]
) -> Sequence[str]:
    """Return the checkpoints whose scores are averaged with those of one of them; arguments and errors as above.

    Args:
        settings: the project's.
        found: the complete checkpoints that there are, in order.
        name: of the one in question.
        recorded: the names of those that are recorded, or will be.
    """
    recipe = settings.recipe
    if not (recipe.averages or recipe.averages_fine_tunes):
        return ()
    active = active_checkpoints(settings.active.checkpoints, found)
    names = [one for one in active if one in recorded]
    before = names[: names.index(name)] if name in names else []
    choice = recipe.averaged_checkpoints
    if choice == "auto":
        own = next((one for one in found if one.name == name), None)
        base = comparable_base(own, found) if own else None
        choice = "spread" if base and before[:1] == [base.name] else 1
    if isinstance(choice, tuple) and (unknown := [one for one in choice if one not in active]):
        raise SettingsError(
            f"`recipe.averaged_checkpoints` names {unknown[0]!r}, which is no active checkpoint; found "
            f"{', '.join(active) or 'none'}"
        )
    return averaged_before(before, choice)


def averaged_before(before: Sequence[str], choice: int | str | Sequence[str]) -> Sequence[str]:
    """Return which of the checkpoints before one, in order, are averaged with it, by `recipe.averaged_checkpoints`."""
    if isinstance(choice, int):
        return before[1 - choice :] if choice > 1 else ()
    if choice == "spread":
        # With the one in question: both ends of the run, and its middle.
        return [before[at] for at in sorted({0, (len(before) + 1) // 2}) if at < len(before)]
    return [name for name in before if name in choice]


def averaged_attributions(
    settings: Settings, model_checkpoints: Checkpoints, checkpoint: StoredCheckpoint
) -> list[StoredCheckpoint]:
    """Return the checkpoints whose scores are averaged for one of them, which comes last, with their factors looked up.

    So anything that is missing is reported before scoring waits for a device.

    Raises:
        MismatchError: factors or preconditioners are missing, or do not match one another.
    """
    checkpoints = averaged_checkpoints(settings, model_checkpoints.complete(), checkpoint)
    for one in checkpoints:
        _ = one.preconditioners
    return checkpoints


def current_score_versions(
    settings: Settings,
    model_checkpoints: Checkpoints,
    averaged: Sequence[StoredCheckpoint],
    shard_hashes: Mapping[str, str],
    query_set_hashes: Mapping[str, str],
) -> dict[str, str]:
    """Return the version that each query set's scores at a checkpoint would have if every example were scored now.

    `averaged` are the checkpoints whose scores are averaged for it, as `averaged_checkpoints` returns them.
    """
    records = [one.record for one in averaged]
    weights = checkpoint_weights(settings.recipe, model_checkpoints, records)
    curvature = curvature_of(settings.recipe)
    bases = {record.name: curvature.basis_versions(averaged[-1].lake, record.name) for record in records}
    return {
        query_set: averaged_version(
            settings.recipe,
            [
                score_version(settings.recipe, record, shard_hashes, query_set_hash, bases[record.name])
                for record in records
            ],
            weights,
        )
        for query_set, query_set_hash in query_set_hashes.items()
    }
