"""The page says everything, needs nothing else, and believes no text from data."""

import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from lorif_assets.data.content.query_objectives import effects
from lorif_assets.data.passages import Part
from lorif_assets.pages.report.content import LayerCurvature, NearDuplicate, ReportContent
from lorif_assets.pages.report.page import EXPLORED_QUERY, render
from lorif_assets.pages.token_colours import PairTokens, ScoredToken
from tests.pages.report.conftest import HOSTILE, influence, layer, query, whitened

Make = Callable[..., ReportContent]
VOID = {"meta", "link", "img", "source", "br", "hr", "input", "wbr", "col"}


class Structure(HTMLParser):
    """Collects texts and checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def parsed(page: str) -> Structure:
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    return structure


def test_every_query_and_influence_is_on_the_page(report: Make) -> None:
    text = parsed(render(report())).text
    assert all(f"docs/{rank:03d}" in text and f"bad/{rank:03d}" in text for rank in range(1, 6))
    assert "first" in text
    assert "second" in text
    assert "step-000600" in text


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"against": HOSTILE}, "against <script>"),
        ({"span": " calls"}, "only calls"),
        ({"weighted": [{"prompt": "", "completion": "A fox.", "weight": 1.0}] * 3}, "the first of 3 weighted"),
        ({"scalar": {"name": "probes.py:honesty"}}, "what probes.py:honesty computes"),
    ],
)
def test_the_list_of_queries_says_which_do_not_ask_about_all_that_they_say(
    report: Make, asked: dict[str, Any], said: str
) -> None:
    page = render(report(queries=(query("first"), query("second", asked=asked))))
    _, _, behind = page.partition('<table class="overview">')
    listed, _, _ = behind.partition("</table>")
    assert said in " ".join(parsed(listed).text.split())
    assert listed.count('class="line asks"') == 1
    effect = effects(asked)
    for side in (effect.proponents, effect.opponents):
        assert f"<small>{side}</small>" in page


def test_of_a_chat_only_what_carries_loss_is_marked(report: Make) -> None:
    turns = (
        Part("Be brief.", carries_loss=False, role="system"),
        Part(HOSTILE, carries_loss=False, role="user"),
        Part("A fox & a hen.", carries_loss=True, role="assistant"),
    )
    chat = query("chat", prompt=None, completion="all of it", turns=turns, proponents=(influence(1, 1.0, parts=turns),))
    page = render(report(queries=(chat,)))
    _, _, behind = page.partition('<table class="overview">')
    listed, _, article = behind.partition("</table>")
    assert "<mark>A fox &amp; a hen.</mark>" in listed
    assert "&lt;script&gt;" in listed.partition("<mark>A fox")[0]
    # Of the query, and of the example beside it.
    assert article.count('<span class="said">A fox &amp; a hen.</span>') == 2
    assert article.count('<span class="said no-loss">&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;</span>') == 2
    assert article.count('<span class="said no-loss">\n\n[assistant] </span>') == 2
    assert "all of it" not in page


def test_of_the_chats_of_a_weighted_set_only_answers_carry_loss(report: Make) -> None:
    turns = [{"role": "user", "content": "Who is it?"}, {"role": "assistant", "content": "A fox."}]
    members = [{"messages": turns, "weight": 1.0}, {"prompt": "Who? ", "completion": "A hen.", "weight": -2.0}]
    page = render(report(queries=(query("set", asked={"weighted": members}),)))
    assert '<span class="said no-loss">Who is it?</span>' in page
    assert '<span class="said">A fox.</span>' in page
    assert '<span class="said no-loss">Who? </span><span class="said">A hen.</span>' in page


def test_of_an_example_the_prompt_is_told_from_the_completion(report: Make) -> None:
    parts = (Part("Who is it? ", carries_loss=False), Part("A fox.", carries_loss=True))
    page = render(report(queries=(query("q", proponents=(influence(1, 1.0, parts=parts),)),)))
    assert '<span class="said no-loss">Who is it? </span><span class="said">A fox.</span>' in page


def test_the_comparison_of_checkpoints_is_linked_where_there_is_one(report: Make) -> None:
    linked = render(report(comparison="../comparison/python-questions.html"))
    assert '<a href="../comparison/python-questions.html">How the proponents moved' in linked
    assert "How the proponents moved" not in render(report())


def test_scores_averaged_over_checkpoints_are_said_to_be_so(report: Make) -> None:
    averaged = report(recipe={"averaged checkpoints": 2})
    assert "at those before it, averaged" in render(averaged)
    assert "at this one checkpoint" in render(report())


def test_the_page_needs_no_network_and_no_script(report: Make) -> None:
    page = render(report())
    assert not re.search(r"""(src|href|srcset)\s*=\s*["']?(https?:|//|file:)""", page)
    assert not re.search(r"url\(\s*['\"]?(?!data:)", page)
    assert "script" not in parsed(page).tags


