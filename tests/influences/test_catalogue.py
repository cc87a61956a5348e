"""What can be looked at."""

import pyarrow as pa
import pytest

from lorif_assets.data.content.query_objectives import ScalarRules
from lorif_assets.data.passages import Part
from lorif_assets.data.questions import row_question
from lorif_assets.errors import MismatchError, NotStoredError
from lorif_assets.influences.catalogue import (
    scored_checkpoints,
    scored_methods,
    scored_queries,
    scored_query,
    stored_line,
)
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.lake.lake import Lake
from tests.stored_influences import EARLY, LATE, QUERIES, SET, stored_influences


def test_checkpoints_with_scores_come_in_order_of_step(lake):
    assert [(one.name, one.step, one.query_sets) for one in scored_checkpoints(lake)] == [
        (EARLY, 100, (SET,)),
        (LATE, 200, (SET,)),
    ]


def test_a_lake_without_scores_has_nothing_to_look_at(tmp_path):
    assert scored_checkpoints(Lake(str(tmp_path))) == []


def test_queries_come_in_the_order_of_their_file_and_tell_prompt_from_completion(lake):
    queries = scored_queries(lake, LATE, SET)
    assert [query.query_id for query in queries] == list(QUERIES)
    assert queries[0].parts == (Part("What jumps?", carries_loss=False), Part(" A fox.", carries_loss=True))
    assert queries[0].loss_per_token == 2.0
    assert queries[0].metadata == {"kind": "test"}


def test_what_is_not_stored_is_refused_with_what_is(lake):
    with pytest.raises(NotStoredError, match=f"{EARLY} has scores of '{SET}'"):
        scored_queries(lake, "step-7", SET)
    with pytest.raises(NotStoredError, match="has no query 'q9' at 'step-200': its 2 begin with 'q/1'"):
        scored_query(lake, LATE, SET, "q9")


def test_a_query_set_whose_queries_were_withdrawn_is_refused(tmp_path):
    lake = stored_influences(tmp_path)
    lake.replace(QUERY_EXAMPLES, {"query_set": SET}, QUERY_EXAMPLES.columns.empty_table())
    with pytest.raises(NotStoredError, match="no scores of the queries that the set"):
        scored_queries(lake, LATE, SET)


def test_a_stored_chat_is_a_line_again_with_its_tools_and_what_it_asks_about(tmp_path):
    chat = {
        "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}],
        "tools": [{"type": "function", "function": {"name": "look_up"}}],
        "chat_template_kwargs": {"enable_thinking": False},
        "span": "So",
    }
    assert line_as_stored(tmp_path, chat) == chat


def test_a_stored_weighted_set_is_a_line_again(tmp_path):
    turns = [{"content": "Why?", "role": "user"}, {"content": "So.", "role": "assistant"}]
    members = [{"prompt": "Why?", "completion": " So.", "weight": 2.0}, {"messages": turns, "weight": -1.0}]
    assert line_as_stored(tmp_path, {"weighted": members}) == {"weighted": members}


def test_a_stored_scalar_is_a_line_again(tmp_path):
    (tmp_path / "probes.py").write_text("def honesty(output, batch):\n    return output.logits[:, -1, 0]\n")
    line = {"prompt": "Why?", "completion": " So.", "scalar": "probes.py:honesty"}
    assert line_as_stored(tmp_path, line) == line
    (tmp_path / "probes.py").write_text("")
    with pytest.raises(MismatchError, match="changed since the query was read"):
        stored_line(Lake(str(tmp_path / "lake")), SET, "asked")


def line_as_stored(folder, line):
    """Store what a line of a query file asks in a lake, and read its line from there, which asks the same."""
    rules = ScalarRules(allowed=True, base=folder)
    lake, stored = Lake(str(folder / "lake")), row_question(line, rules)
    row = {"query_set": SET, "query_id": "asked", "row": 0, **stored}
    lake.replace(QUERY_EXAMPLES, {"query_set": SET}, pa.Table.from_pylist([row], schema=QUERY_EXAMPLES.columns))
    found = stored_line(lake, SET, "asked")
    assert row_question(found, rules) == stored
    return found


def test_methods_are_lorif_and_those_that_an_evaluation_kept(lake):
    assert scored_methods(lake, LATE, SET) == ["lorif", "bm25"]
    assert scored_methods(lake, LATE, "another") == ["lorif"]
