"""query_scores: proponents and opponents of every query, and what is refused before a score is written."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from lorif_assets.assets.query_scores import _figures
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.scores.score_modes import ReadQuerySet
from lorif_assets.attribution.scores.score_queries import QueryScores, score_queries
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.rows.rejected import rejected_table
from lorif_assets.data.tokens.tokenization import Objective, Term, TokenizedExample, TokenizedShard
from lorif_assets.errors import LorifError, MismatchError, SourceError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES, SVD_PRECONDITIONERS
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, REJECTED
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

CHECKPOINT = CHECKPOINTS[0]
KEY = f"{CHECKPOINT}|{QUERY_SET}"
PARTITION = {"checkpoint": CHECKPOINT, "query_set": QUERY_SET}


def scores(project: TinyProject) -> pl.DataFrame:
    return project.table(QUERY_SCORES, **PARTITION).sort("query_id", "side", "rank")


def summaries(project: TinyProject) -> pl.DataFrame:
    return project.table(QUERY_SUMMARIES, **PARTITION).sort("query_id")


@pytest.fixture(scope="module")
def every_score(tiny_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The score of every pair, written by the asset into a lake of its own."""
    import shutil

    import dagster as dg

    root = tmp_path_factory.mktemp("every-score") / "project"
    shutil.copytree(tiny_project.root, root)
    with dg.DagsterInstance.ephemeral() as instance:
        project = TinyProject.open(root, instance).with_settings(recipe={"top_k": "all"})
        project.run("query_scores", KEY)
        return project.table(QUERY_SCORES, **PARTITION).sort("query_id", "rank")


# --- What is stored --------------------------------------------------------------------------------------------------


def test_each_query_has_its_top_k_on_both_sides_most_extreme_first(tiny_project: TinyProject) -> None:
    for query in ("q0", "q1", "q2"):
        for side, sign in (("highest", -1), ("lowest", 1)):
            rows = scores(tiny_project).filter(pl.col("query_id") == query, pl.col("side") == side)
            assert rows["rank"].to_list() == [1, 2, 3, 4, 5]
            assert rows["score"].to_list() == sorted(rows["score"].to_list(), key=lambda score: sign * score)
            assert rows["example_id"].n_unique() == 5
    assert scores(tiny_project).height == 3 * 2 * 5


def test_all_writes_the_score_of_every_pair_in_one_ranking(every_score: pl.DataFrame) -> None:
    assert every_score.height == 3 * 36
    assert every_score["side"].unique().to_list() == ["all"]
    for query in ("q0", "q1", "q2"):
        rows = every_score.filter(pl.col("query_id") == query)
        assert rows["rank"].to_list() == list(range(1, 37))
        assert rows["score"].is_sorted(descending=True)
        assert rows.select("shard", "example_id").n_unique() == 36


def test_the_extremes_of_every_pair_are_the_top_k(tiny_project: TinyProject, every_score: pl.DataFrame) -> None:
    columns = ["query_id", "example_id", "shard", "score"]
    highest = every_score.filter(pl.col("rank") <= 5)
    lowest = every_score.filter(pl.col("rank") > 31).sort("query_id", "rank", descending=[False, True])
    for side, expected in (("highest", highest), ("lowest", lowest)):
        found = scores(tiny_project).filter(pl.col("side") == side)
        assert found.select(columns).equals(expected.select(columns))


def test_shards_of_the_scored_examples_are_their_own(every_score: pl.DataFrame) -> None:
    number = every_score["example_id"].str.extract(r"doc(\d)").cast(int)
    assert every_score["shard"].to_list() == [SHARDS[n] for n in number]


def test_summaries_tell_spread_and_concentration_over_all_examples(
    tiny_project: TinyProject, every_score: pl.DataFrame
) -> None:
    for row in summaries(tiny_project).iter_rows(named=True):
        of_query = every_score.filter(pl.col("query_id") == row["query_id"])["score"].to_numpy().astype(np.float64)
        positive = of_query.clip(min=0)
        assert row["n_examples"] == 36
        assert row["score_mean"] == pytest.approx(of_query.mean())
        assert row["score_std"] == pytest.approx(of_query.std())
        assert row["score_abs_sum"] == pytest.approx(np.abs(of_query).sum())
        assert row["positive_sum"] == pytest.approx(positive.sum())
        assert row["top_10_share"] == pytest.approx(positive[:10].sum() / positive.sum())
        assert row["top_100_share"] == pytest.approx(1.0)


