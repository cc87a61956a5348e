"""The gradients of what queries ask about: of losses, of weighted sums of them, or of scalars of the model's output."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import n_tokens
from lorif_assets.errors import LorifError, UnsoundQueryError
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from lorif_assets.data.tokens.tokenization import TokenizedExample
    from lorif_assets.mathematics.gradients.collector import GradientCollector

QuerySink = Callable[[str, list[int], "Float[Tensor, 'b d1 d2']"], None]
"""Takes a layer's name, positions among the queries, and their gradients."""


def stream_query_gradients(
    attributed: AttributedModel,
    queries: "Sequence[TokenizedExample]",
    sink: QuerySink,
    batch: BatchSettings,
    *,
    by_layer: bool = True,
    progress: Progress | None = None,
) -> "Float[torch.Tensor, ' Q']":
    """Hand each layer's gradients of the queries to a sink, and return what is differentiated, on the CPU.

    That is a query's loss, or the weighted sum of its terms' losses. A scalar is differentiated with its sign turned: as an
    example that lowers a loss speaks for a completion, one that raises the scalar speaks for it.

    Args:
        attributed: the model.
        queries: tokenized.
        sink: gets each query once for every layer. The gradients of one query with several terms are held of all layers.
        batch: budgets of memory.
        by_layer: whether dense gradients are held of one layer at a time, or of all layers of a batch.
        progress: advances by tokens, `queried_tokens` in all; None where whoever asks counts the queries.

    Raises:
        UnsoundQueryError: a scalar fails, or gives no number for each example that depends on the model's output.
    """
    import torch

    def count(done: "Iterable[TokenizedExample]") -> None:
        if progress:
            progress.advance(queried_tokens(done))

    values = torch.zeros(len(queries))
    plain = [place for place, query in enumerate(queries) if query.objective is None]
    with attributed.collector() as collector:
        for positions in attributed.batches([queries[place] for place in plain], batch.tokens):
            places = [plain[position] for position in positions]

            def in_place(layer: str, rows: slice, found: "Tensor", places: list[int] = places) -> None:
                sink(layer, places[rows], found)

            tokens = attributed.batch(queries, places)
            if not by_layer:
                found_at_once = collector.collect(tokens)
                values[places] = found_at_once.losses.float().cpu()
                for layer, gradients in found_at_once.gradients.items():
                    sink(layer, places, gradients)
            else:
                values[places] = collector.stream(tokens, in_place, batch.gradient_numbers).float().cpu()
            count(queries[place] for place in places)
        for place, query in enumerate(queries):
            if query.objective is not None:
                values[place], totals = _objective_gradients(attributed, collector, query, batch)
                for layer, total in totals.items():
                    sink(layer, [place], total)
                count([query])
    return values


def queried_tokens(queries: "Iterable[TokenizedExample]") -> int:
    """Return the number of tokens of all terms of the queries."""
    return sum(n_tokens(term.tokens for term in query.terms) for query in queries)


def _objective_gradients(
    attributed: AttributedModel, collector: "GradientCollector", query: "TokenizedExample", batch: BatchSettings
) -> "tuple[float, dict[str, Float[Tensor, '1 d1 d2']]]":
    """Return the weighted sum of what a query's terms are, and its gradient."""
    value, totals = 0.0, dict[str, "Tensor"]()
    for term in query.terms:
        weight = term.weight if query.scalar is None else -term.weight

        def add(layer: str, _rows: slice, found: "Tensor", weight: float = weight) -> None:
            added = found * weight
            totals[layer] = totals[layer] + added if layer in totals else added

        tokens = attributed.batch([term.tokens], [0])
        with _named(query):
            value += term.weight * float(collector.stream(tokens, add, batch.gradient_numbers, query.scalar))
    return value, totals


@contextmanager
def _named(query: "TokenizedExample") -> Iterator[None]:
    """Let an error of a query's own code name the query."""
    try:
        yield
    except LorifError:
        raise
    except Exception as error:
        if query.scalar is None:
            raise
        raise UnsoundQueryError(
            f"the scalar of query {query.example_id!r} failed: {type(error).__name__}: {error}", [query.example_id]
        ) from error
