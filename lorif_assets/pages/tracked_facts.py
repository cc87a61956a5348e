"""What a person reads in MLflow of a checkpoint, its project and their training data, besides figures."""

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from urllib.parse import quote, urlsplit

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.settings import CONFIG_NAME, Settings
from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.stored_examples import stored_shard_hashes
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake
from lorif_assets.pages import markdown
from lorif_assets.project import Project
from lorif_assets.tracking.facts import CheckpointFacts, TrackedDataset
from lorif_assets.tracking.source_commit import source_commit

_HUB = "hf://datasets/"
# How MLflow calls what a source is; others go by the scheme of their address.
_LOCAL, _HUGGING_FACE, _DELTA = "local", "hugging_face", "delta_table"


def checkpoint_facts(project: Project, checkpoint: str) -> CheckpointFacts:
    """Return what the runs of a checkpoint and of the project say in MLflow, from the settings and the table of checkpoints."""
    settings = project.settings
    rows = project.lake.read(CHECKPOINTS, checkpoint=checkpoint).to_dicts()
    row = rows[0] if rows else {}
    own = {
        "lorif.step": row.get("step"),
        "lorif.weights": row.get("weights_hash"),
        "lorif.model_type": row.get("model_type"),
        "lorif.parameters": row.get("n_parameters"),
        "lorif.files": row.get("uri"),
    }
    return CheckpointFacts(
        step=row.get("step"),
        project=settings.base.name,
        lake=settings.lake_root,
        recipe=settings.recipe.score_hash,
        params={name: str(value) for name, value in settings.recipe.model_dump().items()},
        tags=_source_tags(settings),
        checkpoint_tags={name: str(value) for name, value in own.items() if value is not None},
        checkpoint_note=_checkpoint_note(settings, checkpoint, row.get("step")),
        project_note=_project_note(settings),
    )


def training_datasets(lake: Lake, settings: Settings) -> list[TrackedDataset]:
    """Return the sources that the stored training examples are from, as MLflow lists data; none of an empty one."""
    hashes = stored_shard_hashes(lake)
    counts = dict(lake.read(TRAINING_EXAMPLES, ["shard"])["shard"].value_counts().iter_rows())
    # The longest first: the name of one may begin with that of another.
    by_length = sorted(settings.sources, key=lambda source: len(source.name), reverse=True)
    shards: dict[str, list[str]] = {}
    for shard in sorted(hashes):
        owner = next((one.name for one in by_length if shard.startswith(f"{one.name}-")), None)
        if owner is not None:
            shards.setdefault(owner, []).append(shard)
    return [
        _dataset(settings, source, {shard: hashes[shard] for shard in shards[source.name]}, counts)
        for source in settings.sources
        if source.name in shards
    ]


def materialization_note(settings: Settings, asset: str, dagster_run: str, pages: Sequence[tuple[str, str]]) -> str:
    """Return what the run of a materialization says in Markdown: where Dagster has it, and pages by title and address."""
    dagster = settings.addresses.dagster
    links = [
        f"[Run {dagster_run.partition('-')[0]} in Dagster]({dagster}/runs/{quote(dagster_run)})",
        f"[The asset {asset}]({dagster}/assets/{quote(asset)})",
        *(f"[{title}]({address})" for title, address in pages),
    ]
    return markdown.bullets(links)


def _source_tags(settings: Settings) -> dict[str, str]:
    tags = {
        "lorif.project": settings.base.name,
        "lorif.version": version("lorif-assets"),
        "mlflow.source.name": str(settings.base / CONFIG_NAME),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": source_commit(settings.base),
    }
    return {name: value for name, value in tags.items() if value}


def _checkpoint_note(settings: Settings, checkpoint: str, step: int | None) -> str:
    addresses = settings.addresses
    at = "" if step is None else f", at step {step:,} of the training"
    return (
        f"What the training data taught the checkpoint {markdown.code(checkpoint)}{at}.\n\n"
        + markdown.bullets(
            [
                f"[Explore its influences]({addresses.explorer}/?checkpoint={quote(checkpoint)}) "
                f"({markdown.code('lorif explore')})",
                f"[Its scores in Dagster]({addresses.dagster}/assets/query_scores?view=partitions) "
                f"({markdown.code('lorif ui')})",
            ]
        )
        + "\n\nReports are among the artifacts. The run of the project has the figures of all checkpoints by training step."
    )


def _project_note(settings: Settings) -> str:
    addresses = settings.addresses
    return (
        f"The checkpoints of the project {markdown.code(settings.base.name)} by training step: how the loss of each query set "
        "and its leading training examples move. Each checkpoint has a run of its own.\n\n"
        + markdown.bullets(
            [
                f"[Explore its influences]({addresses.explorer}/) ({markdown.code('lorif explore')})",
                f"[Dagster]({addresses.dagster}/) ({markdown.code('lorif ui')})",
            ]
        )
    )


def _dataset(settings: Settings, source: Source, hashes: dict[str, str], counts: dict[str, int]) -> TrackedDataset:
    kind, where = _place(settings, source)
    columns = [{"type": "string", "name": name, "required": True} for name in _columns(source)]
    return TrackedDataset(
        name=source.name,
        digest=content_hash(hashes)[:16],
        source_type=kind,
        source=json.dumps(where),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps({"num_rows": sum(counts[shard] for shard in hashes), "shards": len(hashes)}),
    )


def _place(settings: Settings, source: Source) -> tuple[str, dict[str, str]]:
    if source.path.startswith(_HUB):
        name, _, revision = source.path.removeprefix(_HUB).partition("@")
        split = {"split": source.split} if source.split else {}
        return _HUGGING_FACE, {"path": name, **({"revision": revision} if revision else {}), **split}
    path = settings.resolve(source.path)
    if source.format is SourceFormat.DELTA:
        return _DELTA, {"path": path}
    return urlsplit(path).scheme or _LOCAL, {"uri": path}


def _columns(source: Source) -> Iterator[str]:
    named = source.columns.model_dump(include={"id", "text", "prompt", "completion", "messages"}).values()
    yield from (name for name in named if isinstance(name, str))
    yield from source.columns.metadata or ()
