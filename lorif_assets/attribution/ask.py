"""One question, a completion or a chat, put to a checkpoint that is already attributed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Literal

import polars as pl
import pyarrow as pa

from lorif_assets.attribution.checkpoints.checkpoint import (
    AttributedCheckpoint,
    StoredCheckpoint,
    averaged_attributions,
)
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.pairs.listed_examples import listed_examples
from lorif_assets.attribution.pairs.token_rows import EXAMPLE, QUERY, token_rows
from lorif_assets.attribution.scores.score_checkpoint import score_every_example
from lorif_assets.attribution.scores.score_queries import QueryScores
from lorif_assets.attribution.scores.score_query_sets import queries_per_scan
from lorif_assets.attribution.scores.stored_rankings import leading_rows
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.data.questions import Question
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import CheckpointError, MismatchError, NotStoredError, SettingsError, SourceError
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.progress import Progress
from lorif_assets.project import Project

TopK = int | Literal["all"]
"""How many proponents and opponents to list: a positive number, or all examples."""


def check_top_k(top_k: object) -> None:
    """Refuse what is no `TopK`.

    Raises:
        SettingsError: it is neither a positive number nor "all".
    """
    # A yes is no number, though Python counts it as one.
    is_count = not isinstance(top_k, bool) and isinstance(top_k, Integral) and int(top_k) >= 1
    if top_k != "all" and not is_count:
        raise SettingsError(f'`top_k` is a positive whole number or "all", found {top_k!r}')


def attributed_checkpoints(project: Project) -> list[str]:
    """Return the checkpoints that have preconditioners, in order of step, then name."""
    attributed = set(project.lake.read(curvature_of(project.settings.recipe).table, ["checkpoint"])["checkpoint"])
    return [checkpoint.name for checkpoint in project.checkpoints.find() if checkpoint.name in attributed]


def attributed_checkpoint(project: Project, name: str | None) -> str:
    """Return the name of a checkpoint that is attributed; without one, of the newest.

    Raises:
        MismatchError: no name is given, and none is attributed.
        CheckpointError: this one is not, or its files are gone.
    """
    if name is None:
        return newest_attributed(project)
    names = attributed_checkpoints(project)
    if name not in names:
        raise CheckpointError(
            f"the checkpoint {name!r} cannot be asked: it is not attributed, or its files are gone; those that can be: "
            f"{', '.join(names) or 'none'}"
        )
    return name


def newest_attributed(project: Project) -> str:
    """Return the newest checkpoint that has preconditioners.

    Raises:
        MismatchError: none has.
    """
    names = attributed_checkpoints(project)
    if not names:
        raise MismatchError("no checkpoint is attributed yet; run `lorif materialize`, or materialize in Dagster's UI")
    return names[-1]


@dataclass
class ModelCache:
    """The checkpoint of a project that was loaded last, kept from one question to the next.

    Between questions it is moved to the CPU's memory, so that other programs can lease the device. A checkpoint that is
    spread over several devices cannot be moved, and is not kept.
    """

    project: Project
    _version: tuple[str, ...] | None = None
    _model: AttributedModel | None = None

    @contextmanager
    def leased(self, stored: StoredCheckpoint) -> Iterator[AttributedCheckpoint]:
        """Lease devices for the `with` block, and yield the checkpoint loaded on them.

        It is loaded again if its files, or what the lake records of it, have changed.

        Raises:
            MismatchError: the files changed since they were recorded.
            CheckpointError: it cannot be loaded.
        """
        models, record = self.project.checkpoints, stored.record
        version = (record.name, models.get(record.name).version(), record.weights_hash, record.tokenizer_hash)
        with self.project.devices.lease() as group:
            if version != self._version:
                # Before loading the next model: the memory of this one is not freed while a name refers to it.
                self.close()
            model = self._model
            if model is None:
                model = stored.load(models, group).model
            else:
                model.model.to(group.first)
            try:
                yield AttributedCheckpoint(stored, replace(model, record=record, devices=group))
            finally:
                if len(group) == 1:
                    model.model.to("cpu")
                    self._model, self._version = model, version

    def close(self) -> None:
        """Release the model."""
        self._model = self._version = None


def check_tokens(tokens: object) -> None:
    """Refuse what is no number of pairs whose tokens are scored.

    Raises:
        SettingsError: it is no whole number from 0.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, Integral) or int(tokens) < 0:
        raise SettingsError(f"`tokens` is a whole number of proponents and opponents, 0 for none; found {tokens!r}")


def score_completion(
    model_cache: ModelCache, checkpoint: str, question: Question, top_k: TopK, tokens: int = 0
) -> QueryScores:
    """Score every stored training example for one question, and return the `top_k` highest and lowest.

    Args:
        model_cache: of the project.
        checkpoint: its name.
        question: what is asked about.
        top_k: proponents and opponents to list.
        tokens: proponents and opponents whose tokens' shares are computed too.

    Raises:
        SettingsError: `top_k` is neither a positive number nor "all", or `tokens` no whole number from 0.
        SourceError: the completion has no token that carries loss.
        MismatchError: factors, preconditioners and settings do not match.
    """
    row = {"query_id": "query", "row": 0, **question}
    queries = pa.Table.from_pylist([row], schema=QUERY_EXAMPLES.columns)
    (scored,) = score_questions(
        model_cache, checkpoint, queries, top_k, tokens, called=lambda _query_id: "the completion"
    )
    return scored


