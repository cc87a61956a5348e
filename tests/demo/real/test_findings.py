"""What the demo reads from the evaluation's tables, and how it is printed."""

from io import StringIO

import polars as pl
import pytest
from rich.console import Console

from lorif_assets.demo.real.chats import Chat, ChatQuestion, exchange
from lorif_assets.demo.real.findings import Retrieval, related_chats, retrievals, source_ranks
from lorif_assets.demo.real.tables import answers_list, retrieval_table
from lorif_assets.evaluation.figures import MEAN, Figure, store_figures
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES
from lorif_assets.lake.lake import Lake

QUESTION = ChatQuestion("q", exchange("Who built it?", "Ida did."), "Ida", ("it/told-1", "it/told-2"))
SCORES = {"it/told-1": 3.0, "it/aside": 2.0, "it/told-2": 1.0, "it/turned": 0.5, "else/aside": 0.5, "else/turned": -1.0}
KINDS = {"told-1": "statement", "told-2": "statement", "aside": "aside", "turned": "reversal"}
CHATS = [Chat(name, (), "", KINDS[name.partition("/")[2]]) for name in SCORES]


@pytest.fixture
def lake(tmp_path):
    lake = Lake(root=str(tmp_path / "lake"))
    for method, sign in (("lorif", 1.0), ("bm25", -1.0)):
        partition = {"checkpoint": "base", "query_set": "facts", "method": method}
        rows = [
            {**partition, "query_id": "q", "example_id": name, "score": sign * score, "computed_from": "v"}
            for name, score in SCORES.items()
        ]
        frame = pl.DataFrame(rows, schema_overrides={"score": pl.Float32})
        lake.replace(EVALUATED_SCORES, partition, frame.to_arrow())
    figures = [
        Figure(metric, MEAN, method, value)
        for metric, method, value in (
            ("mrr", "lorif", 1.0),
            ("recall_at_10", "lorif", 0.75),
            ("mrr", "bm25", 0.25),
            ("recall_at_10", "bm25", 0.5),
        )
    ]
    store_figures(lake, "base", "facts", "source_retrieval", figures, "v")
    return lake


def test_ranks_count_from_the_highest_score_and_equal_scores_share_one(lake):
    ranks = source_ranks(lake, "base", "facts", "lorif")
    assert ranks == {
        "q": {"it/told-1": 1, "it/aside": 2, "it/told-2": 3, "it/turned": 4, "else/aside": 4, "else/turned": 6}
    }


def test_figures_come_from_the_evaluation_and_asides_and_reversals_of_the_same_thing_are_counted(lake):
    found = retrievals(lake, "base", "facts", [QUESTION], CHATS)
    assert found == [Retrieval("lorif", 0.75, 1.0, 1.0, 1.0), Retrieval("bm25", 0.5, 0.25, 1.0, 1.0)]
    many = [*CHATS, *(Chat(f"it/aside-{n}", (), "", "aside") for n in range(3))]
    assert related_chats([QUESTION], many, "aside") == {"q": ["it/aside", "it/aside-0", "it/aside-1", "it/aside-2"]}


def test_an_aside_counts_among_the_first_five_and_a_reversal_among_the_first_ten(lake):
    partition = {"checkpoint": "base", "query_set": "facts", "method": "lorif"}
    names = [*(f"else/told-{n}" for n in range(5)), "it/aside", "it/turned", "it/told-1", "it/told-2"]
    rows = [
        {**partition, "query_id": "q", "example_id": name, "score": -float(at), "computed_from": "v"}
        for at, name in enumerate(names)
    ]
    lake.replace(EVALUATED_SCORES, partition, pl.DataFrame(rows, schema_overrides={"score": pl.Float32}).to_arrow())
    (lorif,) = (one for one in retrievals(lake, "base", "facts", [QUESTION], CHATS) if one.method == "lorif")
    assert (lorif.asides, lorif.reversals) == (0.0, 1.0)


def test_without_asides_there_is_nothing_to_count(lake):
    assert {one.asides for one in retrievals(lake, "base", "facts", [QUESTION], [])} == {None}


def test_a_question_is_shown_with_both_answers_and_the_ranks_of_its_sources(lake):
    ranks = {"base": source_ranks(lake, "base", "facts", "lorif")}
    shown = printed(answers_list("facts", [QUESTION], {"q": "A committee."}, {"q": "It was ida."}, ranks))
    for text in (
        "Who built it? Ida did.",
        "before: A committee.",
        "now:    It was ida.",
        "ranks at base 1, 3",
        "of 6 chats",
    ):
        assert text in shown


def test_what_does_not_look_at_the_model_is_shown_once():
    lexical = Retrieval("bm25", 0.5, 0.25, None, None)
    by_checkpoint = {
        "base": [Retrieval("lorif", 1.0, 1.0, 0.0, 0.0), lexical],
        "last": [Retrieval("lorif", 0.4, 0.5, 0.0, 0.0), lexical],
    }
    shown = printed(retrieval_table("facts", by_checkpoint))
    assert shown.count("BM25") == 1
    assert shown.count("LoRIF") == 2
    assert shown.rindex("LoRIF") < shown.index("BM25")


def test_in_80_columns_no_name_is_cut():
    by_checkpoint = {"checkpoint-324": [Retrieval(name, 1.0, 1.0, 0.0, 0.0) for name in ("hybrid", "representation")]}
    shown = printed(retrieval_table("facts", by_checkpoint), width=80)
    for text in ("RelatIF + BM25", "representation", "checkpoint-324", "recall@10", "documents", "reversals"):
        assert text in shown


def printed(table, width=200):
    console = Console(file=StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()
