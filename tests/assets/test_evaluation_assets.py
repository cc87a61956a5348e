import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import spearmanr

from lorif_assets.assets.graph import ASSETS, EVALUATION
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.config.methods import MethodName, default_methods
from lorif_assets.errors import LorifError
from lorif_assets.evaluation.methods.evaluated_scores import method_versions, read_evaluated_scores
from lorif_assets.evaluation.retraining.ranked_data import (
    planned_removals,
    planned_selections,
    ranked_data_versions,
    set_proponents,
)
from lorif_assets.lake.attribution_tables import EXACT_SCORES, QUERY_SCORES
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.evaluation_tables import (
    EVALUATED_SCORES,
    EVALUATION_FIGURES,
    EVALUATION_REPORTS,
    METHOD_COSTS,
    REMOVAL_LOSSES,
    SELECTION_LOSSES,
    SUBSET_LOSSES,
    SUBSETS,
)
from lorif_assets.mathematics.evaluation.subsets import subset_members
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import CHECKPOINTS
from tests.toy_recipe import CALLS

QUERY_SET = "questions"
NEWEST = "step-000200"
SUBSETS_WANTED, SEEDS = 4, 2
METHODS = {str(method) for method in default_methods() if method is not MethodName.INFLUCODER}
EVALUATED = {
    "trainer": "tests.toy_recipe:retrain",
    "subsets": SUBSETS_WANTED,
    "seeds": SEEDS,
    "bootstrap": 100,
    "tail_patch_k": 2,
    "topic_fields": ("topics", "topic"),
}


@pytest.fixture
def project(private_project):
    return private_project.with_settings(evaluation=EVALUATED)


def evaluate(project, *names):
    """Bring the evaluation up to date, or the named assets of it; which partitions of which assets that took."""
    project.register_partitions()
    chosen = [asset for asset in EVALUATION if not names or asset.name in names]
    updates = bring_up_to_date(project.instance, [*ASSETS, *EVALUATION], project.opened, selection=chosen)
    return {update.asset: set(update.partitions) for update in updates if update.partitions}


def models_trained(project):
    file = project.root / CALLS
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_every_subset_is_trained_with_every_seed_and_its_losses_are_stored(project):
    assert evaluate(project, "subset_losses") == {"subset_losses": {f"subset-{n:04d}" for n in range(SUBSETS_WANTED)}}
    assert models_trained(project) == SUBSETS_WANTED * SEEDS
    losses = project.table(SUBSET_LOSSES)
    assert losses.group_by("subset", "seed").len()["len"].to_list() == [3] * (SUBSETS_WANTED * SEEDS)
    assert losses["loss"].is_finite().all()
    ids = project.table(TRAINING_EXAMPLES).sort("shard", "row")["example_id"].to_list()
    members = dict(project.table(SUBSETS).select("subset", "example_ids").iter_rows())
    assert members["subset-0002"] == subset_members(ids, 0.5, 0, 2)


def test_a_killed_retraining_goes_on_with_the_first_model_that_is_missing(project):
    (project.root / "fail").write_text("3")
    with pytest.raises(LorifError, match="the machine is on fire"):
        evaluate(project, "subset_losses")
    assert models_trained(project) == 3
    (project.root / "fail").unlink()
    assert evaluate(project, "subset_losses") == {"subset_losses": {"subset-0001", "subset-0002", "subset-0003"}}
    assert models_trained(project) == SUBSETS_WANTED * SEEDS


def test_more_subsets_and_seeds_add_to_what_is_there(project):
    evaluate(project, "subset_losses")
    more = project.with_settings(evaluation={"subsets": SUBSETS_WANTED + 1})
    assert evaluate(more, "subset_losses") == {"subset_losses": {"subset-0004"}}
    evaluate(more.with_settings(evaluation={"seeds": SEEDS + 1}), "subset_losses")
    assert models_trained(project) == (SUBSETS_WANTED + 1) * (SEEDS + 1)


