"""The page of an evaluation: it says who wins and who loses, shows only what was measured, and believes no text."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lorif_assets.mathematics.gradients.projection import Projection
from lorif_assets.pages.evaluation.content import (
    Cost,
    GroundTruthFigures,
    Interval,
    Measured,
    Missing,
    QueryScatter,
    RemovalMeasures,
)
from lorif_assets.pages.evaluation.page import render
from lorif_assets.pages.evaluation.recipe_plots import field_figure
from lorif_assets.pages.look import LIGHT
from tests.pages.evaluation.conftest import HOSTILE, LDS, METHODS, Make, trial


class Elements(HTMLParser):
    """Names of the elements of a page, its headings' ids, and the addresses that it would load; all are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.ids: set[str] = set()
        self.addresses: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.ids |= {value or "" for name, value in attrs if name == "id"}
        self.addresses += [value or "" for name, value in attrs if name in {"src", "srcset", "href"}]
        if tag not in {"meta", "link", "img", "source"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def words(page: str) -> str:
    body = page[page.index("<body>") :]
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", body)).split())


def test_the_result_says_where_the_reference_is_beaten_where_it_leads_and_what_cannot_be_told(content: Make) -> None:
    said = words(render(content()))
    for told in (
        "LoRIF 0.31 [0.25, 0.36].",
        "Better than LoRIF : dense LoGRA by 0.05 [0.02, 0.08].",
        "LoRIF is better than random by 0.30 [0.22, 0.37].",
        "Not distinguished by these data: BM25 (+0.01 [−0.06, 0.09]) .",
    ):
        assert told in said


def test_scores_whose_interval_reaches_below_zero_are_not_told_from_chance(content: Make) -> None:
    weak = replace(LDS, means={**LDS.means, "lorif": Interval(0.1, -0.1, 0.3)})
    assert "not distinguishable from chance" in words(render(content(lds=weak)))
    assert "not distinguishable from chance" not in words(render(content()))


def test_the_table_has_every_method_with_interval_difference_bytes_and_seconds(content: Make) -> None:
    said = words(render(content()))
    assert (
        "dense LoGRA the exact inverse at the same projections 0.36 [0.30, 0.42] −0.05 [−0.08, −0.02] 49,152 – 1.5 0.25"
        in said
    )
    assert "random the floor 0.01 [−0.05, 0.06] +0.30 [0.22, 0.37] 0 – 1.5 0.25" in said


def test_a_method_that_the_page_does_not_know_is_shown_by_its_own_name(content: Make) -> None:
    means = {**LDS.means, "new_method": Interval(0.2, 0.1, 0.3)}
    assert "new method" in words(render(content(lds=replace(LDS, means=means))))


def test_the_ceiling_of_the_ground_truth_is_told_or_said_to_be_unknown(content: Make) -> None:
    assert "would reach an LDS of about 0.76 here" in words(render(content()))
    alone = words(render(content(ground_truth=GroundTruthFigures(50, 50, None, None, None))))
    assert "it is unknown how much of the losses is noise" in alone


@pytest.mark.parametrize(
    ("changes", "section"),
    [
        ({"lds": None, "scatters": ()}, "result"),
        ({"lds": None, "scatters": ()}, "queries"),
        ({"ground_truth": None}, "truth"),
        ({"trials": ()}, "recipes"),
        ({"lds": None, "scatters": (), "trials": ()}, "bytes"),
        ({"tail_patch": None}, "tail-patch"),
        ({"retrieval": None}, "retrieval"),
        ({"removals": ()}, "removal"),
        ({"selections": ()}, "selection"),
    ],
)
def test_a_section_is_there_only_where_it_has_data(content: Make, changes: dict[str, object], section: str) -> None:
    assert section in Elements(render(content())).ids
    assert section not in Elements(render(content(**changes))).ids


def test_what_is_missing_is_named_with_the_command_that_brings_it(content: Make) -> None:
    page = render(content(missing=(Missing("Tail-patch", "run `lorif evaluate`"),)))
    assert "run <code>lorif evaluate</code>" in page
    assert "Not measured yet" not in render(content())


def test_what_is_out_of_date_is_pointed_out(content: Make) -> None:
    assert "materialize <code>method_scores</code>" in render(
        content(stale_results=("materialize `method_scores` first",))
    )
    assert "Out of date" not in render(content())


def test_agreement_is_not_passed_off_as_faithfulness(content: Make) -> None:
    unmeasured = words(render(content(trials=(trial(1024, 32, lds=None),))))
    assert "is not yet faithfulness" in unmeasured
    assert "is not yet faithfulness" not in words(render(content()))


def test_the_rise_after_removal_is_told_with_its_seeds(content: Make) -> None:
    assert "LoRIF +0.120 +0.110 to +0.130" in words(render(content()))


def test_what_training_on_a_selection_gave_is_told_with_intervals_and_paired_differences(content: Make) -> None:
    page = words(render(content()))
    assert "by how much that of LoRIF is lower" in page
    assert "LoRIF 300 2.500 [2.250, 2.750] BM25 300 3.000 [2.500, 3.500] +0.500 [0.250, 0.750]" in page


def test_small_changes_keep_digits_that_say_something(content: Make) -> None:
    assert "0.0040 [0.0030, 0.0050]" in words(render(content()))


def test_an_interval_that_leaves_out_zero_is_never_printed_as_reaching_it(content: Make) -> None:
    close = replace(LDS, differences={**LDS.differences, "bm25": Interval(0.2, 0.0004, 0.4)})
    assert "BM25 by 0.20 [0.0004, 0.40]" in words(render(content(lds=close)))


def test_text_of_any_origin_is_shown_and_never_taken_for_markup(content: Make) -> None:
    page = render(
        content(
            checkpoint="checkpoint" + HOSTILE,
            query_set="set" + HOSTILE,
            model_type="model" + HOSTILE,
            lds=Measured({"method" + HOSTILE: Interval(0.1, 0.0, 0.2)}, {}, {}),
            scatters=(
                QueryScatter("best", "id" + HOSTILE, "ask" + HOSTILE, "said" + HOSTILE, "m", 0.1, (1.0,), (1.0,)),
            ),
            missing=(Missing("what" + HOSTILE, "`command" + HOSTILE),),
            stale_results=("old" + HOSTILE,),
            provenance={"key" + HOSTILE: "value" + HOSTILE},
        )
    )
    assert "script" not in Elements(page).names
    shown = html.unescape(page)
    expected = [
        "checkpoint",
        "set",
        "model",
        "method",
        "id",
        "ask",
        "said",
        "what",
        "command",
        "old",
        "key",
        "value",
    ]
    assert [word for word in expected if word + HOSTILE not in shown] == []


def test_the_page_loads_nothing(content: Make) -> None:
    addresses = Elements(render(content())).addresses
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)


