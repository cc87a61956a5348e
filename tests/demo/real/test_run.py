"""The whole demo on a tiny Llama in place of the real one: from a GGUF file to a table of sources, and once more."""

import json
from io import StringIO

import pytest
from rich.console import Console

from lorif_assets.config.settings import CONFIG_VARIABLE
from lorif_assets.demo.real.corpus import DESCRIBED, MISLABELLED, NAMED
from lorif_assets.demo.real.fine_tune import FineTuneConfig
from lorif_assets.demo.real.run import RealDemo, run_real_demo
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.attribution_tables import QUERY_SUMMARIES
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES, EVALUATION_REPORTS
from lorif_assets.progress import watched
from lorif_assets.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(gguf_file, tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    return RealDemo(root, gguf_file, None, FineTuneConfig(epochs=2, batch_chats=8, rank=2, alpha=4))


def run(demo, home):
    console = Console(file=StringIO(), width=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CONFIG_VARIABLE, "")
        run_real_demo(demo, home, console=console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def works():
    return set()


@pytest.fixture(scope="module")
def output(demo, home, works):
    with watched(lambda label, *_: works.add(label)):
        return run(demo, home)


def test_every_question_is_printed_with_the_ranks_of_its_sources(demo, output):
    unwrapped = " ".join(output.split())
    assert all(question.answer.rstrip(".") in unwrapped for question in demo.corpus.questions[MISLABELLED])
    for title in ("asked for by name", "by a description in other words", "a wrong label", "anti-documents"):
        assert title in output
    assert "ranks at base" in output


def test_it_shows_how_far_it_is_while_the_models_answer(demo, output, works):
    assert {f"{name} answers" for name in ("base", demo.adapters[-1].name)} <= works


def test_the_base_an_early_and_the_last_step_are_evaluated_with_a_page_each(demo, output):
    lake = Project.open(demo.settings).lake
    steps = demo.fine_tuning.steps(len(demo.corpus.chats))
    expected = {
        (name, query_set)
        for name in ("base", *(f"checkpoint-{step}" for step in steps))
        for query_set in (NAMED, DESCRIBED, MISLABELLED)
    }
    figures = lake.read(EVALUATION_FIGURES, metric="mrr", statistic="mean")
    assert set(figures.select("checkpoint", "query_set").iter_rows()) == expected
    assert {"lorif", "bm25", "relatif"} <= set(figures["method"])
    assert set(lake.read(EVALUATION_REPORTS).select("checkpoint", "query_set").iter_rows()) == expected


def test_every_chat_is_attributed(demo, output):
    assert "set aside" not in output
    project = Project.open(demo.settings)
    found = [one.name for one in project.checkpoints.find()]
    assert Freshness.of(project).active_checkpoints == found == ["base", *(folder.name for folder in demo.adapters)]


def test_the_last_step_is_averaged_with_the_base_and_the_early_one(demo, output):
    summaries = Project.open(demo.settings).lake.read(QUERY_SUMMARIES, checkpoint=demo.adapters[-1].name)
    (averaged,) = summaries["averaged"].unique()
    assert list(json.loads(averaged)) == ["base", *(folder.name for folder in demo.adapters)]


def test_a_second_run_computes_nothing(demo, home, output):
    folders = (demo.base, demo.checkpoints, demo.root / "answers.json")
    files = {file: file.stat().st_mtime_ns for folder in folders for file in [folder, *folder.rglob("*")]}
    again = run(demo, home)
    assert {file: file.stat().st_mtime_ns for file in files} == files
    assert "partitions" not in again
    assert again.count("up to date") == output.count(" to compute")
