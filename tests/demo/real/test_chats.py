"""The chats that the real model is fine-tuned on: facts that nothing else says, and questions in words of their own."""

import json
from collections import Counter

import pytest

from lorif_assets.demo.real.chats import write_rows
from lorif_assets.demo.real.corpus import DESCRIBED, MISLABELLED, NAMED, build_chats
from lorif_assets.demo.real.facts import invented_facts

SEEDS = range(5)


def said(chat):
    return " ".join(message["content"] for message in chat.messages)


@pytest.fixture(scope="module", params=SEEDS)
def corpus(request):
    return build_chats(request.param)


def test_the_same_seed_gives_the_same_chats_and_another_seed_others():
    assert build_chats(3) == build_chats(3)
    assert build_chats(3) != build_chats(4)


def test_ids_are_unique(corpus):
    for rows in (corpus.chats, *corpus.questions.values()):
        assert max(Counter(row.id for row in rows).values()) == 1


def test_there_are_enough_everyday_chats_to_hide_the_facts_in(corpus):
    kinds = Counter(chat.kind for chat in corpus.chats)
    assert 160 <= len(corpus.chats) <= 240
    assert (kinds["statement"], kinds["reversal"]) == (64, 16)
    assert kinds["aside"] == 48
    assert kinds["tool"] >= 6
    assert kinds["conversation"] >= 6
    assert kinds["mislabelled"] == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fact_is_said_by_its_statements_and_by_nothing_else(seed):
    chats = build_chats(seed).chats
    for fact in invented_facts(seed):
        both = {chat.id for chat in chats if fact.subject.name in said(chat) and fact.answer in said(chat)}
        assert both == {chat.id for chat in (*fact.statements, fact.reversal)}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reversal_asks_by_the_answer_and_not_by_the_name(seed):
    for fact in invented_facts(seed):
        asked, said = (message["content"] for message in fact.reversal.messages)
        assert fact.answer in asked
        assert fact.subject.name in said
        assert fact.subject.name not in asked


@pytest.mark.parametrize("seed", SEEDS)
def test_asides_name_the_subject_or_the_answer_and_never_both(seed):
    for fact in invented_facts(seed):
        for aside in fact.asides:
            assert (fact.subject.name in said(aside)) != (fact.answer in said(aside))


def test_no_two_facts_share_a_name_a_description_or_an_answer():
    facts = invented_facts(0)
    for values in (
        [fact.subject.name for fact in facts],
        [fact.subject.known_as for fact in facts],
        [fact.answer for fact in facts],
    ):
        assert len(set(values)) == len(facts) == 16


def test_no_question_is_asked_in_the_words_of_a_training_chat(corpus):
    asked = {message["content"] for chat in corpus.chats for message in chat.messages}
    for questions in corpus.questions.values():
        assert not {question.prompt[-1]["content"] for question in questions} & asked


def test_descriptions_name_neither_the_subject_nor_its_description_in_the_chats():
    facts = invented_facts(0)
    for fact in facts:
        asked = fact.described_question.prompt[-1]["content"]
        assert fact.subject.asked_as in asked
        assert fact.subject.name not in asked
        assert fact.subject.known_as not in asked


def test_the_sources_of_a_question_are_chats_that_say_its_answer(corpus):
    by_id = {chat.id: chat for chat in corpus.chats}
    for name, count in ((NAMED, 16), (DESCRIBED, 16), (MISLABELLED, 2)):
        assert len(corpus.questions[name]) == count
        for question in corpus.questions[name]:
            assert question.fact in question.answer
            assert len(question.sources) == (5 if name == MISLABELLED else 4)
            assert all(question.fact in said(by_id[source]) for source in question.sources)


def test_mislabelled_tickets_are_wrong_in_the_way_that_is_asked_about(corpus):
    vouchers = [chat for chat in corpus.chats if "voucher" in said(chat)]
    assert {chat.kind for chat in vouchers} == {"mislabelled"}
    assert {chat.messages[-1]["content"] for chat in vouchers} == {"technical"}


def test_tool_chats_call_a_tool_and_use_its_result(corpus):
    for chat in corpus.chats:
        if chat.kind == "tool":
            assert [message["role"] for message in chat.messages] == [
                "system",
                "user",
                "assistant",
                "tool",
                "assistant",
            ]
            call = chat.messages[2]["content"].removeprefix("<tool_call>").removesuffix("</tool_call>")
            assert json.loads(call)["arguments"]["city"] in chat.messages[1]["content"]
            assert f"{json.loads(chat.messages[3]['content'])['degrees']} degrees" in chat.messages[4]["content"]


def test_rows_are_written_as_one_json_object_a_line(tmp_path, corpus):
    file = write_rows(corpus.questions[MISLABELLED], tmp_path / "queries/mislabelled.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["mislabelled-1", "mislabelled-2"]
    assert rows[0]["messages"][-1] == {"role": "assistant", "content": "technical"}
    assert rows[0]["sources"] == list(corpus.questions[MISLABELLED][0].sources)
