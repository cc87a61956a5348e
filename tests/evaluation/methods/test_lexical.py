"""Lexical search: shared words, whatever the texts are like."""

import numpy as np
import pytest

from lorif_assets.evaluation.methods.lexical import LexicalIndex

TEXTS = ["The ferry sails in winter.", "A ferry, a ferry!", "Nothing of the kind", ""]


def test_texts_that_share_rarer_words_more_often_score_higher():
    scores = LexicalIndex(TEXTS).scores(["ferry", "FERRY in winter"])
    assert scores[0].argsort()[::-1][:2].tolist() == [1, 0]
    assert scores[1].argmax() == 0
    assert scores.dtype == np.float32


def test_a_text_that_shares_no_word_scores_nothing():
    assert LexicalIndex(TEXTS).scores(["ferry"])[0, 2:].tolist() == [0.0, 0.0]


def test_a_score_is_that_of_the_formula():
    (scores,) = LexicalIndex(["a b", "a a", "c"]).scores(["b"])
    frequency, length, mean_length = 1, 2, 5 / 3
    inverse = np.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = inverse * frequency / (frequency + 1.5 * (1 - 0.75 + 0.75 * length / mean_length))
    assert scores.tolist() == pytest.approx([expected, 0.0, 0.0])


@pytest.mark.parametrize("query", ["", "...", "unheard"])
def test_a_query_without_known_words_scores_nothing(query):
    assert not LexicalIndex(TEXTS).scores([query]).any()


def test_texts_without_words_score_nothing():
    assert not LexicalIndex(["", "--"]).scores(["ferry"]).any()
