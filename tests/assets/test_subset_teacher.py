"""Influcoder's teacher `subset_losses`: targets from the losses of models that were retrained on subsets."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import rankdata

from lorif_assets.assets.graph import ASSETS, EVALUATION
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.config.settings import Settings
from lorif_assets.errors import LorifError
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.influcoder_tables import INFLUENCE_TARGETS
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

CHECKPOINT = CHECKPOINTS[-1]
OTHER_SET = "more"
SUBSETS = 12
SECTION: dict[str, Any] = {
    "enabled": True,
    "teacher": "subset_losses",
    "anchors": 6,
    "pool": 8,
    "held_out_anchors": 4,
    "held_out_pool": 4,
}


@pytest.fixture
def project(private_project: TinyProject) -> TinyProject:
    texts = [f"question {n} asks what {n} times {n + 1} is, and of {n * 7} colours" for n in range(30)]
    rows = [json.dumps({"id": f"m{n}", "text": text}) for n, text in enumerate(texts)]
    (private_project.root / "queries" / f"{OTHER_SET}.jsonl").write_text("\n".join(rows))
    project = private_project.with_settings(
        influcoder=SECTION, active={"checkpoints": [CHECKPOINT]}, evaluation={"ground_truth": "truth", "bootstrap": 100}
    )
    (project.root / "truth").mkdir()
    return project


def write_truth(project: TinyProject, n_subsets: int) -> tuple[pl.DataFrame, dict[tuple[str, str], np.ndarray]]:
    """Write losses of random subsets; return members and, for each query, its loss by subset."""
    rng = np.random.default_rng(3)
    ids = sorted(project.table(TRAINING_EXAMPLES)["example_id"])
    has = rng.random((SUBSETS, len(ids))) < 0.5
    queries = [*((QUERY_SET, f"q{n}") for n in range(3)), *((OTHER_SET, f"m{n}") for n in range(30))]
    losses = {query: 9.0 - has @ rng.normal(size=len(ids)) for query in queries}
    members = [(f"s{s}", name) for s in range(n_subsets) for name, there in zip(ids, has[s], strict=True) if there]
    rows = [(f"s{s}", 0, *query, float(losses[query][s])) for s in range(n_subsets) for query in queries]
    folder = project.root / "truth"
    frame = pl.DataFrame(members, schema=["subset", "example_id"], orient="row")
    frame.write_parquet(folder / "members.parquet")
    columns = ["subset", "seed", "query_set", "query_id", "loss"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(folder / "losses.parquet")
    return frame, losses


def retrain(project: TinyProject) -> None:
    project.register_partitions()
    chosen = [asset for asset in EVALUATION if asset.name == "subset_losses"]
    list(bring_up_to_date(project.instance, [*ASSETS, *EVALUATION], project.opened, selection=chosen))


def test_targets_are_ranks_of_the_effects_on_the_loss_of_queries_alone(project: TinyProject) -> None:
    write_truth(project, 3)
    project.register_partitions()
    project.run("query_examples", OTHER_SET)
    assert not project.stale("influence_targets")
    with pytest.raises(LorifError, match="no query set has the losses of three of them; run `lorif evaluate`"):
        project.run("influence_targets", CHECKPOINT)
    members, losses = write_truth(project, SUBSETS)
    retrain(project)
    assert set(project.stale("influence_targets")) == {CHECKPOINT}
    project.run("influence_targets", CHECKPOINT)
    assert not project.stale("influence_targets")
    rows = project.table(INFLUENCE_TARGETS, checkpoint=CHECKPOINT).sort("position")
    anchors, pool = (rows.filter(pl.col("role") == role) for role in ("anchor", "pool"))
    assert set(anchors["source"]) <= {QUERY_SET, OTHER_SET}
    assert set(rows["teacher"]) == {"subset_losses"}
    there = set(members.iter_rows())
    has = np.array([[(f"s{s}", name) in there for name in pool["example_id"]] for s in range(SUBSETS)])
    for anchor in anchors.iter_rows(named=True):
        loss = losses[anchor["source"], anchor["example_id"]].astype(np.float32)
        effects = [loss[~column].mean() - loss[column].mean() for column in has.T]
        assert anchor["targets"] == pytest.approx((rankdata(effects) - 1) / (len(effects) - 1), abs=1e-6)


def test_more_retrained_models_ask_for_other_targets(project: TinyProject) -> None:
    write_truth(project, SUBSETS - 2)
    project.register_partitions()
    project.run("query_examples", OTHER_SET)
    retrain(project)
    project.run("influence_targets", CHECKPOINT)
    before = project.table(INFLUENCE_TARGETS, checkpoint=CHECKPOINT)
    write_truth(project, SUBSETS)
    # Losses that are out of date teach nothing; until they are read again, the targets stay.
    assert not project.stale("influence_targets")
    retrain(project)
    assert project.stale("influence_targets")[CHECKPOINT].reason == "models were retrained"
    project.run("influence_targets", CHECKPOINT)
    after = project.table(INFLUENCE_TARGETS, checkpoint=CHECKPOINT)
    assert not project.stale("influence_targets")
    assert set(before["losses_from"]) != set(after["losses_from"])
    assert set(before["computed_from"]) != set(after["computed_from"])


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"evaluation": {"ground_truth": None}}, "learns from retrained models: set `evaluation.trainer`"),
        ({"influcoder": {**SECTION, "anchor_texts": "examples"}}, 'set `influcoder.anchor_texts` to "queries"'),
    ],
)
def test_what_it_cannot_learn_from_is_refused(sections: dict[str, Any], words: str) -> None:
    given = {"influcoder": SECTION, "evaluation": {"ground_truth": "truth"}} | sections
    with pytest.raises(ValueError, match=words):
        Settings(**given)
