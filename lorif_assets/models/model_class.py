"""Which of transformers' automatic classes loads a configuration as a language model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def language_model_class(config: "PreTrainedConfig") -> Any:
    """Return the automatic class: that of models that read text, or of those that see or hear and read text as well."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM

    for candidate in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
        reads_text = type(config) in AutoModelForCausalLM._model_mapping or hasattr(config, "auto_map")
        if not reads_text and not config.is_encoder_decoder and type(config) in candidate._model_mapping:
            return candidate
    return AutoModelForCausalLM
