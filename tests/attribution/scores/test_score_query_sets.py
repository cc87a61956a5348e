"""Query sets share scans: any queries of any sets together, as many as memory holds, and each set gets its own back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.attribution.scores.score_queries import QueryScores, score_queries
from lorif_assets.attribution.scores.score_query_sets import queries_per_scan, scan_count, score_query_sets
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.config.sections import BatchSettings
from lorif_assets.errors import LorifError, UnsoundQueryError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

CHECKPOINT = CHECKPOINTS[0]


@dataclass(frozen=True)
class Query:
    example_id: str
    content: str


def echoed(queries: Sequence[Query]) -> QueryScores:
    """Scores that say what was asked."""
    ids = [query.example_id for query in queries]
    scores = pl.DataFrame({"query_id": ids, "content": [query.content for query in queries]})
    return QueryScores(scores, pl.DataFrame({"query_id": ids}), "full scan", 1, 0.0)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 6))
def test_every_set_gets_its_own_queries_whatever_scans_they_were_in(sizes: list[int], limit: int) -> None:
    # The sets name their queries alike.
    asked = {f"set {n}": [Query(f"q{k}", f"{n} {k}") for k in range(size)] for n, size in enumerate(sizes)}
    scans: list[int] = []

    def score(queries: Sequence[Any]) -> QueryScores:
        scans.append(len(queries))
        return echoed(queries)

    found = dict(score_query_sets(asked, limit, score))  # type: ignore[arg-type]
    assert len(scans) == scan_count(asked, limit)  # type: ignore[arg-type]
    assert max(scans) <= limit
    assert list(found) == list(asked)
    for name, queries in asked.items():
        expected = [(query.example_id, query.content) for query in queries]
        assert list(found[name].scores.iter_rows()) == expected
        assert found[name].summaries["query_id"].to_list() == [query.example_id for query in queries]


def test_a_set_is_there_as_soon_as_its_last_query_is_scored() -> None:
    asked = {"a": [Query("q", "a")], "b": [Query("q", "b"), Query("r", "b")]}
    scans = []

    def score(queries: Sequence[Any]) -> QueryScores:
        scans.append(len(queries))
        return echoed(queries)

    first = next(score_query_sets(asked, 2, score))  # type: ignore[arg-type]
    assert (first[0], scans) == ("a", [2])


@pytest.mark.parametrize("rank", [None, 2])
def test_a_budget_of_memory_bounds_the_queries_of_a_scan(tiny_project: TinyProject, rank: int | None) -> None:
    recipe = tiny_project.settings.recipe.model_copy(update={"query_rank": rank})
    record = checkpoint_record(tiny_project.lake, CHECKPOINT, recipe)
    each = sum(d1 * d2 if rank is None else (d1 + d2) * min(rank, d1, d2) for d1, d2 in record.layer_shapes.values())
    assert queries_per_scan(record, recipe, BatchSettings(query_mib=1), n_checkpoints=1) == (1 << 18) // each
    # Averaged scores hold the queries of every checkpoint.
    assert queries_per_scan(record, recipe, BatchSettings(query_mib=1), n_checkpoints=3) == (1 << 18) // (3 * each)


def test_query_sets_of_one_run_share_a_scan_and_score_as_they_do_alone(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = private_project.root / "queries"
    rows = (folder / f"{QUERY_SET}.jsonl").read_text().splitlines()
    (folder / "others.jsonl").write_text("\n".join([rows[2], rows[0]]))
    private_project.update()
    keys = [f"{CHECKPOINT}|{QUERY_SET}", f"{CHECKPOINT}|others"]
    tables = (QUERY_SCORES, QUERY_SUMMARIES)

    def stored() -> list[pl.DataFrame]:
        return [private_project.table(schema).sort(pl.all()) for schema in tables]

    for key in keys:
        private_project.run("query_scores", key)
    alone, scans = stored(), []

    def counted(attributed: Any, queries: Sequence[Any], *args: Any, **options: Any) -> QueryScores:
        scans.append(len(queries))
        return score_queries(attributed, queries, *args, **options)

    monkeypatch.setattr("lorif_assets.attribution.scores.score_checkpoint.score_queries", counted)
    private_project.run("query_scores", *keys)
    assert scans == [5]
    assert [private_project.figures("query_scores", key)["scans"] for key in keys] == [1, 1]
    for before, after in zip(alone, stored(), strict=True):
        texts = [name for name, kind in before.schema.items() if kind == pl.String]
        assert after.select(texts).equals(before.select(texts))
        assert after.select(pl.selectors.float()).to_numpy() == pytest.approx(
            before.select(pl.selectors.float()).to_numpy(), rel=1e-4, abs=1e-5
        )


def test_a_set_with_an_unsound_query_is_named_and_the_others_are_scored() -> None:
    asked = {"a": [Query("q", "a"), Query("r", "a")], "b": [Query("q", "b")], "c": [Query("q", "c")]}

    def score(queries: Sequence[Any]) -> QueryScores:
        unsound = [query.example_id for query in queries if query.content == "b"]
        if unsound:
            raise UnsoundQueryError("not finite", unsound)
        return echoed(queries)

    for limit in (1, 2, 4):
        found = dict(score_query_sets(asked, limit, score))  # type: ignore[arg-type]
        assert found.keys() == asked.keys()
        assert isinstance(found.pop("b"), UnsoundQueryError)
        rows = {name: one.scores.rows() for name, one in found.items() if isinstance(one, QueryScores)}
        assert rows == {"a": [("q", "a"), ("r", "a")], "c": [("q", "c")]}


def test_a_set_whose_gradients_are_not_finite_does_not_keep_the_others(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = private_project.root / "queries"
    (folder / "others.jsonl").write_text((folder / f"{QUERY_SET}.jsonl").read_text())
    private_project.update()

    def refuse(_attributed: object, queries: Sequence[Any], _sound: object) -> None:
        unsound = [query.example_id for query in queries if query.example_id.startswith(f"{QUERY_SET}|")]
        if unsound:
            raise UnsoundQueryError("a gradient is not finite", unsound)

    empty = QUERY_SUMMARIES.columns.empty_table()
    for query_set in (QUERY_SET, "others"):
        private_project.lake.replace(QUERY_SUMMARIES, {"checkpoint": CHECKPOINT, "query_set": query_set}, empty)
    monkeypatch.setattr("lorif_assets.attribution.queries.precondition_queries._refuse_unsound", refuse)
    keys = [f"{CHECKPOINT}|{QUERY_SET}", f"{CHECKPOINT}|others"]
    with pytest.raises(LorifError, match=r"1 of 2 query sets failed.*questions.*not finite"):
        private_project.run("query_scores", *keys)
    assert private_project.table(QUERY_SUMMARIES, checkpoint=CHECKPOINT)["query_set"].unique().to_list() == ["others"]


def test_a_query_set_that_is_not_there_does_not_keep_the_others(private_project: TinyProject) -> None:
    folder = private_project.root / "queries"
    rows = (folder / f"{QUERY_SET}.jsonl").read_text()
    (folder / "others.jsonl").write_text(rows)
    private_project.register_partitions()
    keys = [f"{CHECKPOINT}|{QUERY_SET}", f"{CHECKPOINT}|others"]
    empty = QUERY_SUMMARIES.columns.empty_table()
    private_project.lake.replace(QUERY_SUMMARIES, {"checkpoint": CHECKPOINT, "query_set": QUERY_SET}, empty)
    with pytest.raises(LorifError, match=r"1 of 2 query sets failed.*others.*not in `query_examples`"):
        private_project.run("query_scores", *keys)
    assert private_project.table(QUERY_SUMMARIES, checkpoint=CHECKPOINT)["query_set"].unique().to_list() == [QUERY_SET]
