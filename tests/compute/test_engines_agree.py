"""Workers that share nothing but the lake compute what this process would: each asset, on a whole small project."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorif_assets.assets.graph import ASSETS, EVALUATION
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.compute.local import LocalEngine
from lorif_assets.errors import LorifError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SCORES, QUERY_SUMMARIES
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES
from lorif_assets.project import Project
from tests.compute.pickled_workers import PickledEngine
from tests.compute.same_tables import assert_same_tables
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject, private_copy

COMPUTED = ("gradient_factors", "kfac_bases_tensors", "kfac_bases", "curvature_states", "fisher_sums")
KEYS = [f"{CHECKPOINTS[0]}|{shard}" for shard in SHARDS]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> PickledEngine:
    """Stands in for the cluster of `compute.engine = "ray"`."""
    engine = PickledEngine()
    local = Project.engine.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(
        Project, "engine", property(lambda self: engine if self.compute.engine == "ray" else local(self))
    )
    return engine


def emptied(project: TinyProject) -> TinyProject:
    """The project without what is computed shard by shard, for the other engine."""
    for name in (*COMPUTED, "ekfac_preconditioners", "svd_preconditioners", "query_scores", "query_summaries"):
        shutil.rmtree(Path(project.lake.root, name), ignore_errors=True)
    return project.with_settings(compute={"engine": "ray"})


@pytest.mark.parametrize("curvature", ["tiny_project", "ekfac_project"])
def test_factors_bases_and_curvatures_are_the_same_bit_for_bit_and_scores_to_floating_point(
    curvature: str, request: pytest.FixtureRequest, engine: PickledEngine, tmp_path: Path
) -> None:
    one: TinyProject = request.getfixturevalue(curvature)
    with private_copy(one, tmp_path) as copied:
        distributed = emptied(copied)
        distributed.update()
        assert_same_tables(distributed.lake, one.lake)
        assert {*SHARDS} <= {*engine.done}
        assert not distributed.update()


@pytest.mark.parametrize(
    "recipe",
    [
        {"averaged_checkpoints": 2},
        {"averaged_checkpoints": 2, "checkpoint_weights": "equal"},
        {"added_data": "merged"},
        {"query_rank": 2},
        {"top_k": "all"},
    ],
    ids=str,
)
def test_every_way_to_score_gives_the_same_scores(
    recipe: dict[str, Any], engine: PickledEngine, tiny_project: TinyProject, tmp_path: Path
) -> None:
    key = f"{CHECKPOINTS[1]}|{QUERY_SET}"
    found = []
    for name in ("local", "ray"):
        (tmp_path / name).mkdir()
        with private_copy(tiny_project, tmp_path / name) as copied:
            project = copied.with_settings(recipe=recipe, compute={"engine": name})
            project.run("query_scores", key)
            tables = [
                project.table(schema, checkpoint=CHECKPOINTS[1]).sort(columns)
                for schema, columns in (
                    (QUERY_SCORES, ["query_id", "side", "rank"]),
                    (QUERY_SUMMARIES, ["query_id"]),
                )
            ]
            found.append(tables)
    assert any("the shards" in shard for shard in engine.done)
    for here, there in zip(*found, strict=True):
        assert here.columns == there.columns
        for column in here.columns:
            if here[column].dtype.is_float():
                np.testing.assert_allclose(there[column], here[column], rtol=1e-5, atol=1e-6, err_msg=column)
            else:
                assert here[column].equals(there[column]), column


def test_methods_of_the_evaluation_are_run_by_workers(
    engine: PickledEngine, tiny_project: TinyProject, tmp_path: Path
) -> None:
    key = f"{CHECKPOINTS[1]}|{QUERY_SET}"
    methods = ["lorif", "gradient_dot", "bm25", "random"]
    tables = []
    for name in ("local", "ray"):
        (tmp_path / name).mkdir()
        with private_copy(tiny_project, tmp_path / name) as copied:
            project = copied.with_settings(evaluation={"methods": methods}, compute={"engine": name})
            (scores,) = (asset for asset in EVALUATION if asset.name == "method_scores")
            graph = [*ASSETS, *EVALUATION]
            (update,) = bring_up_to_date(project.instance, graph, project.opened, selection=[scores])
            assert key in update.partitions
            tables.append(
                project.table(EVALUATED_SCORES, checkpoint=CHECKPOINTS[1]).sort("method", "query_id", "example_id")
            )
    here, there = tables
    assert set(here["method"]) == set(methods)
    assert here.drop("score").equals(there.drop("score"))
    np.testing.assert_allclose(there["score"], here["score"], rtol=1e-4, atol=1e-6)


def test_each_worker_loads_its_model_once_for_all_shards(
    engine: PickledEngine, private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = private_project.with_settings(recipe={"seed": 1}, compute={"engine": "ray"})
    project.run("checkpoints", CHECKPOINTS[0])
    project.run("gradient_factors", *KEYS)
    assert len(engine.opened) == engine.count
    assert sorted(engine.done) == sorted(SHARDS)


def test_a_shard_that_fails_on_a_worker_keeps_the_others(
    engine: PickledEngine, private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorif_assets.attribution.factors import build_factors

    compute = build_factors.factor_rows

    def fails_for_one(attributed: Any, examples: Any, *rest: Any) -> Any:
        if examples[0].example_id.startswith("doc1"):
            raise LorifError("no memory")
        return compute(attributed, examples, *rest)

    monkeypatch.setattr(build_factors, "factor_rows", fails_for_one)
    project = private_project.with_settings(recipe={"seed": 1}, compute={"engine": "ray"})
    project.run("checkpoints", CHECKPOINTS[0])
    with pytest.raises(LorifError, match=f"1 of 3 shards failed, the first {CHECKPOINTS[0]}.{SHARDS[1]}: no memory"):
        project.run("gradient_factors", *KEYS)
    seed_1 = project.settings.recipe.factor_hash
    stored = project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINTS[0], recipe_hash=seed_1)
    assert set(stored["shard"]) == {SHARDS[0], SHARDS[2]}


def test_by_default_this_process_computes(tiny_project: TinyProject) -> None:
    assert isinstance(tiny_project.opened.engine, LocalEngine)
