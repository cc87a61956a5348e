"""The explorer in a headless Chromium, with clicks and keys."""

from urllib.parse import urlencode

import pytest

from tests.stored_influences import EARLY, HOSTILE, LATE

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}


def first_example(page):
    return page.locator(".influences >> nth=0").locator("[data-open]").first.inner_text()


def test_a_query_is_opened_from_the_first_page_and_walked_through(opened):
    page = opened("/")
    page.click("main a:has-text('A fox.')")
    assert first_example(page) == "fox"
    page.locator("[data-open]:has-text('fox')").first.click()
    assert page.inner_text("h2#moved") == "Queries that it moves"
    page.locator("table.moved [data-open]").first.click()
    page.wait_for_url("**/query?**")
    page.locator("[data-open]:has-text('plain')").first.click()
    page.click("text=Back to the query")
    page.wait_for_url("**/query?**")


def test_a_choice_applies_at_once_and_is_in_the_address(opened):
    page = opened("/query")
    page.select_option("select[name=ranking]", "relative")
    page.wait_for_url("**ranking=relative**")
    assert first_example(page) == "fox/again"
    page.select_option("form.filters select[name=where] >> nth=0", index=1)
    page.wait_for_url("**where=**")
    page.uncheck("input[type=checkbox][name=fold]")
    page.wait_for_url("**fold=false**")
    # The address alone shows the same.
    again = opened(page.url)
    assert again.inner_text("main") == page.inner_text("main")
    page.go_back()
    assert "fold" not in page.url


def test_another_method_and_another_checkpoint_are_chosen(opened):
    page = opened("/query?ranking=relative")
    page.select_option("select[name=method]", "bm25")
    page.wait_for_url("**method=bm25**")
    assert first_example(page) == "plain"
    page.select_option("select[name=checkpoint]", EARLY)
    page.wait_for_url(f"**checkpoint={EARLY}**")
    assert first_example(page) == "fox"


def test_texts_are_searched(opened):
    page = opened("/query?fold=false")
    page.press("body", "/")
    page.keyboard.type("UNTIL MORNING.")
    page.keyboard.press("Enter")
    page.wait_for_url("**text=**")
    assert first_example(page) == "fox/again"


def test_groups_lead_to_their_examples(opened):
    page = opened("/query")
    page.click("nav.tabs >> text=Groups")
    page.select_option("select[name=column]", "topic")
    page.wait_for_url("**column=topic**")
    page.click("table.groups >> text=animals")
    page.wait_for_url("**where=topic%3Danimals**")
    assert first_example(page) == "fox"


def test_ranks_over_checkpoints_and_the_verdict_are_shown(opened):
    page = opened("/query")
    page.click("nav.tabs >> text=Over checkpoints")
    assert page.locator("table.movement .leads").count() > 1
    page.click("text=Can this be trusted?")
    assert "nobody has held these scores against retraining" in page.inner_text(".verdict")


def test_keys_walk_through_rows_queries_and_views(opened):
    page = opened("/query?fold=false")
    for key, expected in (("j", "fox"), ("j", "fox/again"), ("k", "fox")):
        page.keyboard.press(key)
        focused = page.locator("[data-row]:focus [data-open]").inner_text()
        assert focused == expected
    page.keyboard.press("Enter")
    page.wait_for_url("**/example?**")
    page.go_back()
    page.keyboard.press("n")
    page.wait_for_url("**query=%3Cscript**")
    page.keyboard.press("g")
    page.wait_for_url("**/groups?**")
    # In the same view and by the same ranking.
    page.goto("/groups?ranking=relative&column=topic")
    page.keyboard.press("n")
    page.wait_for_url("**/groups?**ranking=relative**column=topic**")
    assert page.locator(".contents [aria-current]").inner_text() != page.locator(".contents li a").first.inner_text()
    page.keyboard.press("p")
    page.wait_for_url("**query=q%2F1**")
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("h")
    page.wait_for_url("**/")


def test_a_letter_typed_into_a_field_is_a_letter(opened):
    page = opened("/")
    page.fill("textarea[name=prompt]", "")
    page.type("textarea[name=prompt]", "jkngh?")
    assert page.input_value("textarea[name=prompt]") == "jkngh?"
    assert page.locator("dialog[open]").count() == 0


def test_a_completion_is_asked_about_with_its_line_breaks_and_spaces(opened, project):
    project.goes_on.clear()
    page = opened("/")
    page.fill("textarea[name=prompt]", "one\ntwo")
    page.fill("textarea[name=completion]", " three")
    page.click("text=Which examples made it say this?")
    page.wait_for_selector("text=scoring: 2 of 6 examples")
    project.goes_on.set()
    page.wait_for_url("**/query?**")
    assert first_example(page) == "asked"
    assert page.inner_text(".exchange .no-loss") == "one\ntwo"
    assert [asked[:2] for asked in project.asked] == [("one\ntwo", " three")]


