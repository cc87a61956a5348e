"""Rows of `token_scores`: what each token of listed pairs of query and example says, and its share of the pair's score."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.pairs.listed_examples import ListedExamples
from lorif_assets.attribution.pairs.token_shares import token_shares
from lorif_assets.attribution.queries.precondition_queries import InverseOf
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.tokens.texts import token_texts
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from lorif_assets.data.tokens.tokenization import TokenizedExample

EXAMPLE, QUERY = "example", "query"
TOKEN_ROWS = {
    "query_id": pl.String,
    "shard": pl.String,
    "example_id": pl.String,
    "side": pl.String,
    "term": pl.Int32,
    "position": pl.Int32,
    "token_id": pl.Int32,
    "token": pl.String,
    "score": pl.Float32,
    "exact_score": pl.Float32,
    "stored_score": pl.Float32,
}


def token_rows(
    attributed: AttributedModel,
    inverse: InverseOf,
    queries: "Sequence[TokenizedExample]",
    listed: pl.DataFrame,
    examples: ListedExamples,
    batch: BatchSettings,
    progress: Progress,
) -> pl.DataFrame:
    """Return the rows of listed pairs, in the columns of `TOKEN_ROWS`: every token of the example and of the query's terms.

    Args:
        attributed: the model.
        inverse: of each layer's curvature.
        queries: tokenized.
        listed: query_id, shard, example_id and score of pairs. Those whose example is not among `examples` are left out.
        examples: tokenized.
        batch: budgets of memory.
        progress: advances by pairs.

    Raises:
        LayerError: an operation of the model has no forward-mode derivative.
    """
    texts = {key: token_texts(example.input_ids, attributed.tokenizer) for key, example in examples.items()}
    frames = [pl.DataFrame(schema=TOKEN_ROWS)]
    for query in queries:
        of_query = listed.filter(pl.col("query_id") == query.example_id)
        # A pair may lead on both sides of a short ranking.
        stored = {(row["shard"], row["example_id"]): row["score"] for row in of_query.iter_rows(named=True)}
        pairs = [pair for pair in stored if pair in examples]
        if not pairs:
            continue
        said = [(term.tokens, token_texts(term.tokens.input_ids, attributed.tokenizer)) for term in query.terms]
        found = token_shares(attributed, inverse, query, [examples[pair] for pair in pairs], batch)
        for position, shares in found:
            pair = pairs[position]
            constants = {
                "query_id": query.example_id,
                "shard": pair[0],
                "example_id": pair[1],
                "exact_score": shares.score,
                "stored_score": stored[pair],
            }
            frames.append(_side(EXAMPLE, 0, (examples[pair], texts[pair]), shares.of_example, constants))
            frames += [
                _side(QUERY, number, term, of_term, constants)
                for number, (term, of_term) in enumerate(zip(said, shares.of_query, strict=False))
            ]
            progress.advance(1)
    return pl.concat(frames)


def _side(
    side: str,
    term: int,
    said: "tuple[TokenizedExample, Sequence[str]]",
    scores: "Float[Tensor, ' T']",
    constants: Mapping[str, str | float],
) -> pl.DataFrame:
    tokens, texts = said
    # The first token is predicted from nothing.
    carries = [place > 0 and label != NO_LOSS for place, label in enumerate(tokens.labels.tolist())]
    of_targets = [score if has_loss else None for score, has_loss in zip(scores.tolist(), carries, strict=True)]
    frame = pl.DataFrame(
        {
            "side": [side] * len(texts),
            "term": [term] * len(texts),
            "position": range(len(texts)),
            "token_id": tokens.input_ids.tolist(),
            "token": texts,
            "score": of_targets,
        },
        schema_overrides={"score": pl.Float32},
    )
    literals = {name: pl.lit(value) for name, value in constants.items()}
    return frame.with_columns(**literals).select(pl.col(name).cast(kind) for name, kind in TOKEN_ROWS.items())