def test_query_losses_are_summed_over_the_completion_alone(tiny_project: TinyProject) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_project.root / "checkpoints" / CHECKPOINT
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    queries = tiny_project.table(QUERY_EXAMPLES).sort("row")
    for row, stored in zip(queries.iter_rows(named=True), summaries(tiny_project).iter_rows(named=True), strict=True):
        prompt, completion = tokenizer(row["prompt"])["input_ids"], tokenizer(row["completion"])["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(completion), reduction="sum")
        assert stored["loss"] == pytest.approx(float(expected), rel=1e-4)
        assert stored["n_target_tokens"] == len(completion)


def test_the_metadata_show_the_top_influences(tiny_project: TinyProject) -> None:
    figures = tiny_project.figures("query_scores", KEY)
    best = scores(tiny_project).filter(pl.col("side") == "highest", pl.col("rank") == 1)
    for row in best.iter_rows(named=True):
        assert f"| `{row['query_id']}` | 1 | `{row['example_id']}` | {row['score']:.4g} |" in figures["top_influences"]
    assert (figures["dagster/row_count"], figures["examples_scanned"], figures["queries"]) == (30, 36, 3)
    assert figures["loss_per_token"] > 0


def test_the_loss_of_a_query_set_is_that_of_the_queries_that_ask_about_one() -> None:
    ids = np.array([0, 1], np.int32)
    plain = TokenizedExample("plain", 0, ids, ids)
    contrast = TokenizedExample("contrast", 1, ids, ids, objective=Objective("against", (Term(1.0, plain),)))
    values = pl.DataFrame({"query_id": ["plain", "contrast"], "loss": [6.0, -90.0], "n_target_tokens": [3, 7]})
    shares = {"top_10_share": 0.5, "top_100_share": 1.0}
    scored = QueryScores(pl.DataFrame(), values.with_columns(**{k: pl.lit(v) for k, v in shares.items()}), "", 2, 0.0)

    def figures(scored: QueryScores, *queries: TokenizedExample) -> dict[str, float]:
        return _figures(scored, ReadQuerySet(pl.DataFrame(), TokenizedShard(queries, rejected_table([]))))

    assert figures(scored, plain, contrast) == {
        "queries": 2,
        "tokens": 3,
        "loss_per_token": 2.0,
        "query_error": 0.0,
        **shares,
    }
    alone = replace(scored, summaries=scored.summaries.tail(1))
    assert figures(alone, contrast) == {"queries": 1, "query_error": 0.0, **shares}


@pytest.mark.parametrize(("tokens", "rows"), [(1, 1), (64, 5), (100_000, 100_000)])
def test_batches_and_blocks_change_no_score(private_project: TinyProject, tokens: int, rows: int) -> None:
    before = scores(private_project)
    private_project.with_settings(batch={"tokens": tokens, "scan_rows": rows}).run("query_scores", KEY)
    after = scores(private_project)
    numbers = ["score", "relative_score"]
    assert after.drop(numbers).equals(before.drop(numbers))
    for name in numbers:
        assert np.allclose(after[name], before[name], rtol=1e-4)


@pytest.mark.parametrize(("rank", "error"), [(8, 1e-3), (2, 0.6)])
def test_queries_at_a_rank_say_what_they_lose_and_at_full_rank_lose_nothing(
    private_project: TinyProject, rank: int, error: float
) -> None:
    before = scores(private_project)
    project = private_project.with_settings(recipe={"query_rank": rank}, batch={"gradient_mib": 1})
    project.run("query_scores", KEY)
    lost = project.figures("query_scores", KEY)["query_error"]
    assert lost < error
    if rank == 8:
        columns = ["query_id", "side", "rank", "example_id"]
        assert scores(project).select(columns).equals(before.select(columns))
        assert np.allclose(scores(project)["score"], before["score"], rtol=1e-3)
    else:
        assert lost > 0.01


def test_more_than_there_are_gives_all_there_are(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"top_k": 500})
    project.run("query_scores", KEY)
    assert scores(project).group_by("query_id", "side").len()["len"].to_list() == [36] * 6


# --- Queries that cannot be used -------------------------------------------------------------------------------------