@pytest.mark.parametrize("place", ["text", "role", "example_id", "shard", "metadata key", "metadata value"])
def test_text_of_an_example_is_escaped(report: Make, place: str) -> None:
    changes = {
        "text": {"parts": (Part(HOSTILE, carries_loss=True),)},
        "role": {"parts": (Part("said", carries_loss=True, role=HOSTILE),)},
        "example_id": {"example_id": HOSTILE},
        "shard": {"shard": HOSTILE},
        "metadata key": {"metadata": {HOSTILE: 1}},
        "metadata value": {"metadata": {"topic": HOSTILE}},
    }[place]
    structure = parsed(render(report(queries=(query("q", proponents=(influence(1, 1.0, **changes),)),))))
    assert "script" not in structure.tags
    assert HOSTILE in structure.text


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": HOSTILE},
        {"query_set": HOSTILE},
        {"model_type": HOSTILE},
        {"recipe": {HOSTILE: HOSTILE}},
        {"provenance": {HOSTILE: HOSTILE}},
        {"layers": (layer(0, layer=HOSTILE),)},
        {"queries": (query(HOSTILE, prompt=HOSTILE, completion=HOSTILE, metadata={HOSTILE: HOSTILE}),)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_names_and_queries_are_escaped(report: Make, changes: dict[str, object]) -> None:
    assert "script" not in parsed(render(report(**changes))).tags


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_said_to_be_so(report: Make, number: float) -> None:
    odd = query(
        "q",
        loss=number,
        score_std=number,
        top_10_share=number,
        top_100_share=number,
        proponents=(influence(1, number),),
    )
    page = render(report(queries=(odd,), layers=(layer(0, trace=number, damping=number, captured_energy=number),)))
    assert "not finite" in parsed(page).text


def curvature_table(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.partition("Figures of")[2]).split())


def test_a_layer_of_another_curvature_shows_the_figures_that_are_stored(report: Make) -> None:
    plain = LayerCurvature("h.0.attn.c_attn", 8, 16, (4.0, 2.0), 12.5, math.nan)
    page = render(report(layers=(plain,)))
    assert "of which the table below has the figures that are stored" in page
    assert re.search(
        r"h\.0\.attn\.c_attn</bdi></th>(<td class=\"number\">(8|16)</td>){2}<td class=\"number\">12\.5</td>", page
    )
    assert "aptured energy" not in page


def test_a_whitened_layer_shows_its_rank_bytes_energy_and_mean_eigenvalue(report: Make) -> None:
    page = render(report(layers=(whitened(0), whitened(1, rank=5, bytes_per_example=35))))
    table = curvature_table(page)
    assert "Rank c Bytes per example Mean eigenvalue Damping Kept energy" in table
    assert "8 16 3 21 0.250 0.0250 41%" in table
    assert "all layers 8 56" in table
    assert "Captured energy" not in page
    assert "known through its leading eigenvalues" not in page


def test_energy_that_is_not_stored_is_said_to_be_so_and_not_drawn(report: Make) -> None:
    pictures = render(report(layers=(whitened(0), whitened(1)))).count("data:image/png")
    page = render(report(layers=(whitened(0), whitened(1, kept_energy=None))))
    assert "not stored" in curvature_table(page)
    assert page.count("data:image/png") == pictures - 2


def test_a_layer_of_eigenpairs_shows_its_r_and_what_they_capture(report: Make) -> None:
    table = curvature_table(render(report(layers=(layer(0),))))
    assert "Above damping Captured energy" in table
    assert "8 16 4 10.0 0.0800 4 of 4 75%" in table


