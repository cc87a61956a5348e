"""Rows marked by hand, and several completions asked about together, in a headless Chromium."""

from urllib.parse import unquote

import pytest

pytestmark = pytest.mark.slow


def box(page, example):
    return page.locator(f"[data-mark][data-example='{example}']").first


def test_rows_are_marked_in_lists_kept_by_the_browser_and_shown_with_their_texts(opened):
    page = opened("/query?fold=false")
    assert not page.is_visible("a.marked")
    box(page, "fox").check()
    page.goto("/example?shard=docs&example=hostile")
    box(page, "hostile").check()
    assert page.inner_text("a.marked") == "Marked 2"
    # When it is opened again, and elsewhere, it is marked still.
    page.goto("/query?fold=false")
    assert box(page, "fox").is_checked()
    assert not box(page, "plain").is_checked()
    page.click("a.marked")
    page.wait_for_url("**/marked**")
    rows = page.locator(".marked-rows li")
    assert [text.split("\n")[-1] for text in rows.all_inner_texts()] == ["fox in docs", "hostile in docs"]
    # What a row says is text, whatever it says.
    assert "<script>" in rows.nth(1).inner_text()
    assert page.title() != "owned"
    assert unquote(page.get_attribute("[data-ids]", "href")).endswith("docs/fox\ndocs/hostile\n")
    assert page.locator(".command pre").all_inner_texts() == [
        "lorif select --ids marked.txt --output marked",
        "lorif select --ids marked.txt --exclude --output without-marked",
    ]
    rows.nth(1).locator("input").click()
    assert page.inner_text("a.marked") == "Marked 1"
    page.click("[data-look]")
    page.wait_for_url("**/select?ids=docs%2Ffox")


def test_a_selection_has_a_name_and_there_may_be_several(opened):
    page = opened("/query?fold=false")
    page.locator("[data-row]").first.focus()
    page.keyboard.press("x")
    page.keyboard.press("m")
    page.wait_for_url("**/marked**")
    page.fill("input[name=name]", "to look at")
    page.keyboard.press("Enter")
    assert page.input_value("select[name=selection]") == "to look at"
    assert page.is_visible("[data-none]")
    page.go_back()
    assert page.inner_text("a.marked") == "Marked 0"
    box(page, "plain").check()
    page.click("a.marked")
    assert page.locator(".command pre").all_inner_texts() == [
        "lorif select --ids 'to look at.txt' --output 'to look at'",
        "lorif select --ids 'to look at.txt' --exclude --output 'without-to look at'",
    ]
    page.select_option("select[name=selection]", "marked")
    assert page.inner_text(".marked-rows small") == "fox in docs"
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("[data-forget]")
    assert page.inner_text(".marked-rows small") == "plain in docs"


def test_what_is_marked_is_of_one_browser_and_no_name_is_taken_for_code(opened):
    page = opened("/marked")
    assert page.is_visible("[data-none]")
    page.fill("input[name=name]", "a; rm -rf ~")
    page.keyboard.press("Enter")
    # The browser says what a name may be, and nothing was begun.
    assert page.locator("select[name=selection] option").count() == 1
    page.fill("input[name=name]", "__proto__")
    page.keyboard.press("Enter")
    page.reload()
    assert page.is_visible("[data-none]")


def test_several_completions_are_typed_in_with_weights_and_asked_about_as_one(opened, project):
    page = opened("/ask")
    page.fill("textarea[name=prompt]", "Hi.")
    page.fill("textarea[name=completion]", " Hello!")
    page.click("text=Several completions together")
    page.fill("input[name=weight]", "2")
    page.click("[data-add]")
    page.fill("[data-member] [name=other_prompt]", "Hey.")
    page.fill("[data-member] [name=other_completion]", " Go away.")
    page.fill("[data-member] [name=other_weight]", "-0.5")
    page.click("[data-add]")
    page.locator("[data-member]").nth(1).locator("[data-drop]").click()
    page.click("text=Which examples made it say this?")
    page.wait_for_url("**/query?**")
    members = [
        {"prompt": "Hi.", "completion": " Hello!", "weight": 2.0},
        {"prompt": "Hey.", "completion": " Go away.", "weight": -0.5},
    ]
    assert project.lines == [{"weighted": members}]
    assert page.is_visible("text=2 weighted completions")
    # The form has them again, to be changed.
    again = opened(page.url.replace("/query?", "/ask?"))
    again.wait_for_url("**/query?**")
    assert project.lines == [{"weighted": members}]


def test_several_chats_are_asked_about_as_one(opened, project):
    page = opened("/ask")
    page.fill("textarea[name=prompt]", "Hi.")
    page.fill("textarea[name=completion]", "Hello!")
    page.check("input[name=chat]")
    page.click("text=Several completions together")
    page.click("[data-add]")
    page.fill("[data-member] [name=other_completion]", "Good day.")
    page.click("text=Which examples made it say this?")
    page.wait_for_url("**/query?**")
    asked, first, second = {"role": "user", "content": "Hi."}, "Hello!", "Good day."
    chats = [[asked, {"role": "assistant", "content": first}], [{"role": "assistant", "content": second}]]
    assert project.lines == [{"weighted": [{"messages": turns, "weight": 1.0} for turns in chats]}]
