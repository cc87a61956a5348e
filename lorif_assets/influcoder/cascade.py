"""The cascade: an encoder proposes examples for each query, and LoRIF reads and scores only those.

A monitor scores a few random stretches of the data exactly. If the encoder disagrees there, its proposals cannot be
trusted, and all examples are scored.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lorif_assets.attribution.checkpoints.checkpoint import LoadedCheckpoint
from lorif_assets.attribution.queries.precondition_queries import preconditioned_queries
from lorif_assets.attribution.scores.score_modes import ReadQuerySet
from lorif_assets.attribution.scores.score_positions import random_positions, scores_at
from lorif_assets.attribution.scores.score_queries import QueryScores, extreme_count, listed_scores
from lorif_assets.config.settings import Settings
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.proposals import proposals
from lorif_assets.influcoder.sampling import Role
from lorif_assets.influcoder.stored import StoredEncoder, stored_encoder
from lorif_assets.influcoder.text_views import anchor_text
from lorif_assets.lake.factor_row_groups import scan_bytes

if TYPE_CHECKING:
    import torch

    from lorif_assets.data.tokens.tokenization import TokenizedExample

MONITORED_ROWS = 256
"""The least number of examples that the monitor scores, in whole row groups; fewer if there are fewer."""


@dataclass(frozen=True)
class CascadeFigures:
    """What a cascade did and cost; `agreement` is the mean Spearman correlation on the monitored examples over queries."""

    agreement: float
    monitored: int
    rows_scored: int
    bytes_read: int
    bytes_full_scan: int
    seconds_recall: float
    seconds_scoring: float
    search: dict[str, Any]
    """How the proposals were searched for."""


def score_proposals(
    checkpoint: LoadedCheckpoint,
    queries: "Sequence[TokenizedExample]",
    embedded_queries: "torch.Tensor",
    encoder: StoredEncoder,
    settings: Settings,
) -> tuple[QueryScores | None, CascadeFigures]:
    """Score what the encoder proposes, or nothing if it disagrees with exact scores.

    Summaries are those of the scored examples.

    Returns:
        The scores, or None if the agreement is below `recipe.recall_agreement`; and what was done.
    """
    from lorif_assets.mathematics.scores.rank_correlation import rank_correlations
    from lorif_assets.mathematics.scores.relative_influence import Rankings

    recipe, factors, device = checkpoint.stored.recipe, checkpoint.stored.factors, checkpoint.device
    started = time.monotonic()
    monitored = random_positions(factors, recipe.seed, MONITORED_ROWS)
    proposal = proposals(factors, encoder, embedded_queries, recipe.candidates, monitored, settings.influcoder)
    positions = proposal.positions
    seconds_recall = time.monotonic() - started
    started = time.monotonic()
    prepared_queries = preconditioned_queries(checkpoint, queries, settings.batch)
    truth, bytes_monitored = scores_at(factors, prepared_queries, monitored, device)
    agreement = float(rank_correlations(proposal.extra_cosines.double().numpy(), truth.scores.double().numpy()).mean())
    figures = CascadeFigures(
        agreement=agreement,
        monitored=len(monitored),
        rows_scored=0,
        bytes_read=bytes_monitored,
        bytes_full_scan=scan_bytes(factors.lake, factors.files, list(factors.layer_shapes)),
        seconds_recall=seconds_recall,
        seconds_scoring=time.monotonic() - started,
        search=proposal.metadata,
    )
    if agreement < recipe.recall_agreement:
        return None, figures
    block, bytes_read = scores_at(factors, prepared_queries, positions, device)
    # The settings refuse "all" together with recall.
    top_k = len(positions) if recipe.top_k == "all" else recipe.top_k
    rankings = Rankings.empty(len(queries), extreme_count(top_k), len(positions)).update(block, 0)

    def example_ids(places: Sequence[int]) -> dict[int, tuple[str, str]]:
        examples = factors.example_ids([positions[place] for place in places])
        return {place: examples[positions[place]] for place in places}

    scored = listed_scores(
        queries,
        prepared_queries,
        rankings,
        [],
        example_ids,
        top_k=top_k,
        scan="the examples that the encoder proposed",
        examples_scanned=len(positions),
    )
    return scored, replace(
        figures,
        rows_scored=len(positions),
        bytes_read=bytes_monitored + bytes_read,
        seconds_scoring=time.monotonic() - started,
    )


@dataclass(frozen=True)
class Recalled:
    """The outcome of a cascade: the scores, or none if all examples have to be scored; and what to report."""

    scores: QueryScores | None
    encoder_hash: str
    figures: CascadeFigures

    @property
    def rows_scored(self) -> int:
        """Examples that LoRIF scored."""
        return self.figures.rows_scored

    @property
    def rate(self) -> float:
        """Scored examples per second."""
        return self.rows_scored / max(self.figures.seconds_scoring, 1e-9)

    @property
    def metadata(self) -> dict[str, Any]:
        """What to show of it."""
        fell_back = self.scores is None
        return {
            "recall": (
                f"the encoder disagrees with exact scores (Spearman {self.figures.agreement:.3f} on "
                f"{self.figures.monitored} random examples): all examples were scored"
                if fell_back
                else "the encoder's proposals were scored"
            ),
            "recall_fell_back": fell_back,
            **{f"recall_{name}": value for name, value in asdict(self.figures).items() if name != "search"},
            **{f"recall_{name}": value for name, value in self.figures.search.items()},
        }


def recalled_scores(settings: Settings, checkpoint: LoadedCheckpoint, query_set: ReadQuerySet) -> Recalled:
    """Let the checkpoint's encoder propose examples for a query set, and score them.

    Args:
        settings: of the project.
        checkpoint: with its model loaded.
        query_set: its rows, and its queries tokenized.

    Raises:
        MismatchError: encoder or embeddings are missing or out of date.
        SettingsError: Influcoder's libraries are not installed.
    """
    require_influcoder()
    lake, attributed = checkpoint.stored.lake, checkpoint.model
    encoder = stored_encoder(lake, attributed.record, settings.influcoder, settings.recipe)
    model = encoder.load(lake, settings.influcoder, attributed.device)
    contents = {row["query_id"]: row for row in query_set.rows.iter_rows(named=True)}
    queries = query_set.tokenized.examples
    texts = [anchor_text(contents[query.example_id], attributed.tokenizer.decode) for query in queries]
    embedded = model.embed(texts, Role.ANCHOR)
    scores, figures = score_proposals(checkpoint, queries, embedded, encoder, settings)
    return Recalled(scores, encoder.encoder_hash, figures)
