"""The relative ranking through the whole pipeline: against sizes in FP64, in every way to score, and beside old scores."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

import lorif_assets
from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.scores.stored_rankings import stored_ranking
from lorif_assets.errors import MismatchError, SettingsError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, RELATIVE_SCORES
from lorif_assets.pages.report.assembly import assemble
from lorif_assets.pages.report.page import render
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject, private_copy

NEWEST = CHECKPOINTS[-1]
KEY = f"{NEWEST}|{QUERY_SET}"


def sizes(project: TinyProject, checkpoint: str = NEWEST) -> dict[str, float]:
    """The squared size of every stored example from its factors, with the layers' weights by their definition, in FP64."""
    stored = StoredCheckpoint.read(project.lake, checkpoint, project.settings.recipe)
    cpu, total = torch.device("cpu"), torch.zeros(stored.factors.n_examples, dtype=torch.float64)
    for layer in stored.record.layer_shapes:
        ready = stored.preconditioners.load(layer, cpu)
        blocks = [block[layer] for block in stored.factors.blocks([layer], 1_000, cpu)]
        squares = torch.cat([(f.u.double().square().sum(1) * f.v.double().square().sum(1)).sum(1) for f in blocks])
        d1, d2 = stored.record.layer_shapes[layer]
        if stored.record.frozen_bases is None:
            w, floor = ready.eigenvalues.double(), ready.damping + ready.tail
            mean_own = (w / (w + ready.damping)).sum() + (d1 * d2 - len(w)) * ready.tail / floor
            mean_square = torch.tensor(ready.trace, dtype=torch.float64)
        else:
            values = ready.eigenvalues.double()
            mean_own = (values / (values + ready.damping * values.mean())).sum()
            mean_square = (values * ready.bases.scale.double().square()).sum()
        total += mean_own / mean_square * squares
    ids = stored.factors.example_ids(range(len(total)))
    return {name: float(total[position]) for position, (name, _) in ids.items()}


@pytest.fixture(scope="module", params=["svd", "ekfac"])
def every_pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProject]:
    """A project with the score of every pair at the newest checkpoint."""
    source = request.getfixturevalue({"svd": "tiny_project", "ekfac": "ekfac_project"}[request.param])
    with private_copy(source, tmp_path_factory.mktemp("every")) as project:
        every = project.with_settings(recipe={"top_k": "all"})
        every.run("query_scores", KEY)
        yield every


def plain(project: TinyProject) -> pl.DataFrame:
    return project.table(QUERY_SCORES, checkpoint=NEWEST, query_set=QUERY_SET).sort("query_id", "side", "rank")


def relative(project: TinyProject) -> pl.DataFrame:
    return stored_ranking(project.lake, NEWEST, QUERY_SET, "relative").sort("query_id", "side", "rank")


def test_every_pair_has_its_score_over_the_size_of_the_example(every_pair: TinyProject) -> None:
    rows, squares = plain(every_pair), sizes(every_pair)
    expected = [score / squares[name] ** 0.5 for score, name in rows.select("score", "example_id").iter_rows()]
    assert rows["relative_score"].to_list() == pytest.approx(expected, rel=1e-4)


def test_the_relative_table_lists_both_ends_of_the_ranking_by_it(every_pair: TinyProject) -> None:
    pairs, listed = plain(every_pair), relative(every_pair)
    for query in pairs["query_id"].unique():
        by_size = pairs.filter(pl.col("query_id") == query).sort("relative_score", descending=True)
        own = listed.filter(pl.col("query_id") == query)
        best, worst = (own.filter(pl.col("side") == side) for side in ("highest", "lowest"))
        assert best["example_id"].to_list() == by_size["example_id"].to_list()
        assert worst["example_id"].to_list() == by_size["example_id"].to_list()[::-1]
        assert best["rank"].to_list() == list(range(1, 37))
        assert best["score"].to_list() == pytest.approx(by_size["score"].to_list(), rel=1e-4)


def test_a_short_list_is_the_beginning_of_the_whole_ranking(every_pair: TinyProject, tmp_path: Path) -> None:
    whole = relative(every_pair)
    with private_copy(every_pair, tmp_path) as copied:
        short = copied.with_settings(recipe={**every_pair.settings.recipe.model_dump(), "top_k": 5})
        short.run("query_scores", KEY)
        found = relative(short)
    expected = whole.filter(pl.col("rank") <= 5)
    keys = ["query_id", "side", "rank", "example_id", "shard"]
    assert found.select(keys).equals(expected.select(keys))
    assert found["relative_score"].to_list() == pytest.approx(expected["relative_score"].to_list(), rel=1e-4)


def test_the_two_rankings_differ_where_examples_differ_in_size(every_pair: TinyProject) -> None:
    best = [
        scores.filter((pl.col("side") != "lowest") & (pl.col("rank") == 1))
        for scores in (plain(every_pair), relative(every_pair))
    ]
    assert best[0]["example_id"].to_list() != best[1]["example_id"].to_list()


