"""LoRIF with its leading examples ranked again."""

import numpy as np
import polars as pl

from lorif_assets.evaluation.methods.exact import ranked_again

PLACES = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
SCORES = np.array([5.0, 3.0, 1.0, -2.0, -4.0], dtype=np.float32)


def listed(**sides):
    rows = [
        {"side": side, "rank": rank, "example_id": name}
        for side, names in sides.items()
        for rank, name in enumerate(names, start=1)
    ]
    return pl.DataFrame(rows)


def test_the_scores_of_re_ranked_examples_are_dealt_out_in_exact_order_and_all_others_stay():
    found = ranked_again(SCORES, listed(highest="ba", lowest="de"), PLACES)
    assert found.tolist() == [3.0, 5.0, 1.0, -4.0, -2.0]


def test_an_order_that_is_confirmed_changes_nothing_and_unknown_examples_are_passed_over():
    assert ranked_again(SCORES, listed(highest="azb", lowest="ed"), PLACES).tolist() == SCORES.tolist()


def test_an_example_on_both_sides_of_a_short_list_counts_for_the_first():
    found = ranked_again(SCORES, listed(highest="cab", lowest="ecd"), PLACES)
    assert found.tolist() == [3.0, 1.0, 5.0, -2.0, -4.0]
    assert sorted(found) == sorted(SCORES)