def test_nothing_is_retrained_twice_for_the_same_data(project):
    evaluate(project, "subset_losses")
    assert evaluate(project, "subset_losses") == {}


def test_another_training_recipe_or_other_data_make_all_models_stale(project):
    evaluate(project, "subset_losses")
    other = project.with_settings(evaluation={"trainer_version": "2"})
    assert len(evaluate(other, "subset_losses")["subset_losses"]) == SUBSETS_WANTED
    project.edit_shard(0, 0, "a file closes by an error")
    project.update()
    assert len(evaluate(other, "subset_losses")["subset_losses"]) == SUBSETS_WANTED


def test_kept_models_answer_a_new_query_set_without_retraining(project):
    kept = project.with_settings(evaluation={"keep_models": True})
    evaluate(kept, "subset_losses")
    file = project.root / "queries/more.jsonl"
    file.write_text(json.dumps({"id": "m", "prompt": "a file", "completion": " ends"}))
    kept.register_partitions()
    kept.run("query_examples", "more")
    assert len(evaluate(kept, "subset_losses")["subset_losses"]) == SUBSETS_WANTED
    assert set(project.table(SUBSET_LOSSES)["query_set"]) == {QUERY_SET, "more"}
    assert models_trained(project) == SUBSETS_WANTED * SEEDS


def test_models_that_are_not_kept_leave_no_files(project):
    evaluate(project, "subset_losses")
    assert not list((project.root / "retrained").rglob("*.safetensors"))


def test_without_a_training_recipe_there_are_no_subsets(private_project):
    assert evaluate(private_project, "subset_losses", "linear_datamodeling_score") == {}


@pytest.fixture(scope="module")
def evaluated(tiny_project, tmp_path_factory):
    """The whole evaluation once, on a copy; read only."""
    import shutil

    import dagster as dg

    root = tmp_path_factory.mktemp("evaluated") / "project"
    shutil.copytree(tiny_project.root, root, ignore=shutil.ignore_patterns("dagster"))
    with dg.DagsterInstance.ephemeral() as instance:
        project = type(tiny_project).open(root, instance)
        rows = [json.loads(line) for line in (root / f"queries/{QUERY_SET}.jsonl").read_text().splitlines()]
        rows[0]["sources"] = ["doc0-1", "doc1-3"]
        rows[1]["topics"] = ["files"]
        (root / f"queries/{QUERY_SET}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        project = project.with_settings(
            evaluation={
                **EVALUATED,
                "removal_query_sets": (QUERY_SET,),
                "removal_shares": (0.05, 0.2),
                "selection_query_sets": (QUERY_SET,),
                "selection_shares": (0.25,),
                "selection_seeds": 1,
            }
        )
        project.update()
        yield SimpleNamespace(project=project, took=evaluate(project), root=root)


def figures(evaluated, metric, statistic="mean"):
    rows = evaluated.project.table(EVALUATION_FIGURES, metric=metric, statistic=statistic)
    return {row["method"]: row for row in rows.to_dicts()}


def matrices(evaluated):
    project = evaluated.project
    record = checkpoint_record(project.lake, NEWEST, project.settings.recipe)
    versions = method_versions(project.opened, record, QUERY_SET)
    return read_evaluated_scores(project.lake, NEWEST, QUERY_SET, versions)


def test_the_newest_checkpoint_is_evaluated_by_every_asset(evaluated):
    assert evaluated.took.keys() == {asset.name for asset in EVALUATION}
    assert evaluated.took["linear_datamodeling_score"] == {f"{NEWEST}|{QUERY_SET}"}
    assert evaluate(evaluated.project) == {}


def test_every_method_scores_every_pair(evaluated):
    counts = evaluated.project.table(EVALUATED_SCORES).group_by("method").len()
    assert dict(counts.iter_rows()) == dict.fromkeys(METHODS, 3 * 36)
    assert evaluated.project.table(METHOD_COSTS)["bytes_per_example"].is_finite().all()


