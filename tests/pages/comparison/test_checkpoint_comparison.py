"""The asset: what it stores and tells, when it is out of date, and when it waits."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import polars as pl
import pytest

from lorif_assets import project as opened
from lorif_assets.assets import partitions
from lorif_assets.assets.checkpoint_comparison import checkpoint_comparison
from lorif_assets.assets.graph import ASSETS
from lorif_assets.automation.readiness import ready_partitions
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import LakeSettings, TrackingSettings
from lorif_assets.config.settings import Settings
from lorif_assets.freshness.discovery import Discovered
from lorif_assets.freshness.stale import MISSING, Stale
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.attribution_tables import CHECKPOINT_COMPARISONS
from lorif_assets.tracking import Tracking
from resources import dagster_resources
from tests.pages.comparison.conftest import EXAMPLES
from tests.pages.comparison.stored_scores import QUERY_SET, StoredScores

MOVED = EXAMPLES[::-1]


@dataclass(frozen=True)
class Project:
    """Scores in a lake, and a Dagster instance that knows the query set."""

    store: StoredScores
    settings: Settings
    instance: dg.DagsterInstance

    def run(self) -> dict[str, Any]:
        """Materialize the comparison and return its metadata."""
        result = dg.materialize(
            [asset.definition for asset in ASSETS],
            selection=["checkpoint_comparison"],
            instance=self.instance,
            partition_key=QUERY_SET,
            resources=dagster_resources(opened.Project.of(self.settings)),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        (event,) = result.asset_materializations_for_node("checkpoint_comparison")
        return {name: value.value for name, value in event.metadata.items()}

    @property
    def rows(self) -> pl.DataFrame:
        return self.store.lake.read(CHECKPOINT_COMPARISONS, query_set=QUERY_SET).sort("query_id", "loss_per_token_to")

    @property
    def stale(self) -> dict[str, str]:
        """Why the comparison of each query set is out of date."""
        return {name: stale.reason for name, stale in checkpoint_comparison.stale(self.freshness).items()}

    @property
    def freshness(self) -> Freshness:
        """The store, and one query set."""
        seen = replace(opened.Project.of(self.settings), lake=self.store.lake)
        return Freshness(seen, Discovered((), (), (QUERY_SET,), ()))


Logged = list[tuple[str, object, dict[str, float]]]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Logged:
    """What goes to MLflow: checkpoint, the one before it, and the figures."""
    found: Logged = []

    @contextmanager
    def materialization(
        tracking: Tracking,
        checkpoint: str,
        asset: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        log: object,
        *,
        facts: object,
        partitions: list[str],
    ) -> Iterator[SimpleNamespace]:
        assert (asset, tags["dagster.partition"], params["query_set"]) == (
            "checkpoint_comparison",
            QUERY_SET,
            QUERY_SET,
        )
        assert partitions == [QUERY_SET]
        figures: dict[str, float] = {}
        of_checkpoint: dict[str, float] = {}
        pages: list[tuple[str, str, str]] = []
        yield SimpleNamespace(
            url="",
            metrics=figures.update,
            checkpoint_metrics=of_checkpoint.update,
            text=lambda *page: pages.append(page),
        )
        assert of_checkpoint == {
            f"{name}/{QUERY_SET}": figures[f"mean_{name}"] for name in ("overlap_at_10", "rank_biased_overlap")
        }
        assert [page[1:] for page in pages] == [(f"reports/comparison/{QUERY_SET}.html", "project")]
        found.append((checkpoint, params["from_checkpoint"], figures))

    monkeypatch.setattr(Tracking, "materialization", materialization)
    return found


@pytest.fixture
def open_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[StoredScores], Project]]:
    monkeypatch.setattr("lorif_assets.pages.look.png", lambda figure: b"picture")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("query_sets", [QUERY_SET])

        def opened(store: StoredScores) -> Project:
            settings = Settings(
                base=tmp_path, lake=LakeSettings(root=store.lake.root), tracking=TrackingSettings(uri="none")
            )
            assert settings.recipe == store.recipe
            return Project(store, settings, instance)

        yield opened


@pytest.fixture
def project(open_project: Callable[[StoredScores], Project], store: StoredScores) -> Project:
    """No scores yet. Pictures are not drawn."""
    return open_project(store)


@pytest.fixture
def scored_project(open_project: Callable[[StoredScores], Project], scored: StoredScores) -> Project:
    """Three checkpoints scored, not yet compared."""
    return open_project(scored)


@pytest.fixture
def compared(scored_project: Project) -> Project:
    """Three checkpoints scored and compared."""
    scored_project.run()
    return scored_project


# --- What it stores and tells ----------------------------------------------------------------------------------------


def test_it_stores_rows_a_page_and_findings_to_look_at(scored_project: Project) -> None:
    project = scored_project
    told = project.run()
    assert project.rows.height == told["dagster/row_count"] == 4
    assert (told["checkpoints"], told["queries"]) == (3, 2)
    assert told["mean_rank_biased_overlap"] == pytest.approx(project.rows["rank_biased_overlap"].to_numpy().mean())
    assert "| `step-20` | `step-100` |" in told["movement"]
    assert "](data:image/png;base64,cGljdHVyZQ==)" in told["along_the_checkpoints"]
    assert told["report"] == f"{project.store.lake.root}/reports/comparison/{QUERY_SET}.html"
    page = Path(told["report"]).read_text()
    assert all(f"passage {name}" in page for name in ("e00", "e01", "e10", "e11"))


def test_running_it_again_writes_the_same_rows(compared: Project) -> None:
    # The page says when it was made, and has the checksum of that.
    before = compared.rows.drop("page")
    compared.run()
    assert compared.rows.drop("page").equals(before)


def test_fewer_than_two_checkpoints_leave_no_rows_and_are_no_error(project: Project) -> None:
    project.store.scores("step-3", {"q0": EXAMPLES})
    told = project.run()
    assert project.rows.is_empty()
    assert told["note"].startswith("fewer than two checkpoints have scores of the current recipe")
    assert set(told["left_out"]) == {"step-20", "step-100"}
    assert "Fewer than two" in Path(told["report"]).read_text()


def test_scores_of_another_recipe_are_left_out(compared: Project) -> None:
    compared.store.scores("step-20", {"q0": EXAMPLES}, recipe=Recipe(fisher_damping=3.0))
    told = compared.run()
    assert set(compared.rows["from_checkpoint"]) == {"step-3"}
    assert set(compared.rows["to_checkpoint"]) == {"step-100"}
    assert "under the recipe" in told["left_out"]["step-20"]


def test_each_newer_checkpoint_has_a_run_in_mlflow_for_every_new_comparison(
    scored_project: Project, logged: Logged
) -> None:
    project = scored_project
    project.run()
    assert [run[:2] for run in logged] == [("step-20", "step-3"), ("step-100", "step-20")]
    project.run()
    assert len(logged) == 2
    losses = {"q0": 0.5, "q1": 1.0}
    project.store.scores("step-100", {"q0": MOVED, "q1": EXAMPLES}, losses=losses, version="scored again", stored=15)
    project.run()
    ((checkpoint, before, figures),) = logged[2:]
    assert (checkpoint, before) == ("step-100", "step-20")
    rows = project.rows.filter(pl.col("to_checkpoint") == "step-100")
    assert figures == {
        "mean_rank_biased_overlap": pytest.approx(rows["rank_biased_overlap"].to_numpy().mean()),
        "mean_overlap_at_10": pytest.approx(rows["overlap_at_10"].to_numpy().mean()),
        "mean_loss_per_token": 0.75,
    }


# --- When it is out of date ------------------------------------------------------------------------------------------


def test_a_comparison_that_was_never_made_is_missing_and_one_of_these_scores_is_up_to_date(
    scored_project: Project,
) -> None:
    assert scored_project.stale == {QUERY_SET: MISSING}
    scored_project.run()
    assert scored_project.stale == {}


@pytest.mark.parametrize("checkpoint", ["step-3", "step-20", "step-100"])
def test_new_scores_of_any_checkpoint_make_it_stale_until_it_ran(compared: Project, checkpoint: str) -> None:
    compared.store.scores(checkpoint, {"q0": MOVED}, version="scored again")
    assert compared.stale == {QUERY_SET: "the scores of a checkpoint changed"}
    compared.run()
    assert compared.stale == {}


def test_the_scores_of_a_further_checkpoint_make_it_stale(compared: Project) -> None:
    compared.store.checkpoint("step-200", 200)
    assert compared.stale == {}
    compared.store.scores("step-200", {"q0": EXAMPLES})
    assert set(compared.stale) == {QUERY_SET}


def test_one_scored_checkpoint_asks_for_no_comparison(project: Project) -> None:
    project.store.scores("step-3", {"q0": EXAMPLES})
    assert project.stale == {}


def test_where_only_one_checkpoint_is_left_the_old_rows_go_and_nothing_more_is_asked_for(compared: Project) -> None:
    for checkpoint in ("step-3", "step-20"):
        compared.store.scores(checkpoint, {"q0": EXAMPLES}, recipe=Recipe(fisher_damping=3.0))
    assert set(compared.stale) == {QUERY_SET}
    compared.run()
    assert compared.rows.is_empty()
    assert compared.stale == {}


def test_checkpoints_without_a_common_query_are_compared_once_and_not_for_ever(project: Project) -> None:
    project.store.scores("step-3", {"q0": EXAMPLES})
    project.store.scores("step-20", {"q1": EXAMPLES})
    told = project.run()
    assert project.stale == {}
    assert project.rows["rank_biased_overlap"].to_list() == [None]
    assert "mean_rank_biased_overlap" not in told


# --- When it waits ---------------------------------------------------------------------------------------------------


def test_it_waits_until_no_scores_of_its_query_set_are_stale(project: Project) -> None:
    """Scores of a partition and comparisons of two query sets are stale; all else is up to date."""
    stale = {
        "query_scores": {"step-20|questions": Stale("the recipe changed", "new")},
        "checkpoint_comparison": dict.fromkeys(
            ("questions", "others"), Stale("the scores of a checkpoint changed", "new")
        ),
    }
    assets = [replace(asset, find_stale=lambda _, name=asset.name: stale.get(name, {})) for asset in ASSETS]
    *_, (last, ready) = ready_partitions(project.freshness, assets)
    assert (last, list(ready)) == ("checkpoint_comparison", ["others"])


def test_it_depends_on_the_scores_of_its_query_set_at_every_checkpoint(project: Project) -> None:
    project.instance.add_dynamic_partitions("query_sets", ["others"])
    project.instance.add_dynamic_partitions("checkpoints", ["step-3", "step-20"])
    mapping = partitions.same(partitions.QUERY_SET)
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(
        partitions.query_sets.empty_subset().with_partition_keys([QUERY_SET]),
        partitions.query_sets,
        partitions.checkpoint_by_query_set,
        dynamic_partitions_store=project.instance,
    )
    assert set(found.partitions_subset.get_partition_keys()) == {
        f"{name}|{QUERY_SET}" for name in ("step-3", "step-20")
    }
