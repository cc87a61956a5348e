"""The demo from nothing to a report: corpus, model, attribution through Dagster, answers in the terminal."""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import dagster as dg
import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorif_assets.attribution.scores.score_rows import HIGHEST
from lorif_assets.automation.check_runs import failed_checks
from lorif_assets.automation.dagster_home import make_home
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.config.secrets import masked_address
from lorif_assets.config.settings import CONFIG_NAME, CONFIG_VARIABLE
from lorif_assets.data.passages import passage_metadata, with_passages
from lorif_assets.demo.corpus import Corpus, build_corpus, write_passages, write_shards
from lorif_assets.demo.influcoder import show_influcoder, switch_on
from lorif_assets.demo.planted import with_planted
from lorif_assets.demo.queries import (
    behaviour_queries,
    demo_queries,
    held_out_queries,
    planted_queries,
    write_queries,
)
from lorif_assets.demo.relevance import bm25_top, topic_precision
from lorif_assets.demo.training import Architecture, DemoModelConfig, train
from lorif_assets.lake.attribution_tables import QUERY_SCORES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.pages.addresses import report_address
from lorif_assets.pages.number_format import counted
from lorif_assets.pages.stored_reports import place_of_page
from lorif_assets.pages.terminal import print_influences
from lorif_assets.project import Project

QUERY_SET, HELD_OUT, PLANTED = "python-questions", "held-out", "planted"
_SOURCE = "python-docs"
_NAMES: dict[Architecture, str] = {"gpt2": "GPT-2", "llama": "Llama"}
_TOP = 10
_SHOWN = 3
"""Passages of each side that are printed of a query."""
_SETTINGS = f"""\
# The demo's settings. `lorif init --all` writes a file in which every field is explained.

[[sources]]
name = "{_SOURCE}"
path = "data"
columns = {{ id = "id", text = "text", metadata = ["topic", "title", "source"] }}

[checkpoints]
path = "checkpoints"

[queries]
path = "queries"
columns = {{ id = "id", prompt = "prompt", completion = "completion" }}

# Whitened gradients, one bit per number; with the LM head, which holds half of what so small a model has learned.
[recipe]
curvature = "ekfac"
factor_dtype = "sign"
bytes_per_example = 1280
projection_factor = 4
include_layers = ["*attn*", "*mlp*", "lm_head"]
kfac_examples = 512
# The model is trained on passages without EOS.
append_eos = false
top_k = 100

[active]
checkpoints = "all"

[batch]
tokens = 2048

[evaluation]
trainer = "lorif_assets.demo.retraining:retrain"
keep_models = true
removal_query_sets = ["python-questions", "planted"]
selection_query_sets = ["planted", "held-out"]
"""


@dataclass(frozen=True)
class DemoPaths:
    """What the demo writes, below one directory."""

    root: Path

    @property
    def data(self) -> Path:
        """Training shards (Parquet)."""
        return self.root / "data"

    @property
    def checkpoints(self) -> Path:
        """Model checkpoints."""
        return self.root / "checkpoints"

    @property
    def training_summary(self) -> Path:
        """Losses and size of the trained model (JSON); its presence says that training is done."""
        return self.root / "training.json"

    @property
    def queries(self) -> Path:
        """The query sets (JSONL)."""
        return self.root / "queries"

    @property
    def settings(self) -> Path:
        """The demo's lorif.toml."""
        return self.root / CONFIG_NAME


def run_demo(
    directory: Path,
    dagster_home: Path,
    *,
    fresh: bool = False,
    architecture: Architecture = "gpt2",
    influcoder: bool = False,
    console: Console,
) -> None:
    """Run the steps that are not done yet, and print what the model's words were learned from.

    Args:
        directory: where everything goes.
        dagster_home: Dagster's instance, whose UI shows the runs.
        architecture: of the model, if it is not trained yet.
        fresh: whether to remove the directory, and the partitions' history in Dagster, first.
        influcoder: make a small text encoder, and switch the second method on.
        console: where to print.

    Raises:
        LorifError: a step raised it.
    """
    paths = DemoPaths(directory.absolute())
    if fresh:
        clear(paths.root, kept=dagster_home)
    make_home(dagster_home)
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        if fresh:
            forget(instance, _SOURCE)
        corpus = with_planted(build_corpus())
        _prepare(paths, corpus, architecture, console)
        if influcoder:
            switch_on(paths.settings, [passage.text for passage in corpus.train], paths.checkpoints, console)
        os.environ[CONFIG_VARIABLE] = str(paths.settings)
        project = Project.open(paths.settings)
        console.rule("[bold]3  attribution: Dagster materializes the graph", align="left")
        materialize(instance, project, console)
    _show(project, corpus, paths, console)
    if project.settings.influcoder.enabled:
        show_influcoder(project.lake, console)