def test_what_is_kept_once_for_all_examples_is_counted_apart_from_what_is_kept_of_each(evaluated):
    shared = dict(evaluated.project.table(METHOD_COSTS).select("method", "shared_bytes").iter_rows())
    record = checkpoint_record(evaluated.project.lake, NEWEST, evaluated.project.settings.recipe)
    widths = [d1 * d2 for d1, d2 in record.layer_shapes.values()]
    assert shared["dense_logra"] == sum(4 * width * width for width in widths)
    assert (
        shared["lorif"]
        == curvature_of(evaluated.project.settings.recipe).cost(list(record.layer_shapes.values())).stored_bytes
    )
    assert shared["bm25"] == shared["random"] == 0


def test_lorifs_scores_are_those_that_query_scores_lists(evaluated):
    listed = evaluated.project.table(QUERY_SCORES, checkpoint=NEWEST, query_set=QUERY_SET)
    scores = evaluated.project.table(EVALUATED_SCORES, method="lorif")
    both = listed.join(scores, on=["query_id", "example_id"], suffix="_evaluated")
    assert both.height == listed.height
    assert np.allclose(both["score"], both["score_evaluated"], rtol=1e-4)


def test_gradient_methods_agree_with_gradients_taken_one_by_one(evaluated):
    """Dot products and cosines against a plain computation with the model's own projected gradients."""
    from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
    from lorif_assets.evaluation.methods.inputs import MethodInputs

    project, scored = evaluated.project, matrices(evaluated)
    models = project.opened.checkpoints
    stored = StoredCheckpoint.read(project.lake, NEWEST, project.settings.recipe)
    attributed = stored.load(models, DeviceGroup.of("cpu")).model
    inputs = MethodInputs.load(project.opened, attributed, [QUERY_SET])

    def flat(examples):
        found = {}
        for example in examples:
            ((_, batch),) = attributed.gradients([example], 10_000)
            found[example.example_id] = torch.cat([g.flatten() for g in batch.gradients.values()])
        return found

    queries, examples = flat(inputs.queries.tokenized), flat(inputs.examples.tokenized[:7])
    for query_id, q in queries.items():
        for example_id, g in examples.items():
            at = scored.query_ids.index(query_id), scored.example_ids.index(example_id)
            assert scored.by_method["gradient_dot"][at] == pytest.approx(float(q @ g), rel=1e-3, abs=1e-5)
            cosine = float(torch.nn.functional.cosine_similarity(q, g, dim=0))
            assert scored.by_method["gradient_cosine"][at] == pytest.approx(cosine, rel=1e-3, abs=1e-5)


def test_the_datamodeling_score_is_the_mean_correlation_over_subsets(evaluated):
    project, scored = evaluated.project, matrices(evaluated)
    members = dict(project.table(SUBSETS).select("subset", "example_ids").iter_rows())
    losses = project.table(SUBSET_LOSSES).group_by("subset", "query_id").agg(pl.col("loss").mean())
    actual = {(row["subset"], row["query_id"]): row["loss"] for row in losses.to_dicts()}
    for method in ("lorif", "bm25"):
        correlations = []
        for row, query_id in enumerate(scored.query_ids):
            sums = [
                sum(scored.by_method[method][row, scored.example_ids.index(name)] for name in names)
                for names in members.values()
            ]
            correlations.append(spearmanr(sums, [-actual[subset, query_id] for subset in members]).statistic)
        assert figures(evaluated, "lds")[method]["value"] == pytest.approx(np.mean(correlations), abs=1e-6)


