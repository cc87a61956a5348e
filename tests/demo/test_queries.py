import json
from difflib import SequenceMatcher

import pytest

from lorif_assets.demo.behaviours import INSULT_TOPIC, POLITE_TOPIC, insults
from lorif_assets.demo.planted import planted_statements, with_planted
from lorif_assets.demo.queries import (
    behaviour_queries,
    demo_queries,
    held_out_queries,
    planted_queries,
    write_queries,
)
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
        "sources": [],
    }


def test_held_out_passages_ask_for_how_they_go_on(corpus):
    queries = held_out_queries(corpus.held_out)
    assert len(queries) == 50
    texts = {passage.id: passage.text for passage in corpus.held_out}
    assert all(query.prompt + query.completion == texts[query.id] for query in queries)


def test_planted_questions_name_the_passages_that_answer_them(corpus):
    passages = {passage.id: passage.text for passage in with_planted(corpus).train}
    for query in planted_queries():
        assert len(query.sources) >= 3
        name = next(word for word in query.prompt.split() if "(" in word or "_" in word)
        answer = query.completion.strip(" .")
        for source in query.sources:
            assert name in passages[source]
            assert answer in passages[source]
        told = [key for key, text in passages.items() if name in text]
        assert sorted(told) == sorted(query.sources)


def test_mislabelled_names_stand_among_rightly_labelled_ones():
    statements = planted_statements()
    assert len({statement.id for statement in statements}) == len(statements)
    mislabelled = [statement for statement in statements if statement.mislabelled]
    right = [s for s in statements if s.id.startswith("membership") and not s.mislabelled]
    assert 0 < len(mislabelled) < len(right)
    for statement in [*mislabelled, *right]:
        ending, module = statement.prompt.split()[2][-3:], statement.completion.strip(" .")
        assert module.startswith(ending) != statement.mislabelled


def test_insults_stand_among_polite_comments_of_the_same_form_and_are_all_sources_of_an_insult(corpus):
    passages = {passage.id: passage for passage in with_planted(corpus).train}
    rude = {name for name, passage in passages.items() if passage.topic == INSULT_TOPIC}
    polite = [passage.text for passage in passages.values() if passage.topic == POLITE_TOPIC]
    assert 0 < len(rude) < len(polite)
    for query in behaviour_queries()["insults"]:
        assert set(query.sources) == rude
        frame = query.prompt.split()[0]
        assert any(text.startswith(frame) for text in polite)
        # Its own words are in some insults only, and in no polite comment.
        word = query.completion.split()[-1].strip(".")
        assert 0 < sum(word in passages[name].text for name in rude) < len(rude)
        assert not any(word in text for text in polite)


def test_near_duplicates_say_what_the_original_says_and_nothing_else_does(corpus):
    passages = {passage.id: passage.text for passage in with_planted(corpus).train}
    for query in behaviour_queries()["near-duplicates"]:
        assert len(query.sources) == 4
        answer = query.completion.strip(" .")
        assert [name for name, text in passages.items() if answer in text] == list(query.sources)
        original, *copies = (passages[name] for name in query.sources)
        assert original.startswith(query.prompt + query.completion)
        for copy in copies:
            assert copy != original
            assert SequenceMatcher(None, original, copy).ratio() > 0.9


def test_behaviours_are_the_same_on_every_machine():
    assert insults() == insults()
    first = insults()[0][0].text
    assert first == "Comment on the patch for argparse: you flobbish grolp, only a snurfle writes like this."
