"""Influcoder: cosines of its encoder's embeddings, if the project has an encoder."""

import time

import numpy as np

from lorif_assets.attribution.stored.factors import stored_factors
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.proposals import encoder_similarities
from lorif_assets.influcoder.sampling import Role
from lorif_assets.influcoder.stored import stored_encoder
from lorif_assets.influcoder.text_views import anchor_text
from lorif_assets.lake.data_tables import QUERY_EXAMPLES

_FP32_BYTES = 4


def influcoder_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score every pair by the stored embeddings; an example that has none scores 0.

    Raises:
        MismatchError: encoder or embeddings are missing or out of date.
        SettingsError: Influcoder's libraries are not installed.
    """
    require_influcoder()
    lake, settings, attributed = inputs.lake, inputs.settings, inputs.attributed
    stored = stored_factors(lake, attributed.record, settings.recipe)
    encoder = stored_encoder(lake, attributed.record, settings.influcoder, settings.recipe)
    model = encoder.load(lake, settings.influcoder, attributed.device)
    started = time.monotonic()
    texts = []
    for query_set, queries in inputs.query_sets.items():
        rows = {row["query_id"]: row for row in lake.read(QUERY_EXAMPLES, query_set=query_set).iter_rows(named=True)}
        texts += [anchor_text(rows[name], attributed.tokenizer.decode) for name in queries.ids]
    embedded = model.embed(texts, Role.ANCHOR)
    similarities = encoder_similarities(stored, encoder, embedded).cpu().numpy()
    seconds = time.monotonic() - started
    places = {name: at for at, name in enumerate(inputs.examples.ids)}
    matrix = np.zeros((len(texts), len(places)), dtype=np.float32)
    for position, (name, _) in stored.example_ids(range(stored.n_examples)).items():
        if name in places:
            matrix[:, places[name]] = similarities[:, position]
    return {"influcoder": MethodScores(matrix, embedded.shape[1] * _FP32_BYTES, None, seconds)}