def _prepare(paths: DemoPaths, corpus: Corpus, architecture: Architecture, console: Console) -> None:
    console.rule("[bold]1  corpus: Python's own documentation", align="left")
    unfinished = not paths.training_summary.is_file()
    if unfinished:
        for folder in (paths.data, paths.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)
        write_passages(corpus.held_out, paths.root / "held_out.parquet")
        write_shards(corpus, paths.data)
        # Not beside data of an earlier version, in which their sources are not.
        for name, questions in behaviour_queries().items():
            write_queries(questions, paths.queries / f"{name}.jsonl")
    console.print(
        f"{len(corpus.train):,} passages to train on, {len(corpus.held_out):,} held out, "
        f"{len({passage.topic for passage in corpus.train}):,} topics"
    )
    console.rule(f"[bold]2  model: a small {_NAMES[architecture]}, trained here", align="left")
    if unfinished:
        summary = train(corpus, paths.checkpoints, DemoModelConfig(architecture=architecture))
        paths.training_summary.write_text(
            json.dumps(
                {
                    "architecture": architecture,
                    "parameters": summary.parameters,
                    "seconds": summary.seconds,
                    "corpus_tokens": summary.corpus_tokens,
                    "unigram_loss": summary.unigram_loss,
                    "held_out_loss": {c.path.name: c.held_out_loss for c in summary.checkpoints},
                },
                indent=1,
            )
        )
    trained = json.loads(paths.training_summary.read_text())
    losses = ", ".join(f"{name}: {loss:.2f}" for name, loss in trained["held_out_loss"].items())
    console.print(
        f"{trained['parameters'] / 1e6:.1f} M parameters; held-out loss in nats per token: {losses} "
        f"(a unigram model: {trained['unigram_loss']:.2f})"
    )
    for name, queries in (
        (QUERY_SET, demo_queries({passage.topic for passage in corpus.train})),
        (HELD_OUT, held_out_queries(corpus.held_out)),
        (PLANTED, planted_queries()),
    ):
        if not (file := paths.queries / f"{name}.jsonl").is_file():
            write_queries(queries, file)
    if not paths.settings.is_file():
        paths.settings.write_text(_SETTINGS)


def materialize(
    instance: dg.DagsterInstance, project: Project, console: Console, evaluations: Collection[str] = ()
) -> None:
    """Bring the assets in use up to date, and some of the evaluation's by name, and print what that took.

    Their checks run too, so that MLflow and the explorer know what they said.
    """
    from lorif_assets.assets.graph import ASSETS, EVALUATION, assets_in_use

    measured = [asset for asset in EVALUATION if asset.name in evaluations]
    graph = [*ASSETS, *EVALUATION] if measured else ASSETS
    selection = [*assets_in_use(project.settings), *measured]
    computed = []
    for update in bring_up_to_date(instance, graph, project, console.out, selection=selection):
        computed += [update.asset] if update.partitions else []
        done = counted(len(update.partitions), "partition") if update.partitions else "up to date"
        console.print(f"  {update.asset:<22} {done}")
    for failure in failed_checks(instance, graph, computed, project):
        console.print(f"  {failure.sentence}", style="yellow", markup=False, soft_wrap=True)


