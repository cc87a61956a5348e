"""`lorif tune`: the advisor in a terminal, and the chosen recipe in lorif.toml."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import tomlkit
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorif_assets.attribution.ask import newest_attributed
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.forecast.cost import stored_bytes_per_example
from lorif_assets.cli.environment import config_option, project_of_settings
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import settings_file
from lorif_assets.data.shards import in_short
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.evaluation.query_sets import evaluated_query_sets
from lorif_assets.evaluation.tuning.candidates import differing_fields
from lorif_assets.pages.terminal_console import TerminalConsole

_MEASURES = {
    "lds": "LDS against the models that were retrained on subsets",
    "tail_patch": "tail-patch: nats per token that a step on each of the first proponents adds",
}
_IN_PLACE_OF = {"max_width": "projection_factor", "bytes_per_example": "rank"}


@click.command()
@click.option(
    "--bytes",
    "budget",
    type=click.IntRange(min=1),
    help="Bytes kept per example; default: those of the current recipe.",
)
@click.option("--minutes", default=20.0, show_default=True, help="Minutes after which no further trial is begun.")
@click.option("--examples", default=4_000, show_default=True, help="Size of the sample of training examples.")
@click.option("--write", is_flag=True, help="Write the best recipe to the settings file.")
@config_option
def tune(budget: int | None, minutes: float, examples: int, *, write: bool) -> None:
    """Try recipes on a sample of the data, and show what quality costs how many bytes."""
    tune_recipe(TerminalConsole(), budget=budget, minutes=minutes, most_examples=examples, write=write)


def tune_recipe(console: Console, *, budget: int | None, minutes: float, most_examples: int, write: bool) -> None:
    """Try recipes, print what quality costs, and write the best one to the settings on request.

    Raises:
        LorifError: nothing is attributed yet, or no recipe fits the budget.
    """
    from lorif_assets.evaluation.tuning.advice import advise, pareto, store_trials

    project = project_of_settings()
    settings, lake, models = project.settings, project.lake, project.checkpoints
    with project.devices.lease() as group:
        attributed = StoredCheckpoint.read(lake, newest_attributed(project), settings.recipe).load(models, group).model
        allowed = budget or stored_bytes_per_example(attributed.record, settings.recipe)
        inputs = MethodInputs.load(project, attributed, evaluated_query_sets(settings, lake))
        advice = advise(inputs, allowed, minutes, most_examples)
    store_trials(inputs, advice)
    mean, front = advice.quality.mean, pareto(advice.trials, advice.quality.mean)
    shown = sorted({*front, advice.best_position, 0}, key=lambda at: advice.trials[at].outcome.bytes_per_example)
    recipes = [advice.trials[at].outcome.recipe for at in shown]
    table = Table(title=f"best quality for the bytes, of {len(advice.trials)} recipes tried", title_justify="left")
    for heading in ("bytes/example", advice.measure, "95 % interval", "agreement", "recipe"):
        table.add_column(heading, justify="left" if heading == "recipe" else "right", overflow="fold")
    fields = differing_fields(recipes)
    for at, recipe in zip(shown, recipes, strict=True):
        found = mean[str(at)]
        marks = " (current)" * (at == 0) + " (best within the budget)" * (at == advice.best_position)
        table.add_row(
            f"{advice.trials[at].outcome.bytes_per_example:,}",
            f"{found.value:.3f}",
            f"{found.low:.3f} to {found.high:.3f}",
            f"{advice.trials[at].agreement.mean():.2f}",
            ", ".join(f"{name} = {value}" for name, value in _shown(recipe, fields)) + marks,
        )
    console.print(table)
    console.print(f"measured by {_MEASURES[advice.measure]}, on {advice.n_examples:,} examples.")
    if advice.set_aside:
        console.print(
            f"{len(advice.set_aside):,} of the sample set aside, as the loss or a gradient is not finite: "
            f"{escape(in_short(advice.set_aside))}"
        )
    gain, low, high = advice.gain()
    if advice.best_position:
        verdict = "that is certain." if low > 0 else "that may be chance; more subsets or queries would decide it."
        console.print(
            f"Within {allowed:,} bytes the best one gains {gain:+.3f} over the current recipe "
            f"(95 %: {low:+.3f} to {high:+.3f}): {verdict}"
        )
    else:
        console.print("The current recipe is the best one.")
    if not advice.complete:
        console.print(f"Not every candidate was tried in {minutes:g} minutes; --minutes gives more time.")
    if write and advice.best_position:
        file = settings_file()
        write_recipe(file, inputs.attributed.fitted_recipe, advice.trials[advice.best_position].outcome.recipe)
        console.print(f"wrote it to {escape(str(file))}")


def write_recipe(file: Path, current_recipe: Recipe, new_recipe: Recipe) -> None:
    """Change the fields of `[recipe]` in which two recipes differ; all else in the file stays as it is written."""
    document = tomlkit.parse(file.read_text())
    if isinstance(document.get("recipe"), str):
        preset = document.pop("recipe")
        document["recipe"] = tomlkit.table().add("preset", preset)
    section = document.setdefault("recipe", tomlkit.table())
    names = differing_fields([current_recipe, new_recipe])
    new_values = new_recipe.model_dump()
    # Without them, a field that is taken out would be left to the model.
    names += [other for name, other in _IN_PLACE_OF.items() if name in names and new_values[name] is None]
    for name, value in _values(new_recipe, dict.fromkeys(names)):
        if value is None:
            section.pop(name, None)
        else:
            section[name] = value
    file.write_text(tomlkit.dumps(document))


def _shown(recipe: Recipe, fields: Sequence[str]) -> list[tuple[str, object]]:
    """Return the fields that the recipe's scores depend on, out of those given, with their values."""
    return _values(recipe, [name for name in fields if name in recipe.fields_in_use])


def _values(recipe: Recipe, fields: Iterable[str]) -> list[tuple[str, object]]:
    found = recipe.model_dump(mode="json")
    return [(name, found[name]) for name in fields]