def test_differences_are_paired_with_lorif_and_intervals_hold_their_means(evaluated):
    means, differences = figures(evaluated, "lds"), figures(evaluated, "lds", "difference")
    assert differences.keys() == means.keys() - {"lorif"}
    for method, row in differences.items():
        assert row["value"] == pytest.approx(means["lorif"]["value"] - means[method]["value"])
        assert row["low"] <= row["high"]
    (models,) = evaluated.project.table(EVALUATION_FIGURES, metric="models")["value"]
    assert models == SUBSETS_WANTED * SEEDS


def test_known_sources_are_those_named_or_else_those_of_the_topic(evaluated):
    queries = evaluated.project.table(EVALUATION_FIGURES, metric="roc_auc", statistic="query", method="bm25")
    assert set(queries["query_id"]) == {"q0", "q1"}
    scored = matrices(evaluated)
    wanted = {scored.example_ids.index(name) for name in ("doc0-1", "doc1-3")}
    scores = scored.by_method["bm25"][scored.query_ids.index("q0")]
    others = [s for at, s in enumerate(scores) if at not in wanted]
    pairs = [(scores[at] > other) + 0.5 * (scores[at] == other) for at in wanted for other in others]
    (value,) = queries.filter(pl.col("query_id") == "q0")["value"]
    assert value == pytest.approx(np.mean(pairs))


def test_tail_patch_says_what_a_step_on_what_was_retrieved_did(evaluated):
    rows = figures(evaluated, "tail_patch")
    assert rows.keys() == METHODS
    assert rows["dense_logra"]["value"] > rows["random"]["value"]


def test_removals_retrain_without_what_each_method_puts_first(evaluated):
    project = evaluated.project
    rows = project.table(REMOVAL_LOSSES)
    removals = planned_removals(project.settings.evaluation, 36)
    assert set(rows["removal"]) == {removal.name for removal in removals}
    assert len(removals) == 1 + 2 * 3
    assert set(rows.filter(pl.col("method") == "lorif")["n_removed"]) == {2, 7}
    sizes = [int(line.split()[0]) for line in (evaluated.root / CALLS).read_text().splitlines()]
    assert sizes[-len(removals) - 3 :] == [36, 34, 34, 34, 29, 29, 29, *[9] * 3]


def test_a_querys_loss_difference_is_its_rise_without_the_smallest_share(evaluated):
    losses = evaluated.project.table(REMOVAL_LOSSES)
    rows = evaluated.project.table(EVALUATION_FIGURES, metric="query_loss_difference", statistic="query")
    per_token = evaluated.project.table(EVALUATION_FIGURES, metric="query_loss_difference_per_token", statistic="query")
    assert set(rows["method"]) == {"lorif", "bm25", "random"}
    for method, query_id, value in rows.select("method", "query_id", "value").iter_rows():
        of_query = losses.filter(pl.col("query_id") == query_id)
        (without,) = of_query.filter(pl.col("method") == method, pl.col("n_removed") == 2)["loss"]
        (whole,) = of_query.filter(pl.col("method") == "none")["loss"]
        assert value == pytest.approx(without - whole, abs=1e-6)
        (by_token,) = per_token.filter(pl.col("method") == method, pl.col("query_id") == query_id)["value"]
        assert by_token == pytest.approx(value / of_query["n_target_tokens"][0])
    (share,) = evaluated.project.table(EVALUATION_FIGURES, metric="removed_share")["value"]
    assert share == 0.05
    assert figures(evaluated, "sorted_lds") == {}