def _show(project: Project, corpus: Corpus, paths: DemoPaths, console: Console) -> None:
    console.rule("[bold]4  which passages made the model say this?", align="left")
    lake = project.lake
    checkpoint = project.checkpoints.find()[-1].name
    queries = lake.read(QUERY_EXAMPLES, query_set=QUERY_SET).sort("row").to_dicts()
    scores = lake.read(QUERY_SCORES, checkpoint=checkpoint, query_set=QUERY_SET)
    for query in queries:
        console.print()
        console.print(Text.assemble(query["prompt"], (query["completion"], "bold reverse")))
        leading = scores.filter(pl.col("query_id") == query["query_id"], pl.col("rank") <= _SHOWN)
        print_influences(console, with_passages(lake, leading), _SHOWN)
    console.print()
    console.print(_agreement(project, queries, corpus))
    console.print(
        "Sharing a topic is a sanity check, at which lexical search is hard to beat: it says which passages are about the "
        "same thing. Influence says which ones changed the model."
    )
    console.print()
    console.print(f"report     {place_of_page(lake, report_address(checkpoint, QUERY_SET))}", soft_wrap=True)
    console.print(f"tables     {lake.root} (Delta Lake)", soft_wrap=True)
    console.print(
        f"tracking   mlflow ui --backend-store-uri {masked_address(project.tracking.uri or 'none')}", soft_wrap=True
    )
    console.print(f"explore    lorif explore --config {os.path.relpath(paths.settings)}", soft_wrap=True)
    console.print(f"Dagster    lorif ui --config {os.path.relpath(paths.settings)}", soft_wrap=True)
    console.print(
        f'ask more   lorif attribute --config {os.path.relpath(paths.settings)} --prompt "A lambda" '
        '--completion " expression makes an anonymous function."',
        soft_wrap=True,
    )


def _agreement(project: Project, queries: Sequence[Mapping[str, str]], corpus: Corpus) -> Table:
    """Return how often the top passages share the query's topic: LoRIF at each checkpoint, BM25, chance."""
    lake = project.lake
    wanted = [set(passage_metadata(query)["topics"]) for query in queries]
    topics = {
        row["example_id"]: passage_metadata(row)["topic"]
        for row in lake.read(TRAINING_EXAMPLES, ["example_id", "metadata"]).iter_rows(named=True)
    }
    table = Table(title=f"share of the top {_TOP} passages that are on the query's topic", title_justify="left")
    table.add_column("ranking")
    table.add_column("share", justify="right")
    for checkpoint in project.checkpoints.find():
        best = lake.read(QUERY_SCORES, checkpoint=checkpoint.name, query_set=QUERY_SET, side=HIGHEST)
        best = best.filter(pl.col("rank") <= _TOP)
        shares = [
            topic_precision(
                [topics[name] for name in best.filter(pl.col("query_id") == query["query_id"])["example_id"]], on_topic
            )
            for query, on_topic in zip(queries, wanted, strict=True)
        ]
        table.add_row(f"LoRIF at {checkpoint.name}", f"{fmean(shares):.0%}")
    lexical = bm25_top(
        [passage.text for passage in corpus.train], [query["prompt"] + query["completion"] for query in queries], _TOP
    )
    bm25 = [
        topic_precision([corpus.train[position].topic for position in top], on_topic)
        for top, on_topic in zip(lexical, wanted, strict=True)
    ]
    table.add_row("BM25 on the same words", f"{fmean(bm25):.0%}")
    chance = [topic_precision(list(topics.values()), on_topic) for on_topic in wanted]
    table.add_row("chance", f"{fmean(chance):.1%}")
    return table


def clear(folder: Path, kept: Path) -> None:
    """Remove what is in a demo's folder but Dagster's home, which a UI that is open may read: `forget` empties that."""
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.is_dir() and not child.is_symlink():
            if child.resolve() != kept.resolve():
                shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink()


def forget(instance: dg.DagsterInstance, source: str) -> None:
    """Remove a demo's partitions and history from Dagster, unless another project is there too, by a source's name."""
    from lorif_assets.assets import partitions
    from lorif_assets.assets.graph import ASSETS

    shards = partitions.shards.get_partition_keys(dynamic_partitions_store=instance)
    if any(not shard.startswith(source) for shard in shards):
        return
    instance.wipe_assets([asset.key for asset in ASSETS])
    for definition in (partitions.shards, partitions.checkpoints, partitions.layers, partitions.query_sets):
        for key in definition.get_partition_keys(dynamic_partitions_store=instance):
            instance.delete_dynamic_partition(str(definition.name), key)
