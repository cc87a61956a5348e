"""One question asked at the command line: a completion, or a chat, against a checkpoint that is attributed already."""

import logging

import pyarrow as pa

from lorif_assets.attribution.model import AttributedModel, checkpoint_record
from lorif_assets.attribution.score_queries import QueryScores, score_queries
from lorif_assets.attribution.stored_checkpoint import attributions_together
from lorif_assets.attribution.stored_curvature import preconditioner_table
from lorif_assets.data.questions import Question
from lorif_assets.errors import MismatchError, SourceError
from lorif_assets.lake.attribution_tables import QUERY_EXAMPLES
from lorif_assets.progress import Progress
from lorif_assets.project import Project


def newest_attributed(project: Project) -> str:
    """Return the newest checkpoint that has preconditioners.

    Raises:
        MismatchError: none has.
    """
    attributed = set(project.lake.read(preconditioner_table(project.settings.recipe), ["checkpoint"])["checkpoint"])
    names = [checkpoint.name for checkpoint in project.checkpoints.find() if checkpoint.name in attributed]
    if not names:
        raise MismatchError("no checkpoint is attributed yet; run `lorif materialize`, or materialize in Dagster's UI")
    return names[-1]


def score_completion(project: Project, checkpoint: str, question: Question, top_k: int) -> QueryScores:
    """Score every stored training example for what one question's model said, and return the `top_k` highest and lowest.

    Raises:
        SourceError: the completion has no token that carries loss.
        MismatchError: factors, preconditioners and settings do not belong together.
    """
    from lorif_assets.attribution.score_averaging import earlier_checkpoints

    settings, lake = project.settings, project.lake
    record = checkpoint_record(lake, checkpoint, settings.recipe)
    together, models = attributions_together(settings, lake, project.checkpoints, record), project.checkpoints
    stored = together[-1].factors
    row = {"query_id": "query", "row": 0, **question}
    with project.devices.lease() as group:
        attributed = AttributedModel.load(lake, models, checkpoint, settings.recipe, group)
        tokenized = attributed.tokenized(pa.Table.from_pylist([row], schema=QUERY_EXAMPLES.columns), "query_id")
        if not tokenized.examples:
            raise SourceError(f"the completion cannot be scored: {tokenized.rejected['reason'][0].as_py()}")
        with Progress(logging.getLogger(__name__), "scoring", stored.n_examples, "examples") as progress:
            return score_queries(
                attributed,
                tokenized.examples,
                stored,
                together[-1].preconditioners,
                lake,
                top_k=top_k,
                batch=settings.batch,
                progress=progress,
                earlier=earlier_checkpoints(attributed, together, tokenized.examples, lake, models, settings.batch),
            )
