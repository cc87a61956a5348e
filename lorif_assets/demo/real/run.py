"""The demo on a real language model, from the package index to a table of sources; every step goes on where it stopped."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import dagster as dg
import polars as pl
from rich.console import Console
from rich.text import Text

from lorif_assets.automation.dagster_home import make_home
from lorif_assets.config.settings import CONFIG_NAME, CONFIG_VARIABLE
from lorif_assets.data.passages import with_passages
from lorif_assets.demo.real.answers import kept_answers
from lorif_assets.demo.real.base_model import packaged_encoder, packaged_model, save_base
from lorif_assets.demo.real.chats import ChatQuestion, write_rows
from lorif_assets.demo.real.corpus import DESCRIBED, MISLABELLED, NAMED, ChatCorpus, build_chats
from lorif_assets.demo.real.findings import retrievals, source_ranks
from lorif_assets.demo.real.fine_tune import FineTuneConfig, adapter_path, fine_tune
from lorif_assets.demo.real.settings_file import SOURCE, write_settings
from lorif_assets.demo.real.tables import answers_list, retrieval_table
from lorif_assets.demo.run import clear, forget, materialize
from lorif_assets.errors import CheckpointError
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.attribution_tables import QUERY_SCORES
from lorif_assets.models.files.gguf import check_gguf
from lorif_assets.pages.addresses import evaluation_address, report_address
from lorif_assets.pages.stored_reports import place_of_page
from lorif_assets.pages.terminal import print_influences
from lorif_assets.project import Project

_TITLES = {
    NAMED: "invented facts, asked for by name",
    DESCRIBED: "the same facts, asked for by a description in other words",
    MISLABELLED: "a wrong label, learned from mislabelled rows",
}
_MEASURED = ("method_scores", "source_retrieval", "evaluation_report")
_SHOWN = 4


@dataclass(frozen=True)
class RealDemo:
    """The demo in its directory.

    `model` is the GGUF file of a model that answers chats, `encoder` the folder of a text encoder to compare with.
    """

    root: Path
    model: Path
    encoder: Path | None
    fine_tuning: FineTuneConfig

    @cached_property
    def corpus(self) -> ChatCorpus:
        """What the model is trained on, and asked."""
        return build_chats()

    @property
    def checkpoints(self) -> Path:
        """Folder of the adapters."""
        return self.root / "checkpoints"

    @property
    def base(self) -> Path:
        """Folder of the base model."""
        return self.root / "base"

    @property
    def adapters(self) -> list[Path]:
        """Folders of the adapters, in the order of training."""
        return [adapter_path(self.checkpoints, step) for step in self.fine_tuning.steps(len(self.corpus.chats))]

    @property
    def settings(self) -> Path:
        """The demo's lorif.toml."""
        return self.root / CONFIG_NAME

    @property
    def questions(self) -> list[ChatQuestion]:
        """The questions of all sets."""
        return [question for questions in self.corpus.questions.values() for question in questions]


def smollm2_demo(directory: Path) -> RealDemo:
    """Return the demo on SmolLM2-135M-Instruct, beside the encoder that a package carries, where it is installed.

    Raises:
        CheckpointError: the model's package or the library that reads it is not installed.
    """
    model = packaged_model()
    check_gguf([model])
    try:
        encoder = packaged_encoder()
    except CheckpointError:
        encoder = None
    return RealDemo(directory.absolute(), model, encoder, FineTuneConfig())


def run_real_demo(demo: RealDemo, dagster_home: Path, *, fresh: bool = False, console: Console) -> None:
    """Run the steps that are not done yet, and print what the fine-tuned model's answers were learned from.

    Args:
        demo: where, on which model.
        dagster_home: Dagster's instance, whose UI shows the runs.
        fresh: whether to remove the directory, and the partitions' history in Dagster, first.
        console: where to print.

    Raises:
        LorifError: a step raised it.
    """
    if fresh:
        clear(demo.root, kept=dagster_home)
    make_home(dagster_home)
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        if fresh:
            forget(instance, SOURCE)
        _write_chats(demo, console)
        _train(demo, console)
        os.environ[CONFIG_VARIABLE] = str(demo.settings)
        project = Project.open(demo.settings)
        console.rule("[bold]3  attribution: Dagster materializes the graph", align="left")
        materialize(instance, project, console, _MEASURED)
    _show(demo, project, console)


def _write_chats(demo: RealDemo, console: Console) -> None:
    console.rule("[bold]1  chats: invented facts among everyday questions", align="left")
    data = demo.root / "data" / "chats.jsonl"
    if not data.is_file():
        write_rows(demo.corpus.chats, data)
    for name, questions in demo.corpus.questions.items():
        if not (file := demo.root / "queries" / f"{name}.jsonl").is_file():
            write_rows(questions, file)
    kinds = pl.Series([chat.kind for chat in demo.corpus.chats]).value_counts(sort=True)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.iter_rows())
    console.print(f"{len(demo.corpus.chats)} chats to train on ({counts}), {len(demo.questions)} questions")
    if not demo.settings.is_file():
        write_settings(demo.settings, demo.encoder)


def _train(demo: RealDemo, console: Console) -> None:
    console.rule(f"[bold]2  model: {demo.model.stem}, fine-tuned here by LoRA", align="left")
    if not demo.base.is_dir():
        save_base(demo.model, demo.base)
    fine_tune(demo.base, demo.corpus.chats, demo.checkpoints, demo.fine_tuning)
    names = ", ".join(folder.name for folder in demo.adapters)
    console.print(f"the base model is in {demo.base}, the adapters {names} in {demo.checkpoints}", soft_wrap=True)


def _show(demo: RealDemo, project: Project, console: Console) -> None:
    console.rule("[bold]4  which chats made the model say this?", align="left")
    lake, last = project.lake, demo.adapters[-1]
    attributed = Freshness.of(project).active_checkpoints
    said = kept_answers(demo.root / "answers.json", {demo.base.name: demo.base, last.name: last}, demo.questions)
    for query_set, questions in demo.corpus.questions.items():
        ranks = {name: source_ranks(lake, name, query_set, "lorif") for name in attributed}
        ranks["those of BM25"] = source_ranks(lake, last.name, query_set, "bm25")
        console.print(answers_list(_TITLES[query_set], questions, said[demo.base.name], said[last.name], ranks))
        figures = {name: retrievals(lake, name, query_set, questions, demo.corpus.chats) for name in attributed}
        console.print(retrieval_table(f"{_TITLES[query_set]}: are the sources found?", figures))
        console.print()
    asked = demo.corpus.questions[NAMED][0]
    console.print(Text.assemble(asked.prompt[-1]["content"], " ", (asked.answer, "bold reverse")))
    scores = lake.read(QUERY_SCORES, checkpoint=attributed[0], query_set=NAMED, query_id=asked.id)
    print_influences(console, with_passages(lake, scores.filter(pl.col("rank") <= _SHOWN)), _SHOWN)
    console.print()
    for name, address in (("report", report_address), ("evaluation", evaluation_address)):
        console.print(f"{name:<10} {place_of_page(lake, address(last.name, NAMED))}", soft_wrap=True)
    console.print(f"tables     {lake.root} (Delta Lake)", soft_wrap=True)
    config = os.path.relpath(demo.settings)
    console.print(f"explore    lorif explore --config {config}", soft_wrap=True)
    console.print(f"Dagster    lorif ui --config {config}", soft_wrap=True)
    console.print(
        f'ask more   lorif attribute --config {config} --checkpoint {attributed[0]} --user "{asked.prompt[-1]["content"]}" '
        f'--assistant "{asked.answer}"',
        soft_wrap=True,
    )
