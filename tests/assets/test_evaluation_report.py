"""evaluation_report: a page per checkpoint and query set, made again when anything that it shows changes."""

from pathlib import Path

import dagster as dg
import pytest

from lorif_assets.assets.graph import GRAPH
from lorif_assets.errors import MismatchError
from lorif_assets.evaluation.figures import DIFFERENCE, MEAN, Figure, store_figures
from lorif_assets.lake.evaluation_tables import EVALUATION_REPORTS
from resources import dagster_resources
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

CHECKPOINT = CHECKPOINTS[-1]
KEY = f"{CHECKPOINT}|{QUERY_SET}"


def stale(project: TinyProject) -> dict[str, str]:
    return {key: partition.reason for key, partition in project.stale("evaluation_report").items()}


def report(project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("lorif_assets.pages.look.png", lambda figure: b"")
    dg.materialize(
        [asset.definition for asset in GRAPH],
        selection=["evaluation_report"],
        instance=project.instance,
        partition_key=KEY,
        resources=dagster_resources(project.opened),
    )
    (where,) = project.table(EVALUATION_REPORTS, checkpoint=CHECKPOINT, query_set=QUERY_SET)["uri"]
    assert where.endswith(f"reports/{CHECKPOINT}/evaluation-{QUERY_SET}.html")
    return Path(where).read_text()


def measure(project: TinyProject, value: float, version: str) -> None:
    figures = [
        Figure("lds", MEAN, "lorif", value, value - 0.1, value + 0.1),
        Figure("lds", MEAN, "bm25", value + 0.2, value + 0.1, value + 0.3),
        Figure("lds", DIFFERENCE, "bm25", -0.2, -0.3, -0.1),
    ]
    store_figures(project.lake, CHECKPOINT, QUERY_SET, "linear_datamodeling_score", figures, version)


def test_the_page_shows_what_was_measured_and_is_stale_when_that_changes(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stale(private_project) == {}
    measure(private_project, 0.31, "first")
    assert stale(private_project) == {KEY: "missing"}
    page = report(private_project, monkeypatch)
    assert "BM25" in page
    assert "0.31" in page
    # The scores themselves were not stored, and nothing was retrained: both are said.
    assert "materialize <code>method_scores</code> first" in page
    assert "set <code>evaluation.trainer</code>" in page
    assert stale(private_project) == {}
    measure(private_project, 0.42, "second")
    assert stale(private_project) == {KEY: "what it shows changed"}
    assert "0.42" in report(private_project, monkeypatch)


def test_a_page_of_nothing_is_refused(private_project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MismatchError, match=r"nothing was evaluated .* materialize `method_scores` first"):
        report(private_project, monkeypatch)
