"""A small text encoder for the demo, so that Influcoder needs no download: the mean of one vector per token.

The vectors are those of a latent semantic analysis: a truncated SVD of the passages' TF-IDF matrix. A transformer that the
demo could pre-train in a minute is a worse start: its embeddings all point the same way, and distillation leaves it there.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class DemoEncoderConfig:
    """Size of the demo's encoder."""

    width: int = 128
    """Width of an embedding."""
    seed: int = 0
    """Seed of the randomised SVD."""


def make_encoder(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, directory: Path, config: DemoEncoderConfig | None = None
) -> float:
    """Fit an encoder and write it where sentence-transformers can load it; return the seconds that it took.

    Args:
        texts: the texts to fit it to; more of them than the width of an embedding.
        tokenizer: each of its tokens gets a vector.
        directory: where to write the model.
        config: its size.
    """
    config = config or DemoEncoderConfig()
    started = time.monotonic()
    tfidf = TfidfVectorizer(
        analyzer=lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        vocabulary={token: token for token in range(len(tokenizer))},
        lowercase=False,
        sublinear_tf=True,
    )
    svd = TruncatedSVD(config.width, random_state=config.seed).fit(tfidf.fit_transform(texts))
    vectors = svd.components_.T * tfidf.idf_[:, None]
    vectors /= np.linalg.norm(vectors, axis=1).mean()
    static = StaticEmbedding(tokenizer, embedding_weights=vectors.astype(np.float32))
    SentenceTransformer(modules=[static], device="cpu").save_pretrained(str(directory), create_model_card=False)
    return time.monotonic() - started