@pytest.mark.parametrize("recipe", [{"query_rank": 64}, {"added_data": "merged"}])
def test_in_other_ways_to_score_the_ranking_is_the_same(
    private_project: TinyProject, recipe: dict[str, object]
) -> None:
    before = relative(private_project)
    changed = private_project.with_settings(recipe=recipe)
    changed.run("query_scores", KEY)
    found = relative(changed)
    # Examples of one text are tied, and rounding orders them.
    assert found["relative_score"].to_list() == pytest.approx(before["relative_score"].to_list(), rel=1e-4)
    assert found["score"].to_list() == pytest.approx(before["score"].to_list(), rel=1e-4)


def test_averaged_scores_are_relative_to_the_averaged_squares_of_sizes(private_project: TinyProject) -> None:
    averaging = private_project.with_settings(
        recipe={"averaged_checkpoints": 2, "checkpoint_weights": "equal", "top_k": "all"}
    )
    averaging.run("query_scores", KEY)
    own, earlier = sizes(averaging), sizes(averaging, CHECKPOINTS[0])
    rows = plain(averaging)
    expected = [
        score / ((own[name] + earlier[name]) / 2) ** 0.5
        for score, name in rows.select("score", "example_id").iter_rows()
    ]
    assert rows["relative_score"].to_list() == pytest.approx(expected, rel=1e-4)


def test_in_memory_the_ranking_is_that_of_the_definition(tiny_project: TinyProject) -> None:
    from tests.api.test_fitted import loaded, queries, source_rows

    found = lorif_assets.fit(*loaded(tiny_project), source_rows(tiny_project, 0, 1), tiny_project.settings.recipe)
    (answer, *_) = found.attribute(queries(tiny_project), top_k="all")
    pairs = dict(answer.table.select("example_id", "score").iter_rows())
    assert answer.relative_proponents["relative_score"].is_sorted(descending=True)
    assert answer.relative_opponents["relative_score"].is_sorted()
    assert dict(answer.relative_proponents.select("example_id", "score").iter_rows()) == pytest.approx(pairs, rel=1e-4)


def test_an_answer_lists_what_the_lake_stores(tiny_project: TinyProject) -> None:
    with lorif_assets.open(tiny_project.root / "lorif.toml") as project:
        answer = project.attribute("the with statement", " opens a file", top_k=5)
        stored = project.scores(NEWEST, QUERY_SET, ranking="relative").filter(pl.col("query_id") == "q0")
        with pytest.raises(SettingsError, match="'plain' or 'relative', found 'loud'"):
            project.scores(NEWEST, QUERY_SET, ranking="loud")  # type: ignore[arg-type]
    listed = answer.relative.sort("side", "rank")
    assert listed["example_id"].to_list() == stored["example_id"].to_list()
    assert listed["relative_score"].to_list() == pytest.approx(stored["relative_score"].to_list(), rel=1e-4)
    assert "relative proponents:" in repr(answer)
    assert "Relative proponents" in answer._repr_html_()


def test_scores_of_an_earlier_version_are_shown_without_it_and_never_with_another_s(
    private_project: TinyProject,
) -> None:
    partition = {"checkpoint": NEWEST, "query_set": QUERY_SET}
    rows = private_project.table(RELATIVE_SCORES, **partition).with_columns(computed_from=pl.lit("other scores"))
    private_project.lake.replace(RELATIVE_SCORES, partition, rows.to_arrow())
    assert relative(private_project).is_empty()
    record = StoredCheckpoint.read(private_project.lake, NEWEST, private_project.settings.recipe).record
    content = assemble(private_project.lake, record, QUERY_SET, private_project.settings.recipe, {})
    assert all(query.proponents and not query.relative_proponents for query in content.queries)
    assert "stored before there was a relative ranking" in render(content)
    with lorif_assets.open(private_project.root / "lorif.toml") as project, pytest.raises(MismatchError, match="again"):
        project.scores(NEWEST, QUERY_SET, ranking="relative")


def test_the_report_has_both_rankings(tiny_project: TinyProject) -> None:
    record = StoredCheckpoint.read(tiny_project.lake, NEWEST, tiny_project.settings.recipe).record
    content = assemble(tiny_project.lake, record, QUERY_SET, tiny_project.settings.recipe, {})
    listed = relative(tiny_project).filter((pl.col("query_id") == "q0") & (pl.col("side") == "highest"))
    (query,) = (query for query in content.queries if query.query_id == "q0")
    assert [one.example_id for one in query.relative_proponents] == listed["example_id"].to_list()
    assert [one.score for one in query.relative_proponents] == listed["relative_score"].to_list()
    page = render(content)
    assert "By relative influence" in page
    assert "stored before there was" not in page