def test_runs_of_consecutive_ranks_are_left_out_one_by_one_where_that_is_asked_for(project):
    removals = {"removal_query_sets": (QUERY_SET,), "removal_shares": (0.2,), "sorted_subsets": 3}
    asked = project.with_settings(evaluation={**removals, "methods": ("lorif", "bm25", "random")})
    partition = {f"{NEWEST}|{QUERY_SET}"}
    assert evaluate(asked, "method_scores", "removal_losses")["removal_losses"] == partition
    # Everything, and by each of three methods the first 7 and three runs of 12.
    assert models_trained(asked) == 1 + 3 * (1 + 3)
    rows = asked.table(REMOVAL_LOSSES, method="bm25")
    assert set(rows.select("first_removed", "n_removed").iter_rows()) == {(0, 7), (0, 12), (12, 12), (24, 12)}
    record = checkpoint_record(asked.lake, NEWEST, asked.settings.recipe)
    scored = read_evaluated_scores(asked.lake, NEWEST, QUERY_SET, method_versions(asked.opened, record, QUERY_SET))
    found = asked.table(EVALUATION_FIGURES, metric="sorted_lds", statistic="query", method="bm25")
    order = set_proponents(scored.by_method["bm25"])
    for query_id, value in found.select("query_id", "value").iter_rows():
        scores = scored.by_method["bm25"][scored.query_ids.index(query_id)]
        of_query = rows.filter(pl.col("query_id") == query_id, pl.col("n_removed") == 12).sort("first_removed")
        left = [scores.sum() - scores[order[first : first + 12]].sum() for first in (0, 12, 24)]
        assert value == pytest.approx(spearmanr(left, -of_query["loss"].to_numpy()).statistic, abs=1e-6)
    # Figures that are missing are computed again from the losses: nothing is retrained for them.
    asked.lake.remove(EVALUATION_FIGURES, evaluation=["removal_losses"])
    assert evaluate(asked, "removal_losses") == {"removal_losses": partition}
    assert models_trained(asked) == 1 + 3 * (1 + 3)
    assert evaluate(asked, "removal_losses") == {}


def test_another_recipe_of_scores_leaves_the_model_that_nothing_was_removed_from(evaluated):
    project = evaluated.project
    removals = planned_removals(project.settings.evaluation, 36)

    def versions(project):
        record = checkpoint_record(project.lake, NEWEST, project.settings.recipe)
        methods = method_versions(project.opened, record, QUERY_SET)
        return ranked_data_versions(project.settings, project.lake, QUERY_SET, removals, methods)

    before, after = versions(project), versions(project.with_settings(recipe={"damping": 0.5}))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {removal.name for removal in removals if removal.method == "lorif"}


def test_selections_train_on_what_each_method_puts_first_alone_and_are_told_on_the_page(project):
    chosen = project.with_settings(
        evaluation={"selection_query_sets": (QUERY_SET,), "selection_shares": (0.25,), "selection_seeds": 2}
    )
    done = evaluate(chosen, "method_scores", "selection_losses", "evaluation_report")
    assert done["selection_losses"] == {f"{NEWEST}|{QUERY_SET}"}
    rows = project.table(SELECTION_LOSSES)
    planned = planned_selections(chosen.settings.evaluation, 36)
    assert set(rows["selection"]) == {one.name for one in planned}
    assert [line.split() for line in (project.root / CALLS).read_text().splitlines()] == [
        ["9", str(seed)] for seed in (0, 1) for _ in ("lorif", "bm25", "random")
    ]
    assert rows.group_by("selection").len()["len"].to_list() == [3] * 6
    (where,) = project.table(EVALUATION_REPORTS)["uri"]
    assert 'id="selection"' in Path(where).read_text()
    assert evaluate(chosen, "selection_losses", "evaluation_report") == {}


