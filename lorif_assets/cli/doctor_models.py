"""What `lorif doctor` finds of checkpoints: their layers, the recipe on them, and whether they fit into memory."""

from collections.abc import Iterator

from lorif_assets.attribution.fitting.layer_ranks import affordable_ranks, byte_budget
from lorif_assets.attribution.fitting.measured_width import is_measured
from lorif_assets.attribution.forecast.trial import try_architecture
from lorif_assets.attribution.recipes.fitted_recipe import fitted_recipe, level_rank
from lorif_assets.attribution.recipes.memory_verdict import checkpoint_verdict, in_gib
from lorif_assets.attribution.recipes.recipe_on_model import tracked_layers
from lorif_assets.attribution.recipes.wasted_bytes import wasted_bytes
from lorif_assets.config.recipe import Recipe
from lorif_assets.errors import CheckpointError, LorifError
from lorif_assets.lake.attribution_tables import KFAC_BASES
from lorif_assets.mathematics.gradients.layers import TrackedLayer, coverage
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.training.optimizer_states import optimizer_file
from lorif_assets.project import Project


def checkpoints_finding(project: Project) -> str:
    """Return which checkpoints there are.

    Raises:
        LorifError: there is none, or one is at fault.
    """
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


def described_checkpoint(project: Project) -> CheckpointFiles:
    """Return the newest checkpoint that is whole, as attribution takes it; where none is, the newest, if weights are all that
    it lacks.

    Raises:
        LorifError: there is no such checkpoint.
    """
    if whole := project.checkpoints.newest_complete():
        return whole
    found = project.checkpoints.find()
    if not (found and found[-1].is_description):
        checkpoints_finding(project)
    return found[-1]


def layers_finding(project: Project) -> str:
    """Return which layers the newest checkpoint tracks, and how much of its weights they hold."""
    recipe, checkpoint = project.settings.recipe, described_checkpoint(project)
    skeleton = project.checkpoints.skeleton(checkpoint, track=recipe.track)
    tracked = tracked_layers(skeleton, recipe)
    small = project.checkpoints.small_copy(checkpoint)
    is_tried = small is not None and try_architecture(small, tracked)
    found = f"{len(tracked)} tracked: {tracked[0].name} to {tracked[-1].name}; {coverage(skeleton, tracked)}"
    return found if is_tried else f"{found}; that gradients arrive is not tried here, but when it is loaded"


def _fitted(project: Project) -> tuple[Recipe, list[TrackedLayer]]:
    """Return the recipe on the newest checkpoint, and the layers that it tracks there."""
    recipe, checkpoint = project.settings.recipe, described_checkpoint(project)
    tracked = tracked_layers(project.checkpoints.skeleton(checkpoint, track=recipe.track), recipe)
    return fitted_recipe(recipe, tracked), tracked


def recipe_finding(project: Project) -> str:
    """Return what the recipe comes to on the newest checkpoint, and what became of it where bases are stored."""
    checkpoint = described_checkpoint(project)
    recipe, tracked = _fitted(project)
    if recipe.reads_optimizer:
        optimizer_file(checkpoint.path)
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
    fitted = list(_fitted_bases(project))
    if not fitted and is_measured(project.settings.recipe, tracked):
        fitted = ["the width is measured on a sample when bases are fitted, and may become another one"]
    return "; ".join([found, *fitted])


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


def wasted_notes(project: Project) -> list[str]:
    """Return where the recipe spends bytes on nothing."""
    try:
        return wasted_bytes(*_fitted(project))
    except LorifError:
        # The rows of checkpoints and layers say it.
        return []


def memory_finding(project: Project) -> str:
    """Return what the newest checkpoint needs of the memory that is free.

    Raises:
        LorifError: it does not fit.
    """
    checkpoint, settings = described_checkpoint(project), project.settings
    if not checkpoint.is_complete():
        checkpoints_finding(project)
    devices = project.devices.groups()[0]
    verdict = checkpoint_verdict(project.checkpoints, checkpoint, settings.recipe, settings.batch, devices)
    verdict.refuse_shortage(checkpoint.name, devices)
    if verdict.remedies:
        return f"batches are cut to {verdict.most_tokens:,} tokens, as {verdict.shortage}"
    parts = ", ".join(f"{what} {in_gib(size)}" for what, size in verdict.parts.items() if size)
    return f"about {in_gib(verdict.needs.total)} of {in_gib(verdict.memory)} free GiB of {devices}: {parts}"