def test_the_same_content_gives_the_same_page(content: Make) -> None:
    assert render(content()) == render(content())


def test_every_picture_is_drawn_for_both_colour_schemes(content: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = content()
    monkeypatch.undo()
    page = render(made)
    # Distribution, trade-off, one scatter, recipes, r, damping, tail-patch, ROC and removal.
    assert page.count("data:image/png;base64,iVBOR") == 2 * 9
    assert all(method in made.methods for method in METHODS)


def test_recipes_without_r_and_with_a_byte_budget_are_listed_and_drawn(content: Make) -> None:
    whitened = replace(trial(640, 0, curvature="ekfac", rank=None, factor_dtype="sign", damping=0.1), r=None)
    trials = (trial(1024, 32), trial(1024, 64), whitened)
    said = words(render(content(trials=trials)))
    assert "640 ekfac sign 4 by budget – 0.1" in said
    for field in ("r", "damping"):
        assert field_figure(trials, field, "lds", LIGHT).axes


def test_a_recipe_with_a_largest_width_says_so_in_place_of_a_factor(content: Make) -> None:
    bounded = trial(1024, 32, projection=Projection(max_width=64, seed=0))
    assert "1,024 svd bf16 widths to 64 1 32 1" in words(render(content(trials=(bounded,))))


def test_what_is_kept_once_for_all_examples_has_a_column_of_its_own(content: Make) -> None:
    costs = {"lorif": Cost(1600.0, 1.5, 0.25, 312.4), "dense_logra": Cost(49152.0, 1.5, 0.25)}
    said = words(render(content(costs=costs)))
    assert "Bytes per example Shared bytes per example Seconds, once" in said
    assert "0.31 [0.25, 0.36] 1,600 312 1.5 0.25" in said
    assert "49,152 – 1.5 0.25" in said


def test_agreement_with_exact_ekfac_stands_in_the_table_of_methods_where_it_was_measured(content: Make) -> None:
    agreement = Measured({"lorif": Interval(0.88, 0.85, 0.91)}, {}, {})
    said = words(render(content(agreement=agreement)))
    assert "NDCG@20 to EK-FAC" in said
    assert "0.88 [0.85, 0.91] 2,048" in said
    assert "NDCG@20" not in words(render(content()))


def test_the_rise_of_single_queries_and_the_order_of_runs_stand_below_the_removals(content: Make) -> None:
    one, other = (
        Measured({"lorif": Interval(1.25, 1.0, 1.5)}, {}, {}),
        Measured({"lorif": Interval(0.7, 0.6, 0.8)}, {}, {}),
    )
    measures = RemovalMeasures({"query_loss_difference": one, "sorted_lds": other}, 0.01)
    said = words(render(content(removal_measures=measures)))
    assert "without the first 1.0% of the examples" in said
    assert "Method Rise of a query's loss LDS on sorted subsets LoRIF 1.25 [1.00, 1.50] 0.70 [0.60, 0.80]" in said
    alone = words(render(content(removal_measures=RemovalMeasures({"query_loss_difference": one}, 0.01))))
    assert "runs of consecutive ranks" not in alone
    assert "Query by query" not in words(render(content()))