def test_a_prompt_that_is_too_long_for_an_address_is_asked_about_too(opened, project):
    prompt = "many words\nand " + "more words " * 6_000
    page = opened("/")
    page.fill("textarea[name=prompt]", prompt)
    page.fill("textarea[name=completion]", " three")
    page.click("text=Which examples made it say this?")
    page.wait_for_url("**/query?**asked=**")
    assert project.asked[0][:2] == (prompt, " three")
    page.click("nav.tabs >> text=Groups")
    page.wait_for_selector("text=Summed over all 6 examples")
    page.select_option("select[name=checkpoint]", EARLY)
    page.wait_for_url(f"**checkpoint={EARLY}**")
    page.wait_for_selector("table.groups")
    assert [asked[2] for asked in project.asked] == [LATE, EARLY]


def test_every_example_of_a_stored_query_is_scored_where_it_is_asked_for(opened, project):
    page = opened("/groups?column=topic")
    page.click("text=score every example")
    page.wait_for_selector("text=Summed over all 6 examples")
    assert [asked[1] for asked in project.asked] == ["q/1"]


def test_a_question_that_fails_says_why(opened, project):
    project.fails = True
    page = opened("/ask?completion=x")
    page.wait_for_selector("text=the checkpoint's files are gone; bring them back")


def test_hostile_texts_stay_texts(opened, project):
    for path in (
        "/",
        "/query?where=topic%3Danimals",
        "/groups",
        "/movement",
        "/trust",
        "/example?shard=docs&example=hostile",
    ):
        page = opened(path)
        assert page.title() != "owned"
        assert page.locator("main img, main script").count() == 0
    page = opened("/")
    page.fill("textarea[name=completion]", HOSTILE)
    page.click("text=Which examples made it say this?")
    page.wait_for_url("**/query?**")
    assert page.title() != "owned"
    assert page.inner_text(".exchange .said") == HOSTILE
    assert project.asked[0][1] == HOSTILE
    page.click("a.ask")
    assert page.locator("textarea").count() == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(opened, scheme):
    page = opened("/", viewport=PHONE, color_scheme=scheme)
    papers = set()
    for path in ("/", "/query", "/groups", "/movement", "/trust", "/ask", "/example?shard=docs&example=fox"):
        page.goto(path)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, path
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == {"rgb(246, 247, 249)" if scheme == "light" else "rgb(19, 22, 27)"}


def test_on_a_phone_no_column_is_squeezed_to_a_few_letters(opened):
    page = opened("/groups?column=topic", viewport=PHONE)
    for path in ("/groups?column=topic", "/movement", "/trust", "/example?shard=docs&example=fox"):
        page.goto(path)
        page.wait_for_selector("main table tbody tr")
        narrow = page.evaluate(
            """[...document.querySelectorAll("main table th, main table td")]
              .filter((cell) => cell.checkVisibility() && cell.innerText.length > 8 && cell.getBoundingClientRect().width < 64)
              .map((cell) => cell.innerText)"""
        )
        assert narrow == [], path


def test_the_table_of_contents_finds_a_query(opened):
    page = opened("/query")
    page.fill("[data-find]", "jumps")
    assert page.locator(".contents li:visible").count() == 1
    # Those that are not beside the page are found on the first page.
    page.press("[data-find]", "Enter")
    page.wait_for_url("**/?**text=jumps**")
    assert page.locator("table.overview tbody tr").count() == 1


def select(page, first, last):
    """Drag the mouse over characters of what was said, from the first one up to the last."""
    box = page.evaluate(
        """([first, last]) => {
          const said = document.querySelector("[data-selectable] .said");
          const walk = document.createTreeWalker(said, NodeFilter.SHOW_TEXT);
          const at = [];
          for (let node = walk.nextNode(), before = 0; node; before += node.length, node = walk.nextNode()) {
            for (const place of [first, last]) {
              if (place < before || place >= before + node.length) continue;
              const range = document.createRange();
              range.setStart(node, place - before);
              range.setEnd(node, place - before + 1);
              const box = range.getBoundingClientRect();
              at.push(place === first ? box.left + 1 : box.right - 1, box.top + box.height / 2);
            }
          }
          return at;
        }""",
        [first, last],
    )
    page.mouse.move(*box[:2])
    page.mouse.down()
    page.mouse.move(*box[2:], steps=5)
    page.mouse.up()


def shows_span(page, span):
    from playwright.sync_api import expect

    expect(page.locator("[data-span]")).to_have_value(span, timeout=20_000)


def test_a_part_of_a_completion_is_selected_with_the_mouse_and_asked_about(opened, project):
    page = opened("/query?query=q/1")
    select(page, 3, 5)
    shows_span(page, "3-6")
    page.click("text=Which examples made it say this part?")
    page.wait_for_url("**/query?**span=3-6**")
    page.wait_for_selector("b.part")
    assert page.inner_text("b.part") == "fox"
    assert project.lines == [{"prompt": "What jumps?", "completion": " A fox.", "span": [3, 6]}]
    # Within what is marked already, places are still those of the whole.
    select(page, 4, 5)
    shows_span(page, "4-6")
    page.click("text=All of it again")
    page.wait_for_url("**/query?**")
    assert "span" not in page.url
    assert first_example(page) == "fox"


