"""Which training examples are known to have taught a query's completion, according to the data's metadata."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.data.passages import passage_metadata
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake


def known_sources(
    lake: Lake, evaluation: EvaluationSettings, query_set: str, query_ids: Sequence[str], example_ids: Sequence[str]
) -> Mapping[str, Bool[np.ndarray, " N"]]:
    """Return by query which examples are its sources; queries with no known source, or only sources, are left out."""
    labels = query_labels(lake, query_set)
    _, topic_field = evaluation.topic_fields
    rows = lake.read(TRAINING_EXAMPLES, ["example_id", "metadata"]).iter_rows(named=True)
    topics = {row["example_id"]: passage_metadata(row).get(topic_field) for row in rows}
    masks = {}
    for query_id in query_ids:
        ids, source_topics = _labels(labels.get(query_id, {}), evaluation)
        mask = np.array([name in ids or topics.get(name) in source_topics for name in example_ids])
        if 0 < mask.sum() < len(mask):
            masks[query_id] = mask
    return masks


def query_labels(lake: Lake, query_set: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the metadata of each query of a set."""
    rows = lake.read(QUERY_EXAMPLES, ["query_id", "metadata"], query_set=query_set).iter_rows(named=True)
    return {row["query_id"]: passage_metadata(row) for row in rows}


def has_known_sources(lake: Lake, evaluation: EvaluationSettings, query_set: str) -> bool:
    """Whether the metadata of any query of the set name the sources of its completion."""
    return any(any(_labels(found, evaluation)) for found in query_labels(lake, query_set).values())


def _labels(metadata: Mapping[str, Any], evaluation: EvaluationSettings) -> tuple[set[str], set[str]]:
    """Return the ids of known sources or, if there are none, the topics that identify them."""
    ids = set(metadata.get(evaluation.source_field) or [])
    return ids, set() if ids else set(metadata.get(evaluation.topic_fields[0]) or [])