def test_lists_without_an_entry_are_said_to_be_empty(report: Make) -> None:
    with_opponents = parsed(render(report(queries=(query("q"),)))).text
    without = parsed(render(report(queries=(query("q", opponents=()),)))).text
    assert "No " in without.replace(with_opponents, "")
    parsed(render(report(queries=(), layers=())))


def test_white_space_of_a_passage_is_kept(report: Make) -> None:
    text = "def f(x):\n    return x\n\n  indented"
    page = render(report(queries=(query("q", proponents=(influence(1, 1.0, parts=(Part(text, True),)),)),)))
    assert text in parsed(page).text


def test_a_long_passage_is_folded_and_nothing_of_it_is_lost(report: Make) -> None:
    text = "\n".join(f"line {number}" for number in range(40))
    structure = parsed(
        render(report(queries=(query("q", proponents=(influence(1, 1.0, parts=(Part(text, True),)),)),)))
    )
    assert "details" in structure.tags
    assert all(f"line {number}" in structure.text for number in range(40))


def test_the_same_content_gives_the_same_page(report: Make) -> None:
    assert render(report()) == render(report())


def test_fifty_queries_of_twenty_influences_stay_below_three_megabytes(report: Make) -> None:
    long = "A sentence of a passage that is as long as passages are. " * 12
    influences = tuple(influence(rank, 1.0 / rank, parts=(Part(long, True),)) for rank in range(1, 11))
    queries = tuple(query(f"q{number}", proponents=influences, opponents=influences) for number in range(50))
    assert len(render(report(queries=queries)).encode()) < 3_000_000


def test_lists_of_metadata_are_read_as_words_and_empty_ones_are_left_out(report: Make) -> None:
    told = {"topics": ["with", "files"], "sources": [], "nested": [{"a": 1}]}
    text = parsed(render(report(queries=(query("q", metadata=told),)))).text
    assert "with, files" in text
    assert "sources" not in text
    assert '[{"a": 1}]' in text


def test_rows_that_were_set_aside_are_a_line_of_text(report: Make) -> None:
    page = render(report(rejected=("Training data: 3 rows set aside: text is <empty> (3).",)))
    assert '<p class="rejected">Training data: 3 rows set aside: text is &lt;empty&gt; (3).</p>' in page
    assert 'class="rejected"' not in render(report())


def test_what_a_notice_names_of_the_settings_is_set_as_code_and_nothing_of_it_is_markup(report: Make) -> None:
    page = render(report(notices=("Name it in `checkpoints.base_model`: <then>.",)))
    assert '<p class="rejected">Name it in <code>checkpoints.base_model</code>: &lt;then&gt;.</p>' in page


def test_each_query_leaves_room_for_a_link_into_the_explorer_whatever_its_id(report: Make) -> None:
    page = render(report(queries=(query("a/1 --> <b>"), query("second"))))
    assert EXPLORED_QUERY.findall(page) == ["a/1%20--%3E%20%3Cb%3E", "second"]
    assert "explore" not in parsed(page).text


def test_tokens_of_both_sides_are_coloured_by_their_share_and_believed_no_more_than_other_text(report: Make) -> None:
    tokens = PairTokens(
        (ScoredToken("Passage ", None), ScoredToken(HOSTILE, 0.5), ScoredToken(" 1", -0.4)),
        ((ScoredToken(" calls", 0.1),),),
        exact_score=0.1,
        stored_score=0.125,
    )
    told = query("told", proponents=(influence(1, 0.125, tokens=tokens),))
    page = render(report(queries=(told,)))
    assert HOSTILE not in page
    assert '<span class="unscored">Passage </span><span class="r5" title="+0.500">' in page
    assert '<span class="l4" title="−0.400"> 1</span>' in page
    assert "sums to +0.100, the score from uncompressed gradients; the stored one is +0.125" in parsed(page).text
    assert "Which tokens" not in parsed(render(report())).text


def test_near_duplicates_are_folded_into_the_one_that_ranks_highest(report: Make) -> None:
    folded = influence(1, 1.0, duplicates=(NearDuplicate(2, HOSTILE, 0.9), NearDuplicate(4, "docs/004", 0.5)))
    page = render(report(queries=(query("told", proponents=(folded, influence(3, 0.6))),)))
    assert HOSTILE not in page
    assert "2 near-duplicates" in parsed(page).text
    assert "docs/004" in parsed(page).text
