import json

import pytest

from lorif_assets.demo.queries import demo_queries, write_queries
from lorif_assets.errors import SourceError


def test_every_query_is_about_topics_that_the_corpus_has(corpus):
    queries = demo_queries(corpus.topics)
    assert all(query.topics and set(query.topics) <= corpus.topics for query in queries)
    assert len({query.id for query in queries}) == len(queries) >= 8


def test_topics_that_a_python_version_lacks_are_left_out(corpus):
    queries = {query.id: query for query in demo_queries(corpus.topics - {"context-managers"})}
    assert queries["with-statement"].topics == ("with", "contextlib")


def test_a_query_without_any_topic_is_an_error_that_names_it(corpus):
    with pytest.raises(SourceError, match="query 'json' is about json"):
        demo_queries(corpus.topics - {"json"})


def test_no_query_is_quoted_from_the_corpus(corpus):
    said = {
        tuple(words[i : i + 8])
        for passage in corpus.train + corpus.held_out
        if (words := passage.text.lower().split())
        for i in range(len(words) - 7)
    }
    for query in demo_queries(corpus.topics):
        words = (query.prompt + query.completion).lower().split()
        assert not {tuple(words[i : i + 8]) for i in range(len(words) - 7)} & said


def test_a_completion_goes_on_where_its_prompt_ends(corpus):
    for query in demo_queries(corpus.topics):
        assert query.prompt == query.prompt.strip()
        assert query.completion.startswith(" ")
        assert query.completion.endswith(".")


def test_written_queries_are_json_lines_in_order(corpus, tmp_path):
    queries = demo_queries(corpus.topics)
    path = write_queries(queries, tmp_path / "queries" / "python.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [query.id for query in queries]
    assert rows[0] == {
        "id": queries[0].id,
        "prompt": queries[0].prompt,
        "completion": queries[0].completion,
        "topics": list(queries[0].topics),
    }
