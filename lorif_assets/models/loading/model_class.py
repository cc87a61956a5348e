"""Which of transformers' automatic classes loads a configuration as a language model."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorif_assets.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_OTHER_TASK = re.compile(r"For(\w*Classification|\w*Reward\w*|QuestionAnswering|MultipleChoice)$")


def refuse_other_task(config: "PreTrainedConfig", folder: Path) -> None:
    """Refuse a model that was saved with a head for another task, as reward models and classifiers are.

    With tied embeddings it would load as a language model, by a head that nobody trained.

    Raises:
        CheckpointError: it is one.
    """
    for name in config.architectures or ():
        if _OTHER_TASK.search(name):
            raise CheckpointError(
                f"{folder} is a {name}, which gives labels or a score and no next token; attributed are causal language "
                "models: name the one that it was trained from"
            )


def language_model_class(config: "PreTrainedConfig") -> Any:
    """Return the automatic class: that of models that read text, or of those that see or hear and read text as well."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM

    for candidate in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
        reads_text = type(config) in AutoModelForCausalLM._model_mapping or hasattr(config, "auto_map")
        if not reads_text and not config.is_encoder_decoder and type(config) in candidate._model_mapping:
            return candidate
    return AutoModelForCausalLM
