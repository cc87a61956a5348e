"""Similarity of texts by an encoder that knows nothing of the model: what semantic search would find."""

import time

from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.sampling import Role

_FP32_BYTES = 4


def embedding_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by the cosine of the embeddings of both texts, by the encoder that `evaluation.text_encoder` names.

    Raises:
        SettingsError: Influcoder's libraries, which load it, are not installed; or it cannot be loaded.
    """
    require_influcoder()
    from lorif_assets.influcoder.encoder import TextEncoder
    from lorif_assets.influcoder.encoder_places import encoder_folder

    settings = inputs.settings
    encoder = TextEncoder.load(
        encoder_folder(settings, settings.evaluation.text_encoder or "", "evaluation.text_encoder"),
        settings.influcoder.encoder_length,
        inputs.attributed.device,
        setting="evaluation.text_encoder",
    )
    started = time.monotonic()
    examples = encoder.embed(inputs.examples.texts, Role.POOL)
    embedded = time.monotonic()
    scores = (encoder.embed(inputs.queries.texts, Role.ANCHOR) @ examples.mT).numpy()
    return {
        "embeddings": MethodScores(scores, encoder.width * _FP32_BYTES, embedded - started, time.monotonic() - embedded)
    }