def test_a_query_without_a_token_to_score_is_set_aside_and_the_others_are_scored(private_project: TinyProject) -> None:
    with (private_project.root / f"queries/{QUERY_SET}.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"id": "q3", "prompt": "", "completion": "x"}))
    private_project.run("query_examples", QUERY_SET)
    before = scores(private_project)
    with pytest.raises(SourceError, match=f"query set '{QUERY_SET}': 1 of 4 rows are set aside.*no target token"):
        private_project.run("query_scores", KEY)
    assert scores(private_project).equals(before)
    project = private_project.with_settings(data={"max_rejected_share": 0.25})
    project.run("query_scores", KEY)
    (rejected,) = project.table(REJECTED, stage="query_scores").to_dicts()
    assert (rejected["part"], rejected["example_id"]) == (KEY, "q3")
    assert "no target token" in rejected["reason"]
    figures = project.figures("query_scores", KEY)
    assert (figures["rejected_rows"], figures["rejected_reasons"]) == (1, {rejected["reason"]: 1})
    assert summaries(project)["query_id"].to_list() == ["q0", "q1", "q2"]


def test_a_query_set_without_any_usable_query_is_refused_and_its_scores_stay(private_project: TinyProject) -> None:
    before = scores(private_project)
    query = json.dumps({"id": "q", "prompt": "", "completion": "x"})
    (private_project.root / f"queries/{QUERY_SET}.jsonl").write_text(query)
    private_project.run("query_examples", QUERY_SET)
    with pytest.raises(SourceError, match=f"no query of the set '{QUERY_SET}' can be used; the first: no target token"):
        private_project.run("query_scores", KEY)
    assert scores(private_project).equals(before)


def test_a_query_set_that_is_not_stored_is_refused(private_project: TinyProject) -> None:
    (private_project.root / "queries/more.jsonl").write_text('{"id": "q", "prompt": "a", "completion": " file"}')
    with pytest.raises(MismatchError, match="'more' is not in `query_examples`; materialize it there first"):
        private_project.run("query_scores", f"{CHECKPOINT}|more")


def test_a_query_whose_gradient_is_not_finite_is_an_error_that_names_it(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorif_assets.mathematics.gradients.collector import BatchGradients, GradientCollector, TokenBatch

    before, collect = scores(private_project), GradientCollector.collect

    def damaged(self: GradientCollector, batch: TokenBatch) -> BatchGradients:
        found = collect(self, batch)
        next(iter(found.gradients.values()))[-1] = float("nan")
        return found

    monkeypatch.setattr(GradientCollector, "collect", damaged)
    with pytest.raises(
        LorifError, match=r"gradient of query 'questions\|q\d' is not finite at checkpoint 'step-000100'"
    ):
        private_project.run("query_scores", KEY)
    assert scores(private_project).equals(before)


# --- Results that do not belong together -----------------------------------------------------------------------------


def test_factors_of_another_recipe_are_refused_naming_both(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"rank": 2})
    project.run("checkpoints", CHECKPOINT)
    old, new = private_project.settings.recipe.factor_hash, project.settings.recipe.factor_hash
    before = scores(project)
    with pytest.raises(MismatchError, match=f"have recipe_hash {old}, but settings and checkpoint have {new}"):
        project.run("query_scores", KEY)
    assert scores(project).equals(before)


def test_factors_of_another_tokenizer_are_refused_naming_both(private_project: TinyProject) -> None:
    file = private_project.root / "checkpoints" / CHECKPOINT / "tokenizer_config.json"
    file.write_text(file.read_text() + "\n")
    old = checkpoint_record(private_project.lake, CHECKPOINT, private_project.settings.recipe).tokenizer_hash
    private_project.run("checkpoints", CHECKPOINT)
    new = checkpoint_record(private_project.lake, CHECKPOINT, private_project.settings.recipe).tokenizer_hash
    with pytest.raises(MismatchError, match=f"have tokenizer_hash {old}, but settings and checkpoint have {new}"):
        private_project.run("query_scores", KEY)


def test_preconditioners_of_another_recipe_are_refused_naming_both(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"damping": 2.0})
    old, new = private_project.settings.recipe.preconditioner_hash, project.settings.recipe.preconditioner_hash
    with pytest.raises(MismatchError, match=f"has recipe_hash {old}, but factors and settings have {new}"):
        project.run("query_scores", KEY)


def test_preconditioners_of_other_data_are_refused_saying_what_changed(private_project: TinyProject) -> None:
    private_project.edit_shard(1, 4, "an error closes the file")
    private_project.run("training_examples", SHARDS[1])
    private_project.run("gradient_factors", f"{CHECKPOINT}|{SHARDS[1]}")
    with pytest.raises(
        MismatchError, match=r"ledger_hash .*0 shards are new, 0 gone, 1 changed.*`svd_preconditioners`"
    ):
        private_project.run("query_scores", KEY)


def test_a_layer_without_preconditioner_is_named(private_project: TinyProject) -> None:
    layer = "transformer.h.1.mlp.c_fc"
    nothing = SVD_PRECONDITIONERS.columns.empty_table()
    private_project.lake.replace(SVD_PRECONDITIONERS, {"checkpoint": CHECKPOINT, "layer": layer}, nothing)
    with pytest.raises(MismatchError, match=f"layer '{layer}' of checkpoint '{CHECKPOINT}' has no preconditioner"):
        private_project.run("query_scores", KEY)


def test_factors_of_another_projection_are_refused_naming_both(tiny_project: TinyProject) -> None:
    lake, recipe = tiny_project.lake, tiny_project.settings.recipe
    stored = StoredCheckpoint.read(lake, CHECKPOINT, recipe)
    checkpoint = stored.load(tiny_project.opened.checkpoints, DeviceGroup.of("cpu"))
    vars(stored)["factors"] = replace(stored.factors, projection="another")
    with (
        Progress("", 36, "examples") as progress,
        pytest.raises(MismatchError, match=f"have the projection another, the queries {checkpoint.model.projection}"),
    ):
        score_queries(
            checkpoint,
            [],
            top_k=5,
            batch=BatchSettings(tokens=64, scan_rows=64),
            progress=progress,
            reason="nothing is known yet",
        )
