"""Training data attribution by LoRIF: which training examples made the model say this?

From Python, `open` a project with a lake and ask its checkpoints, or `attribute` in memory with any causal language model of
transformers. The same in Dagster is `lorif_assets.definitions`, on the command line `lorif`.

Names are loaded when they are first used: importing the package takes no time and changes nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorif_assets.api.answer import Attribution
    from lorif_assets.api.fitted import FittedModel, attribute, fit
    from lorif_assets.api.project import OpenProject
    from lorif_assets.api.project import open_project as open  # noqa: A004
    from lorif_assets.api.trainer_callback import TrainerCallback
    from lorif_assets.config.recipe import Recipe
    from lorif_assets.config.sections import BatchSettings
    from lorif_assets.config.sources import Columns
    from lorif_assets.errors import LorifError

    __version__: str

__all__ = [
    "Attribution",
    "BatchSettings",
    "Columns",
    "FittedModel",
    "LorifError",
    "OpenProject",
    "Recipe",
    "TrainerCallback",
    "attribute",
    "fit",
    "open",
]

_PLACES = {
    "Attribution": "api.answer:Attribution",
    "BatchSettings": "config.settings:BatchSettings",
    "Columns": "config.sources:Columns",
    "FittedModel": "api.fitted:FittedModel",
    "LorifError": "errors:LorifError",
    "OpenProject": "api.project:OpenProject",
    "Recipe": "config.recipe:Recipe",
    "TrainerCallback": "api.trainer_callback:TrainerCallback",
    "attribute": "api.fitted:attribute",
    "fit": "api.fitted:fit",
    "open": "api.project:open_project",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lorif-assets")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute_name = _PLACES[name].partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), attribute_name)
    # The next use finds it without this function.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
