"""Chats that are too long lose early exchanges whole, by the rule `drop_early_turns`."""

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from lorif_assets.config.recipe_fields import TEMPLATE_DATE
from lorif_assets.data.chats.conversations import Conversation, Message
from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.tokens.early_turns import exchange_starts, later_turns
from lorif_assets.data.tokens.rules import TokenRules
from lorif_assets.data.tokens.tokenization import TokenizedExample
from tests.data.conftest import make_tokenizer
from tests.data.tokens.test_tokenization import only, tokenized

TEMPLATE = """<s>{% for m in messages %}<|{{ 'user' if m.role == 'tool' else m.role }}|>{{ m.content }}<|end|>{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}"""
SYSTEM = {"role": "system", "content": "be brief"}
SHOWS_CALLS = TEMPLATE.replace("{{ m.content }}", "{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}")


def exchange(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def shown(example: TokenizedExample, tokenizer: PreTrainedTokenizerFast) -> tuple[str, str]:
    """The whole input, and what of it carries loss."""
    with_loss = example.labels[example.labels != NO_LOSS]
    return tokenizer.decode(example.input_ids), tokenizer.decode(with_loss)


def length(messages: list[Message], tokenizer: PreTrainedTokenizerFast) -> int:
    return len(only(tokenized({"messages": messages}, by=tokenizer, max_length=10_000)).input_ids)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(chat_template=TEMPLATE)


def cut(
    messages: list[Message], by: PreTrainedTokenizerFast, max_length: int, **row: Any
) -> tuple[TokenizedExample, str, str]:
    example = only(tokenized({"messages": messages, **row}, by=by, max_length=max_length, rules=LATER))
    return example, *shown(example, by)


LATER = TokenRules(truncation="drop_early_turns")
CHAT = [SYSTEM, *exchange("hello", "world"), *exchange("how", "quick"), *exchange("fox", "brown")]


def test_a_chat_that_fits_is_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    example, text, _ = cut(CHAT, tokenizer, length(CHAT, tokenizer))
    assert example.cut is None
    assert "hello" in text


def test_the_first_exchange_goes_whole_as_soon_as_one_token_is_too_many(tokenizer: PreTrainedTokenizerFast) -> None:
    example, text, with_loss = cut(CHAT, tokenizer, length(CHAT, tokenizer) - 1)
    assert text == (
        "<s><|system|>be brief<|end|><|user|>how<|end|><|assistant|>quick<|end|><|user|>fox<|end|><|assistant|>brown<|end|>"
    )
    assert with_loss == "quick<|end|>brown<|end|>"
    assert example.cut
    assert example.cut.startswith("2 early messages: at most")


@pytest.mark.parametrize("n_dropped", [1, 2])
def test_no_more_go_than_it_takes(tokenizer: PreTrainedTokenizerFast, n_dropped: int) -> None:
    later = [SYSTEM, *CHAT[1 + 2 * n_dropped :]]
    for spare in (0, 1):
        _, text, _ = cut(CHAT, tokenizer, length(later, tokenizer) + spare)
        assert text == shown(only(tokenized({"messages": later}, by=tokenizer)), tokenizer)[0]


def test_where_the_last_exchange_is_too_long_question_and_answer_have_a_claim_to_half_each(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    long = "the quick brown fox " * 20
    example, text, with_loss = cut([SYSTEM, *exchange("hello", "world"), *exchange("how", long)], tokenizer, 30)
    assert text.startswith("<s><|system|>be brief<|end|><|user|>how<|end|><|assistant|>the quick brown fox")
    assert "hello" not in text
    assert with_loss.startswith("the quick")
    assert len(example.input_ids) == 30
    example, text, with_loss = cut([SYSTEM, *exchange("hello", "world"), *exchange(long, "fine")], tokenizer, 30)
    assert text.startswith("<s><|system|>be brief<|end|><|user|>")
    assert len(example.input_ids) == 30
    assert text.endswith("fox <|end|><|assistant|>fine<|end|>")
    assert with_loss == "fine<|end|>"
    assert example.cut
    assert example.cut.startswith("2 early messages: at most 30 are kept")
    assert "; of the rest, " in example.cut


def test_a_system_message_that_takes_more_than_half_is_cut_with_the_question(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    system = {"role": "system", "content": "the quick brown fox " * 10}
    _, text, with_loss = cut([system, *exchange("hello", "world")], tokenizer, 20)
    assert text.startswith("<s>")
    assert text.endswith("<|end|><|user|>hello<|end|><|assistant|>world<|end|>")
    assert with_loss == "world<|end|>"


def test_a_system_message_that_the_template_writes_into_the_first_question_moves_to_the_first_that_is_left() -> None:
    template = """<s>{% for m in messages %}{% if m.role == 'user' %}[INST] \
{% if loop.index0 == 1 and messages[0].role == 'system' %}<<{{ messages[0].content }}>> {% endif %}{{ m.content }} [/INST]\
{% elif m.role == 'assistant' %}{{ m.content }}</s>{% endif %}{% endfor %}"""
    tokenizer = make_tokenizer(chat_template=template)
    _, text, with_loss = cut(CHAT, tokenizer, length(CHAT, tokenizer) - 1)
    assert text == "<s>[INST] <<be brief>> how [/INST]quick</s>[INST] fox [/INST]brown</s>"
    assert with_loss == "quick</s>brown</s>"
    _, text, _ = cut([SYSTEM, *exchange("the quick brown fox " * 10, "fine")], tokenizer, 70)
    assert text.startswith("<s>[INST] <<be brief>>")
    assert text.endswith("fox  [/INST]fine</s>")


def test_a_greeting_of_the_assistant_goes_first() -> None:
    greeted = [SYSTEM, {"role": "assistant", "content": "hi"}, *exchange("hello", "world")]
    assert exchange_starts(greeted) == [1, 2]


def test_what_follows_the_last_answer_that_carries_loss_is_no_exchange_to_keep_alone() -> None:
    messages = [*exchange("a", "b"), *exchange("c", "d"), {"role": "user", "content": "e"}]
    assert exchange_starts(messages) == [0, 2]
    messages[3] = {**messages[3], "weight": 0}
    assert exchange_starts(messages) == [0]


def test_a_user_who_goes_on_does_not_begin_an_exchange() -> None:
    assert exchange_starts([{"role": "user", "content": "a"}, *exchange("b", "c"), *exchange("d", "e")]) == [0, 3]


def call(name: str) -> Message:
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": {"of": "fox"}}}],
    }


@pytest.mark.parametrize("role", ["tool", "user"])
def test_a_tools_result_never_stays_without_its_call(role: str) -> None:
    tokenizer = make_tokenizer(chat_template=SHOWS_CALLS)
    rounds = [call("first"), {"role": role, "content": "one"}, call("second"), {"role": role, "content": "two"}]
    messages: list[Message] = [
        {"role": "user", "content": "hello"},
        *rounds,
        {"role": "assistant", "content": "world"},
        *exchange("how", "quick"),
    ]
    for max_length in range(12, length(messages, tokenizer) + 1):
        later = later_turns(Conversation(messages), tokenizer, max_length, TEMPLATE_DATE).messages
        assert [*later] in ([*messages], [*messages[-2:]])


def test_tool_definitions_stay_with_the_later_turns() -> None:
    template = "{{ tools | tojson if tools }}" + TEMPLATE
    tokenizer = make_tokenizer(chat_template=template)
    tools = [{"type": "function", "function": {"name": "fox"}}]
    row = {"messages": CHAT, "tools": json.dumps(tools)}
    whole = len(only(tokenized(row, by=tokenizer, max_length=10_000)).input_ids)
    _, text, _ = cut(CHAT, tokenizer, whole - 1, tools=json.dumps(tools))
    assert json.dumps(tools) in text
    assert "hello" not in text


def test_a_chat_whose_later_turns_the_template_refuses_is_cut_by_tokens() -> None:
    strict = "{% if messages[1].content != 'hello' %}{{ raise_exception('begin with hello') }}{% endif %}" + TEMPLATE
    marked = strict.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
    example, text, _ = cut(CHAT, make_tokenizer(chat_template=marked), 12)
    assert text.startswith("<s><|system|>")
    assert example.cut
    assert example.cut.startswith("0 tokens in front")


@pytest.mark.parametrize("truncation", ["keep_start", "keep_end"])
def test_other_rules_cut_a_chat_by_tokens_behind_its_begin_of_text(
    tokenizer: PreTrainedTokenizerFast, truncation: Any
) -> None:
    whole = only(tokenized({"messages": CHAT}, by=tokenizer)).input_ids.tolist()
    rules = TokenRules(truncation=truncation)
    ids = only(tokenized({"messages": CHAT}, by=tokenizer, max_length=20, rules=rules)).input_ids.tolist()
    assert ids == (whole[:20] if truncation == "keep_start" else [whole[0], *whole[-19:]])
