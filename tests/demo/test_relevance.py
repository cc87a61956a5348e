import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.demo.relevance import bm25_top, topic_precision


def test_precision_is_the_share_of_top_passages_on_topic():
    assert topic_precision(["with", "try", "contextlib", "json"], ("with", "contextlib")) == 0.5


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.sets(st.sampled_from("abc")))
def test_precision_is_the_mean_of_that_of_single_passages(topics, query_topics):
    singles = [topic_precision([topic], query_topics) for topic in topics]
    assert topic_precision(topics, query_topics) == pytest.approx(sum(singles) / len(singles))


def test_bm25_ranks_a_passage_equal_to_the_query_first(corpus):
    texts = [passage.text for passage in corpus.train]
    chosen = range(0, len(texts), 500)
    assert [top[0] for top in bm25_top(texts, [texts[i] for i in chosen], k=3)] == list(chosen)


def test_bm25_returns_k_passages_and_ignores_case_and_punctuation():
    passages = ["the with statement", "a lambda expression", "an import statement", "one more"]
    assert bm25_top(passages, ["LAMBDA!", '"import" ...'], k=2) == [[1, 0], [2, 0]]
