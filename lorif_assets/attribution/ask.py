"""One question asked at the command line: a prompt and a completion against a checkpoint that is attributed already."""

import logging

import pyarrow as pa

from lorif_assets.attribution.checkpoint import StoredCheckpoint, attributions_together
from lorif_assets.attribution.curvatures import curvature_of
from lorif_assets.attribution.score_checkpoint import score_every_example
from lorif_assets.attribution.score_queries import QueryScores
from lorif_assets.errors import MismatchError, SourceError
from lorif_assets.lake.attribution_tables import QUERY_EXAMPLES
from lorif_assets.progress import Progress
from lorif_assets.project import Project


def newest_attributed(project: Project) -> str:
    """Return the newest checkpoint that has preconditioners.

    Raises:
        MismatchError: none has.
    """
    attributed = set(project.lake.read(curvature_of(project.settings.recipe).table, ["checkpoint"])["checkpoint"])
    names = [checkpoint.name for checkpoint in project.checkpoints.find() if checkpoint.name in attributed]
    if not names:
        raise MismatchError("no checkpoint is attributed yet; run `lorif materialize`, or materialize in Dagster's UI")
    return names[-1]


def score_completion(project: Project, checkpoint: str, prompt: str, completion: str, top_k: int) -> QueryScores:
    """Score every stored training example for one completion, and return the `top_k` highest and lowest.

    Raises:
        SourceError: the completion has no token that carries loss.
        MismatchError: factors, preconditioners and settings do not belong together.
    """
    settings, lake, models = project.settings, project.lake, project.checkpoints
    stored = StoredCheckpoint.read(lake, checkpoint, settings.recipe)
    *earlier, stored = attributions_together(settings, models, stored)
    row = {
        "query_id": "query",
        "row": 0,
        "format": "prompt_completion" if prompt else "text",
        **({"prompt": prompt, "completion": completion} if prompt else {"text": completion}),
    }
    with project.devices.lease() as group:
        attributed = stored.load(models, group)
        tokenized = attributed.model.tokenized(pa.Table.from_pylist([row], schema=QUERY_EXAMPLES.columns), "query_id")
        if not tokenized.examples:
            raise SourceError(f"the completion cannot be scored: {tokenized.rejected['reason'][0].as_py()}")
        with Progress(logging.getLogger(__name__), "scoring", stored.factors.n_examples, "examples") as progress:
            return score_every_example(
                attributed,
                earlier,
                tokenized.examples,
                models,
                top_k=top_k,
                batch=settings.batch,
                progress=progress,
                reason="a question is answered from all examples",
            )
