"""The page of a comparison: complete, self-contained, and safe whatever the data says."""

import html
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from lorif_assets.attribution.checkpoints.compared import Participants, ScoredCheckpoint
from lorif_assets.data.passages import Part
from lorif_assets.pages.comparison.content import ComparisonContent, Passage, QueryHistory, Standing
from lorif_assets.pages.comparison.page import render

HOSTILE = "<script>alert('x')</script>"


def standing(loss: float, *names: str) -> Standing:
    return Standing(loss, tuple(("docs-00000", name) for name in names))


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ComparisonContent]:
    """One query at three checkpoints, of which the last has lost one example for another. Pictures are not drawn."""
    monkeypatch.setattr("lorif_assets.pages.look.png", lambda figure: b"")

    def make(**changes: object) -> ComparisonContent:
        checkpoints = tuple(ScoredCheckpoint(f"step-{step}", step, f"v{step}") for step in (1, 2, 3))
        same = ("a", "b")
        query = QueryHistory(
            "q0",
            "The with statement",
            " calls __exit__.",
            {"topic": "with"},
            (standing(3.25, *same), standing(2.125, *same), standing(1.5, "c", "a")),
        )
        made = ComparisonContent(
            query_set="questions",
            compared=Participants(checkpoints, {}),
            stale_checkpoints=(),
            queries=(query,),
            passages={
                ("docs-00000", name): Passage(
                    (Part("asked, ", carries_loss=False), Part(f"passage {name}", carries_loss=True)),
                    {"file": f"{name}.txt"},
                )
                for name in "abc"
            },
            created=datetime(2026, 1, 2, tzinfo=UTC),
            provenance={"scores": "abc"},
        )
        return replace(made, **changes)

    return make


def test_a_query_that_asks_about_something_else_than_a_loss_is_marked_and_its_value_named(
    content: Callable[..., ComparisonContent],
) -> None:
    plain = content()
    (query,) = plain.queries
    page = render(replace(plain, queries=(query, replace(query, query_id="q1", asked={"against": " opens."}))))
    assert "against <span" in page
    assert page.count("Loss per token along the checkpoints") == 1
    assert page.count('class="number">Difference of the losses</th>') == 1
    words = " ".join(html.unescape(re.sub("<[^>]+>", " ", page)).split())
    assert "stayed difference of the losses −0.62" in words
    # The loss of the plain one alone: that of a contrast is a difference.
    mixed = replace(
        plain, queries=(query, replace(query, asked={"scalar": {"name": "f"}}, standings=(standing(9.0, "a"),) * 3))
    )
    assert mixed.mean_losses == plain.mean_losses
    assert replace(query, asked={"span": "calls"}).is_loss


def test_what_carries_no_loss_is_told_from_what_does(content: Callable[..., ComparisonContent]) -> None:
    plain = content()
    (query,) = plain.queries
    assert '<span class="said no-loss">asked, </span><span class="said">passage ' in render(plain)
    turns = (Part("Who is it?", carries_loss=False, role="user"), Part("A fox.", carries_loss=True, role="assistant"))
    page = render(replace(plain, queries=(replace(query, turns=turns),)))
    assert '<span class="prompt">Who is it?</span> <mark>A fox.</mark>' in page
    assert '<span class="said no-loss">Who is it?</span>' in page
    assert '<span class="said">A fox.</span>' in page