def test_a_part_is_typed_where_there_is_no_mouse(opened, project):
    page = opened("/query?query=q/1")
    page.fill("[data-span]", "fox")
    page.press("[data-span]", "Enter")
    page.wait_for_selector("b.part")
    assert project.lines[0]["span"] == "fox"


def test_places_in_a_text_are_counted_as_characters_whatever_a_browser_counts(opened, project):
    project.goes_on.set()
    page = opened("/ask")
    page.fill("textarea[name=completion]", "🦊🦊 runs")
    page.click("text=Which examples made it say this?")
    page.wait_for_selector("[data-selectable]")
    # Each fox is two of what scripts count.
    select(page, 5, 8)
    shows_span(page, "3-7")


def test_a_token_tells_its_share_of_the_score(opened, project):
    page = opened("/query?query=q/1")
    page.locator("a.words").first.click()
    page.wait_for_selector("[data-token]")
    assert "/tokens?" in page.url
    assert page.locator("section.tokens").count() == 2
    assert page.locator("section.tokens .unscored").first.inner_text() == "t"
    # The last token has the largest share, and the strongest colour.
    assert page.locator("section.tokens").first.locator("[data-token]").last.get_attribute("class") in {"r5", "l5"}
    token = page.locator("[data-token]").first
    token.click()
    chosen = page.inner_text("[data-chosen]")
    assert chosen.startswith("“h”: ")
    assert chosen.endswith("% of the score")
    assert token.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert "“e”" in page.inner_text("[data-chosen]")
    assert page.locator("[aria-pressed=true]").count() == 1
    page.click("text=Back to the query")
    page.wait_for_url("**/query?**")


def test_hostile_texts_stay_texts_where_parts_and_tokens_are_chosen(opened, project):
    page = opened(f"/query?{urlencode({'query': HOSTILE})}")
    assert page.inner_text("[data-selectable] .said") == HOSTILE
    page.fill("[data-span]", HOSTILE)
    page.press("[data-span]", "Enter")
    page.wait_for_selector("b.part")
    assert page.inner_text("b.part") == HOSTILE
    page.goto(f"/tokens?{urlencode({'query': HOSTILE, 'shard': 'docs', 'example': 'hostile'})}")
    page.wait_for_selector("[data-token]")
    for token in page.locator("[data-token]").all()[:12]:
        token.click()
    assert page.locator("main img, main script").count() == 0
    assert page.title() != "owned"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tokens_fit_a_phone(opened, scheme):
    page = opened("/tokens?query=q/1&shard=docs&example=fox", viewport=PHONE, color_scheme=scheme)
    page.wait_for_selector("[data-token]")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


@pytest.mark.parametrize("path", ["/ask?completion=x", "/select"])
def test_where_the_explorer_was_stopped_the_page_says_so_and_what_to_do(chromium, address, project, path):
    project.goes_on.clear()
    page = chromium.new_page(base_url=address)
    page.route("**/api/**", lambda route: route.abort("connectionrefused"))
    page.goto(path)
    said = page.locator("[data-doing].message")
    said.wait_for()
    assert said.inner_text().startswith("The explorer does not answer: it was stopped")
    assert "`lorif explore`" in said.inner_text()
    page.close()


def test_a_weight_that_is_left_empty_counts_once_and_holds_up_no_question(opened, project):
    page = opened("/")
    page.fill("textarea[name=completion]", " three")
    page.click("text=Several completions together")
    page.fill("input[name=weight]", "")
    page.click("text=Several completions together")
    page.click("text=Which examples made it say this?")
    page.wait_for_url("**/query?**")
    assert [asked[1] for asked in project.asked] == [" three"]


def test_a_field_that_holds_up_a_question_is_shown_where_it_is_folded_away(opened, project):
    page = opened("/")
    page.fill("textarea[name=completion]", " three")
    page.click("text=Several completions together")
    page.fill("input[name=weight]", "")
    page.locator("input[name=weight]").press_sequentially("1e")
    page.click("text=Several completions together")
    page.click("text=Which examples made it say this?")
    page.wait_for_selector("details[data-several][open]")
    assert page.evaluate("document.activeElement.name") == "weight"
    assert project.asked == []


def test_marks_that_combine_without_end_are_not_painted_over_neighbouring_rows(opened):
    for path in ("/", "/query", "/movement", "/groups", "/example?shard=docs&example=fox"):
        page = opened(path)
        open_cells = page.evaluate(
            """[...document.querySelectorAll(".text, .line, .chips > div, .origin, td, th")]
              .filter((one) => !["clip", "hidden"].includes(getComputedStyle(one).overflowY)).length"""
        )
        assert open_cells == 0, path