def test_the_stored_exact_re_ranking_is_a_method_with_tail_patch_and_removal(project):
    ranked = project.with_settings(
        exact_scores={"enabled": True, "first": 4, "examples": 20},
        evaluation={
            "methods": ("lorif", "exact", "random"),
            "removal_query_sets": (QUERY_SET,),
            "removal_methods": ("exact",),
            "removal_shares": (0.1,),
        },
    )
    with pytest.raises(LorifError, match=r"no exact scores of 'questions' .*materialize `exact_scores` first"):
        evaluate(ranked, "method_scores")
    ranked.register_partitions()
    ranked.run("exact_scores", f"{NEWEST}|{QUERY_SET}")
    assert evaluate(ranked, "method_scores", "tail_patch", "removal_losses").keys() == {
        "method_scores",
        "tail_patch",
        "removal_losses",
    }
    stored = project.table(EXACT_SCORES, checkpoint=NEWEST, side="highest").filter(pl.col("rank") <= 4)
    scores = project.table(EVALUATED_SCORES, method="exact")
    for (query,), of_query in scores.group_by("query_id"):
        leading = of_query.sort("score", descending=True)["example_id"].to_list()[:4]
        assert leading == stored.filter(query_id=query).sort("rank")["example_id"].to_list()
    assert set(project.table(EVALUATION_FIGURES, metric="tail_patch", statistic="mean")["method"]) == {
        "lorif",
        "exact",
        "random",
    }
    assert set(project.table(REMOVAL_LOSSES)["method"]) == {"none", "exact"}


def test_the_exact_re_ranking_without_exact_scores_says_what_to_set(project):
    with pytest.raises(LorifError, match=r"set `exact_scores.enabled`, or take it out of `evaluation.methods`"):
        evaluate(project.with_settings(evaluation={"methods": ("lorif", "exact")}), "method_scores")


def test_a_method_that_chooses_data_and_is_not_evaluated_is_named(project):
    chosen = project.with_settings(
        evaluation={"selection_query_sets": (QUERY_SET,), "selection_methods": ("hybrid",), "methods": ("lorif",)}
    )
    with pytest.raises(LorifError, match=r"'hybrid' of `evaluation.selection_methods` has no scores: name it in"):
        evaluate(chosen, "method_scores", "selection_losses")


def test_ground_truth_from_elsewhere_takes_the_place_of_retraining(private_project):
    project = private_project.with_settings(evaluation={"bootstrap": 100, "ground_truth": "truth"})
    folder = project.root / "truth"
    folder.mkdir()
    ids = project.table(TRAINING_EXAMPLES)["example_id"].to_list()
    names = ["a", "b", "c", "d"]
    pl.DataFrame(
        [(name, other) for at, name in enumerate(names) for other in subset_members(ids, 0.5, 9, at)],
        schema=["subset", "example_id"],
        orient="row",
    ).write_parquet(folder / "members.parquet")
    pl.DataFrame(
        [(name, 0, QUERY_SET, f"q{q}", float(at * (q + 1))) for at, name in enumerate(names) for q in range(3)],
        schema=["subset", "seed", "query_set", "query_id", "loss"],
        orient="row",
    ).write_parquet(folder / "losses.parquet")
    took = evaluate(project, "subset_losses", "method_scores", "linear_datamodeling_score")
    assert took["subset_losses"] == set(names)
    assert models_trained(project) == 0
    assert not project.table(EVALUATION_FIGURES, metric="lds", statistic="mean").is_empty()
    (folder / "losses.parquet").unlink()
    with pytest.raises(LorifError, match=r"losses.parquet cannot be read"):
        evaluate(project, "subset_losses")


def test_a_query_that_was_never_retrained_for_is_named(project):
    evaluate(project, "method_scores")
    with pytest.raises(LorifError, match="0 retrained subsets, of 4 that the settings ask for; at least 3 are needed"):
        evaluate(project, "linear_datamodeling_score")


def test_known_sources_are_looked_for_at_every_active_checkpoint_where_that_is_set(project):
    everywhere = project.with_settings(evaluation={"checkpoints": "active"})
    both = {f"{name}|{QUERY_SET}" for name in CHECKPOINTS}
    done = evaluate(everywhere, "method_scores", "tail_patch", "evaluation_report")
    # What corresponds to retraining is measured at the newest all the same.
    assert done == {"method_scores": both, "tail_patch": {f"{NEWEST}|{QUERY_SET}"}, "evaluation_report": both}
    assert evaluate(everywhere, "method_scores", "evaluation_report") == {}
    assert evaluate(project, "method_scores", "evaluation_report") == {}