class Elements(HTMLParser):
    """Names of the elements of a page, and the addresses that it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "srcset", "href"}]


def test_the_page_tells_losses_overlaps_and_what_entered_and_left_with_its_text(
    content: Callable[..., ComparisonContent],
) -> None:
    page = html.unescape(render(content()))
    for told in ("3.25", "2.12", "1.50", "passage c", "c.txt", "passage b", "b.txt", "The same examples lead at both."):
        assert told in page
    newest, older = page.index("step-2</bdi> → <bdi>step-3"), page.index("step-1</bdi> → <bdi>step-2")
    assert newest < page.index("passage c") < page.index("passage b") < older
    assert "passage a" not in page


def test_what_moved_is_told_with_both_of_its_ranks_and_the_change_of_the_loss(
    content: Callable[..., ComparisonContent],
) -> None:
    names = "abcdefghijkl"
    moved = standing(1.5, *"lz", *names[:9])
    query = QueryHistory("q0", None, "said", {}, (standing(2.0, *names), moved))
    made = content(
        compared=Participants(content().compared.checkpoints[:2], {}),
        queries=(query,),
        passages={("docs-00000", name): Passage((Part(f"passage {name}", carries_loss=True),), {}) for name in "lzij"},
    )
    words = " ".join(html.unescape(re.sub("<[^>]+>", " ", render(made))).split())
    for told in (
        "8 of 10 stayed loss −0.50",
        "Entered rank 1 before: 12 passage l",
        "rank 2 before: not in the first 12 passage z",
        "Left rank 9 now: 11 passage i",
        "rank 10 now: not in the first 12 passage j",
    ):
        assert told in words


def test_text_of_any_origin_is_shown_and_never_taken_for_markup(content: Callable[..., ComparisonContent]) -> None:
    hostile = ("docs" + HOSTILE, "id" + HOSTILE)
    checkpoints = tuple(ScoredCheckpoint(f"{name}{HOSTILE}", None, name) for name in ("older", "newer"))
    query = QueryHistory(
        "query" + HOSTILE,
        "prompt" + HOSTILE,
        "completion" + HOSTILE,
        {"key" + HOSTILE: "value" + HOSTILE},
        (standing(1.0, "a"), Standing(1.0, (hostile,))),
    )
    page = render(
        content(
            query_set="set" + HOSTILE,
            compared=Participants(checkpoints, {"absent" + HOSTILE: "reason" + HOSTILE}),
            stale_checkpoints=("old" + HOSTILE,),
            queries=(query,),
            passages={
                hostile: Passage((Part("text" + HOSTILE, carries_loss=True),), {"name" + HOSTILE: "said" + HOSTILE}),
                ("docs-00000", "a"): Passage((Part("", carries_loss=True),), {}),
            },
            provenance={"origin" + HOSTILE: "hash" + HOSTILE},
        )
    )
    assert "script" not in Elements(page).names
    shown = html.unescape(page)
    words = "docs id older newer query prompt completion key value set absent reason old text name said origin hash"
    assert [word for word in words.split() if word + HOSTILE not in shown] == []


def test_the_page_loads_nothing(content: Callable[..., ComparisonContent]) -> None:
    addresses = Elements(render(content())).addresses
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)


def test_a_query_without_scores_at_a_checkpoint_is_said_to_have_none(
    content: Callable[..., ComparisonContent],
) -> None:
    (query,) = content().queries
    newly = replace(query, standings=(None, None, standing(1.0, "a")))
    assert render(content(queries=(newly,))).count("The query was not scored at both of these checkpoints.") == 2


def test_with_fewer_than_two_checkpoints_the_page_says_so_and_why(content: Callable[..., ComparisonContent]) -> None:
    alone = ScoredCheckpoint("step-1", 1, "v1")
    query = QueryHistory("q0", None, "said", {}, (standing(1.0, "a"),))
    page = render(content(compared=Participants((alone,), {"step-2": "no scores yet"}), queries=(query,)))
    assert "Fewer than two checkpoints have scores that can be compared." in page
    assert "<bdi>step-2</bdi>: no scores yet" in page


def test_checkpoints_that_were_scored_with_other_data_are_pointed_out(
    content: Callable[..., ComparisonContent],
) -> None:
    assert "not all of the movement is the model's" not in html.unescape(render(content()))
    assert "not all of the movement is the model's" in html.unescape(render(content(stale_checkpoints=("step-1",))))


def test_an_overlap_that_is_largely_extrapolated_says_so(content: Callable[..., ComparisonContent]) -> None:
    # Two stored ranks: 1 - 0.9^2 of the weight.
    assert "agreement makes up 19% of it" in " ".join(render(content()).split())


def test_the_picture_is_drawn_for_both_colour_schemes(
    content: Callable[..., ComparisonContent], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = content(compared=Participants(tuple(ScoredCheckpoint(f"$x_{k}$", k, "v") for k in (1, 2, 3)), {}))
    monkeypatch.undo()
    assert render(made).count("data:image/png;base64,iVBOR") == 2


def test_small_lines_of_one_page_share_a_scale(content: Callable[..., ComparisonContent]) -> None:
    (steep,) = content().queries
    flat = replace(steep, query_id="q1", standings=(standing(2.0, "a"), standing(2.0, "a"), standing(1.125, "a")))
    page = render(content(queries=(steep, flat)))
    lines = [re.findall(r",(-?[0-9.]+)", points) for points in re.findall(r'polyline points="([^"]*)"', page)]
    heights = [float(line[-1]) - float(line[0]) for line in lines]
    # Losses of 3.25 to 1.5 and of 2 to 1.125, once in the list of queries and once in each query's section.
    assert heights == [24.0, 12.0, 24.0, 12.0]


def test_the_overlap_of_the_relative_rankings_is_shown_where_it_is_known(
    content: Callable[..., ComparisonContent],
) -> None:
    assert "Overlap by relative influence" not in render(content())
    (query,) = content().queries
    standings = tuple(replace(one, relative_proponents=one.proponents) for one in query.standings if one)
    page = render(content(queries=(replace(query, standings=standings),)))
    assert "Overlap by relative influence" in page
    assert "what is specific to this output for its size" in page