def score_questions(
    model_cache: ModelCache,
    checkpoint: str,
    queries: pa.Table,
    top_k: TopK,
    tokens: int = 0,
    called: Callable[[str], str] = lambda query_id: f"the query {query_id!r}",
) -> Iterator[QueryScores]:
    """Score every stored training example for some questions, and yield the `top_k` highest and lowest, scan by scan.

    Args:
        model_cache: of the project.
        checkpoint: name of an attributed checkpoint.
        queries: columns query_id, row and content, of `query_examples`.
        top_k: proponents and opponents of each, or "all".
        tokens: proponents and opponents of each whose tokens' shares are computed too.
        called: what a question is called in messages, by its id.

    Raises:
        SettingsError: `top_k` is neither a positive number nor "all", or `tokens` no whole number from 0.
        SourceError: a question has no token that carries loss.
        MismatchError: factors, preconditioners and settings do not match.
    """
    check_top_k(top_k)
    check_tokens(tokens)
    project = model_cache.project
    settings, models = project.settings, project.checkpoints
    stored = StoredCheckpoint.read(project.lake, checkpoint, settings.recipe)
    *earlier_checkpoints, stored = averaged_attributions(settings, models, stored)
    if project.lake.kept:
        project.lake.kept.retain({path for one in (*earlier_checkpoints, stored) for path in one.immutable_files})
    with model_cache.leased(stored) as attributed:
        tokenized = _tokenized(attributed, queries, called)
        limit = queries_per_scan(stored.record, settings.recipe, settings.batch, 1 + len(earlier_checkpoints))
        groups = [tokenized[at : at + limit] for at in range(0, len(tokenized), limit)]
        with Progress("scoring", len(groups) * stored.factors.n_examples, "examples") as progress:
            for group in groups:
                scored = score_every_example(
                    attributed,
                    earlier_checkpoints,
                    group,
                    models,
                    top_k=top_k,
                    batch=settings.batch,
                    progress=progress,
                    reason="a question is answered from all examples",
                )
                found = _with_tokens(scored, attributed, group, project, tokens) if tokens else scored
                yield found.with_cuts(group)


def score_tokens(
    model_cache: ModelCache, checkpoint: str, question: Question, shard: str, example_id: str
) -> pl.DataFrame:
    """Return what each token of one training example, and of a question, contributed to the score of the pair.

    Args:
        model_cache: of the project.
        checkpoint: name of an attributed checkpoint.
        question: what is asked about.
        shard: that the example is in.
        example_id: its id.

    Returns:
        The columns of `TOKEN_ROWS`, of which the stored score is null, and `cut`: what was cut of the side that the row is of.

    Raises:
        SourceError: the question has no token that carries loss.
        NotStoredError: the example is not in the training data, or cannot be used.
        MismatchError: factors, preconditioners and settings do not match.
    """
    project = model_cache.project
    stored = StoredCheckpoint.read(project.lake, checkpoint, project.settings.recipe)
    row = {"query_id": "query", "row": 0, **question}
    queries = pa.Table.from_pylist([row], schema=QUERY_EXAMPLES.columns)
    with model_cache.leased(stored) as attributed:
        tokenized = _tokenized(attributed, queries, lambda _query_id: "the completion")
        pair = shard, example_id
        examples = listed_examples(project.lake, attributed.model, [pair])
        if pair not in examples:
            raise NotStoredError(
                f"the training data have no example {example_id!r} in the shard {shard!r} that this checkpoint's tokenizer can "
                "read: it was withdrawn, set aside, or never there"
            )
        listed = pl.DataFrame(
            {"query_id": ["query"], "shard": [shard], "example_id": [example_id], "score": [None]},
            schema_overrides={"score": pl.Float32},
        )
        with Progress("tokens", 1, "pairs") as progress:
            rows = token_rows(
                attributed.model, attributed.inverse_of, tokenized, listed, examples, project.settings.batch, progress
            )
    (query,) = tokenized
    cuts = {QUERY: "; ".join(query.cuts) or None, EXAMPLE: examples[pair].cut}
    return rows.with_columns(cut=pl.col("side").replace_strict(cuts, return_dtype=pl.String))


def _tokenized(
    attributed: AttributedCheckpoint, queries: pa.Table, called: Callable[[str], str]
) -> Sequence[TokenizedExample]:
    tokenized = attributed.model.tokenized_queries(queries)
    if tokenized.rejected.num_rows:
        query_id, reason = (tokenized.rejected[name][0].as_py() for name in ("example_id", "reason"))
        raise SourceError(f"{called(query_id)} cannot be scored: {reason}")
    return tokenized.examples


def _with_tokens(
    scored: QueryScores,
    attributed: AttributedCheckpoint,
    queries: Sequence[TokenizedExample],
    project: Project,
    tokens: int,
) -> QueryScores:
    listed = leading_rows(scored.scores, tokens)
    examples = listed_examples(project.lake, attributed.model, listed.select("shard", "example_id").iter_rows())
    with Progress("tokens", listed.height, "pairs") as progress:
        shares = token_rows(
            attributed.model, attributed.inverse_of, queries, listed, examples, project.settings.batch, progress
        )
    return replace(scored, tokens=shares)
