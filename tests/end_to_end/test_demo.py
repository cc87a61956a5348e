"""The main job, from nothing to a report, on a part of the corpus and a model that trains in seconds."""

import io
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from rich.console import Console

from lorif_assets.assets.graph import ASSETS, assets_in_use
from lorif_assets.config.settings import load_settings
from lorif_assets.demo import run
from lorif_assets.demo.corpus import Corpus, build_corpus
from lorif_assets.demo.training import DemoModelConfig, train

pytestmark = pytest.mark.slow

TINY = DemoModelConfig(
    vocab_size=600, layers=1, width=32, heads=2, context=256, checkpoint_steps=(10, 20), batch_tokens=1024
)


def part_of_the_corpus() -> Corpus:
    whole = build_corpus()
    on_topic = {topic for query in run.demo_queries({p.topic for p in whole.train}) for topic in query.topics}
    kept = [passage for passage in whole.train if passage.topic in on_topic]
    return replace(whole, train=tuple(kept[:160] + list(whole.train[:80])), held_out=whole.held_out[:20])


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    found = part_of_the_corpus()
    return replace(found, train=tuple({passage.id: passage for passage in found.train}.values()))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, corpus: Corpus) -> None:
    monkeypatch.setattr(run, "build_corpus", lambda: corpus)
    monkeypatch.setattr(run, "train", lambda corpus, folder, _config: train(corpus, folder, TINY))
    topics = {passage.topic for passage in corpus.train}
    known = [query for query in run.demo_queries({p.topic for p in build_corpus().train}) if set(query.topics) & topics]
    monkeypatch.setattr(run, "demo_queries", lambda _topics: known)
    monkeypatch.setenv("LORIF_TRACKING__URI", "none")
    monkeypatch.setenv("LORIF_RECIPE__BYTES_PER_EXAMPLE", "300")
    monkeypatch.setenv("LORIF_CONFIG", "")


def demo(folder: Path, *, fresh: bool = False) -> str:
    written = io.StringIO()
    home = folder / "home"
    home.mkdir(exist_ok=True)
    run.run_demo(folder / "demo", home, fresh=fresh, architecture="gpt2", console=Console(file=written, width=140))
    return written.getvalue()


def materializations(folder: Path) -> int:
    with dg.DagsterInstance.from_config(str(folder / "home")) as instance:
        return sum(len(instance.fetch_materializations(asset.key, limit=1_000).records) for asset in ASSETS)


@pytest.mark.usefixtures("small")
def test_the_demo_goes_from_nothing_to_a_report_and_does_nothing_twice(tmp_path: Path) -> None:
    said = demo(tmp_path)
    assert "proponents" in said
    assert "opponents" in said
    assert "BM25" in said
    assert "chance" in said
    reports = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("demo/lake/reports/step-*/*.html"))
    names = [f"{query_set}.html" for query_set in (run.HELD_OUT, run.PLANTED, run.QUERY_SET)]
    assert [(path.parent.name, path.name) for path in reports] == [
        (checkpoint, name) for checkpoint in ("step-000010", "step-000020") for name in names
    ]
    page = (tmp_path / reports[2]).read_text()
    assert "with-statement" in page
    scores = pl.scan_delta(str(tmp_path / "demo/lake/query_scores")).collect()
    assert set(scores["checkpoint"]) == {"step-000010", "step-000020"}
    assert scores["score"].is_finite().all()

    computed = materializations(tmp_path)
    again = demo(tmp_path)
    assert materializations(tmp_path) == computed
    assert again.count("up to date") == len(assets_in_use(load_settings(tmp_path / "demo/lorif.toml")))

    fresh = demo(tmp_path, fresh=True)
    assert "up to date" not in fresh
    assert materializations(tmp_path) == computed
