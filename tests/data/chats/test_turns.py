"""Assistant turns in renderings of templates of the shapes that are in use, where nothing marks them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.config.sources import Columns
from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.chats.turns import n_common
from lorif_assets.data.content.labels import LabelledTokens
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.preview import PreviewedRow, preview_rows
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.data.tokens.chat import encode_conversations
from tests.data.conftest import make_tokenizer

PROMPT = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
# Reasoning in the last turn only, with an empty block where it has none.
THINKS_LAST = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% set parts = m.content.split('</think>') %}"
    "{% if loop.last %}<think>{{ parts[0].replace('<think>', '') if parts | length > 1 }}</think>{% endif %}"
    "{{ parts[-1] }}{% else %}{{ m.content }}{% endif %}<|end|>\n{% endfor %}" + PROMPT
)
# Several instructions are written into the last question.
SYSTEM_IN_LAST_QUESTION = (
    "<s>{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% set asked = messages | selectattr('role', 'equalto', 'user') | list | length %}{% set seen = namespace(n=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set seen.n = seen.n + 1 %}"
    "[INST] {{ system + ' ' if seen.n == asked }}{{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content.strip() }}</s>{% endif %}{% endfor %}"
)
# The end of the conversation has another token than a turn within it.
RETURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{{ '</s>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}" + PROMPT
)
IGNORES_PROMPT = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
ALWAYS_PROMPTS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
# As Llama 3's of its first days: headers of all roles begin with one token, which is no part of an answer.
ALWAYS_PROMPTS_BY_ONE_TOKEN = (
    "{% for m in messages %}<head>{{ m.role }}</head>{{ m.content }}<|end|>{% endfor %}<head>assistant</head>"
)
ALWAYS_PROMPTS_BEHIND_TWO_ENDS = ALWAYS_PROMPTS_BY_ONE_TOKEN.replace("<|end|>", "<|end|></s>")
ALWAYS_PROMPTS_ON_LINES = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
    "{{ '<|assistant|>\\n' }}"
)
TWO_ENDS_WITHOUT_HEADERS = "{% for m in messages %}{{ m.content }}<|end|></s>{% endfor %}"
ALWAYS_PROMPTS_WITHOUT_END = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
PLAIN_WORDS = "{% for m in messages %}{{ m.role.title() }}: {{ m.content }}\n{% endfor %}"
# Refuses every beginning of a conversation that ends otherwise than with an answer.
COMPLETE_ONLY = (
    "{% if messages | length == 0 or messages[-1].role != 'assistant' %}{{ raise_exception('no answer') }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}"
)
# All questions first, so that no rendering continues another.
QUESTIONS_FIRST = (
    "{% for m in messages if m.role != 'assistant' %}<|user|>{{ m.content }}{% endfor %}"
    "{% for m in messages if m.role == 'assistant' %}<|assistant|>{{ m.content }}<|end|>{% endfor %}" + PROMPT
)
TOOLS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for call in m.tool_calls or [] %}"
    "<call>{{ call.function.name }}{{ call.function.arguments | tojson }}{% endfor %}"
    "<|end|>{% endfor %}" + PROMPT
)
# As Mistral's: no generation prompt, calls without the content beside them, tools before the last question, and tool messages
# that only a call may precede.
CALLS_ALONE = (
    "{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}{% set turns = namespace(n=0) %}"
    "{% for m in messages %}{% if m.role != 'tool' and not m.tool_calls %}{% if (m.role == 'user') != (turns.n % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% set turns.n = turns.n + 1 %}{% endif %}{% endfor %}"
    "<s>{% for m in messages %}{% if m.role == 'user' %}{{ '[TOOLS]' if m == asked[-1] }}[INST] {{ m.content }}[/INST]"
    '{% elif m.tool_calls %}[CALLS] [{% for call in m.tool_calls %}{{ (call.function | tojson)[:-1] }}, "id": "{{ call.id }}"}'
    "{{ ', ' if not loop.last }}{% endfor %}]</s>{% elif m.role == 'tool' %}[RESULTS] {{ m.content }}[/RESULTS]"
    "{% else %} {{ m.content | trim }}</s>{% endif %}{% endfor %}"
)
NEEDS_CALLS = (
    "{% for m in messages if m.role == 'tool' %}{% if not messages | selectattr('tool_calls') | list %}"
    "{{ raise_exception('a tool that nobody called') }}{% endif %}{% endfor %}" + TOOLS
)
# As gpt-oss's: what a turn is for stands behind the generation prompt; the end of the last one is another; what was thought
# before a call is written as long as no answer follows.
CHANNELS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role != 'assistant' %}{{ m.content }}<|end|>"
    "{% elif m.tool_calls %}{% set later = messages[loop.index:] | selectattr('role', 'equalto', 'assistant') | list %}"
    "{% if m.thinking and not later %}[thought]{{ m.thinking }}<|end|><|assistant|>{% endif %}"
    "[call]{{ m.tool_calls[0].function.name }}{{ m.tool_calls[0].function.arguments | tojson }}<|end|>"
    "{% elif loop.last %}{% if m.thinking %}[thought]{{ m.thinking }}<|end|><|assistant|>{% endif %}[answer]{{ m.content }}</s>"
    "{% else %}[answer]{{ m.content }}<|end|>{% endif %}{% endfor %}" + PROMPT
)
# As GLM's: no end of turn, and in earlier turns an empty thought.
EMPTY_THOUGHTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}"
    "{% set after = messages[loop.index0:] | selectattr('role', 'equalto', 'user') | list %}"
    "<think>{{ m.thinking if not after }}</think>{% endif %}{{ m.content }}{% endfor %}" + PROMPT
)
# As Gemma 4's: the results of tools are written with the calls, and what is said beside these behind them.
RESULTS_WITHIN = (
    "{% for m in messages if m.role != 'tool' %}{% set later = namespace(results=[], over=false) %}"
    "{% for other in messages[messages.index(m) + 1:] %}{% if other.role != 'tool' %}{% set later.over = true %}{% endif %}"
    "{% if not later.over %}{% set later.results = later.results + [other.content] %}{% endif %}{% endfor %}"
    "{% if m.role != 'assistant' or loop.previtem.role != 'assistant' %}<|{{ m.role }}|>{% endif %}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function.name }}{{ call.function.arguments | tojson }}{% endfor %}"
    "{% if m.tool_calls %}{% for result in later.results %}<result>{{ result }}</result>{% else %}<result>{% endfor %}"
    "{% endif %}"
    "{{ m.content }}{{ '<|end|>' if m.content }}{% endfor %}" + PROMPT
)

SYSTEM = {"role": "system", "content": "be brief"}
CHAT = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hello you"},
    {"role": "user", "content": "how are you"},
    {"role": "assistant", "content": "quick"},
]


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


def previewed(template: str, messages: list[dict[str, Any]], **columns: Any) -> PreviewedRow:
    raw = RawShard("rows", ("messages", *columns), ((0, {"messages": messages, **columns}),))
    (row,) = preview_rows(raw, Columns(), "s-00000", make_tokenizer(chat_template=template), 512, 300)
    return row


def answers(template: str, messages: list[dict[str, Any]]) -> list[str]:
    row = previewed(template, messages)
    assert row.rejected is None
    return [piece.text for piece in row.pieces if piece.loss]


# Where a token joins the space before an answer to it, as " quick" does, it carries loss.
@pytest.mark.parametrize("messages", [CHAT, [SYSTEM, *CHAT]], ids=["chat", "system and chat"])
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (THINKS_LAST, ["hello you<|end|>\n", "<think></think>quick<|end|>\n"]),
        (SYSTEM_IN_LAST_QUESTION, ["hello you</s>", " quick</s>"]),
        (RETURNS, ["hello you<|end|>", "quick</s>"]),
        (IGNORES_PROMPT, ["hello you<|end|>\n", "quick<|end|>\n"]),
        (ALWAYS_PROMPTS, ["hello you<|end|>", "quick<|end|>"]),
        (ALWAYS_PROMPTS_BY_ONE_TOKEN, ["hello you<|end|>", "quick<|end|>"]),
        (ALWAYS_PROMPTS_BEHIND_TWO_ENDS, ["hello you<|end|></s>", "quick<|end|></s>"]),
        (ALWAYS_PROMPTS_ON_LINES, ["hello you<|end|>\n", "quick<|end|>\n"]),
        (TWO_ENDS_WITHOUT_HEADERS, ["hello you<|end|></s>", "quick<|end|></s>"]),
        (ALWAYS_PROMPTS_WITHOUT_END, ["hello you", "quick"]),
        (PLAIN_WORDS, ["hello you\n", " quick\n"]),
        (COMPLETE_ONLY, ["hello you<|end|>", "quick<|end|>"]),
        (QUESTIONS_FIRST, ["hello you<|end|>", "quick<|end|>"]),
        (CHANNELS, ["[answer]hello you<|end|>", "[answer]quick</s>"]),
    ],
)
def test_every_answer_and_its_end_of_turn_carry_loss_and_no_header_does(
    template: str, expected: list[str], messages: list[dict[str, Any]]
) -> None:
    assert answers(template, messages) == expected


def test_reasoning_that_is_rendered_carries_loss() -> None:
    messages = [*CHAT[:3], turn("assistant", "<think>so so</think>quick")]
    assert answers(THINKS_LAST, messages) == ["hello you<|end|>\n", "<think>so so</think>quick<|end|>\n"]


def test_what_a_template_writes_between_the_generation_prompt_and_the_answer_carries_loss() -> None:
    thinks = [turn("user", "hello"), turn("assistant", "hello you", thinking="a fox")]
    once_more = [turn("user", "how are you"), turn("assistant", "quick", thinking="so so")]
    assert answers(EMPTY_THOUGHTS, [*thinks, *once_more]) == [
        "<think></think>hello you",
        "<think>so so</think>quick",
    ]
    assert answers(CHANNELS, [*thinks, *once_more]) == [
        "[answer]hello you<|end|>",
        "[thought]so so<|end|><|assistant|>[answer]quick</s>",
    ]


def test_it_does_where_earlier_turns_are_rendered_otherwise_before_the_answer_is_there() -> None:
    asks = turn("assistant", "", thinking="look", tool_calls=[call("send", to="Bob")])
    messages = [turn("user", "hello"), asks, turn("tool", "sent"), turn("assistant", "today", thinking="so so")]
    assert answers(CHANNELS, messages) == [
        '[call]send{"to": "Bob"}<|end|>',
        "[thought]so so<|end|><|assistant|>[answer]today</s>",
    ]


def test_a_generation_prompt_of_another_turn_opens_none() -> None:
    # What the prompt opens is closed in turns that have something to say there.
    opens = THINKS_LAST.removesuffix(PROMPT).replace("{% if loop.last %}", "{% if '</think>' in m.content %}") + (
        "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
    )
    messages = [turn("user", "hello"), turn("assistant", "<think>so</think>you"), *CHAT[2:]]
    assert answers(opens, messages) == ["so</think>you<|end|>\n", "quick<|end|>\n"]


def test_an_answer_that_repeats_the_question_is_told_apart() -> None:
    messages = [turn("user", "hello"), turn("assistant", "hello"), turn("user", "hello"), turn("assistant", "hello")]
    for template in (THINKS_LAST, RETURNS, ALWAYS_PROMPTS, QUESTIONS_FIRST):
        assert [said.count("hello") for said in answers(template, messages)] == [1, 1]


@pytest.mark.parametrize("template", [TOOLS, NEEDS_CALLS])
def test_tool_calls_carry_loss_and_what_tools_answer_does_not(template: str) -> None:
    messages = [
        turn("user", "hello"),
        turn("assistant", "", tool_calls=[call("send", to="Bob")]),
        turn("tool", "sent"),
        turn("assistant", "today"),
    ]
    assert answers(template, messages) == ['<call>send{"to": "Bob"}<|end|>', "today<|end|>"]


@pytest.mark.parametrize("without_calls_too", [False, True])
@pytest.mark.parametrize(
    "more", [[], [turn("user", "and"), turn("assistant", "quick")]], ids=["the end", "within a chat"]
)
def test_results_that_are_written_within_the_turn_of_the_calls_carry_no_loss(
    more: list[dict[str, Any]], without_calls_too: bool
) -> None:
    shows = "m.tool_calls or later.results" if without_calls_too else "m.tool_calls"
    template = RESULTS_WITHIN.replace("{% if m.tool_calls %}", "{% if " + shows + " %}")
    asks, asks_twice = ([call(name, to="Bob") for name in names] for names in (["send"], ["send", "look"]))
    messages = [
        *(turn("user", "hello"), turn("assistant", "", tool_calls=asks), turn("tool", "Bob")),
        *(
            turn("assistant", "so", tool_calls=asks_twice),
            turn("tool", "4"),
            turn("tool", "5"),
            turn("assistant", "today"),
        ),
        *more,
    ]
    # The model itself says that a result is next, as by the token that ends a call.
    once, other = (f'<call>{name}{{"to": "Bob"}}' for name in ("send", "look"))
    found = "".join(answers(template, messages))
    assert found == f"{once}<result>{once}{other}<result>so<|end|>today<|end|>" + ("quick<|end|>" if more else "")


def test_tool_calls_carry_loss_where_the_template_needs_them_for_the_tools_answer() -> None:
    # Neither a prefix of the conversation is one of its rendering, nor can the calls be taken away.
    template = "{{ messages | length }}" + NEEDS_CALLS
    messages = [
        turn("user", "hello"),
        turn("assistant", "", tool_calls=[call("send", to="Bob")]),
        turn("tool", "sent"),
        turn("assistant", "today"),
    ]
    assert answers(template, messages) == ['<call>send{"to": "Bob"}<|end|>', "today<|end|>"]


@pytest.mark.parametrize("arguments", [{"to": "Bob"}, {"n": 1}, {}, {"to": ["Bob", {"n": 1.5}]}])
def test_calls_carry_loss_whole_where_no_content_is_written_beside_them(arguments: dict[str, Any]) -> None:
    asks = turn("assistant", "", tool_calls=[call("send", **arguments)])
    asks_twice = turn("assistant", "", tool_calls=[call("send", **arguments), call("look")])
    messages = [
        *(turn("user", "hello"), asks, turn("tool", "sent"), turn("assistant", "today")),
        *(turn("user", "and"), asks_twice, turn("tool", "4"), turn("tool", "5"), turn("assistant", "quick")),
    ]
    once = json.dumps({"name": "send", "arguments": arguments})[:-1] + ', "id": "c1"}'
    other = '{"name": "look", "arguments": {}, "id": "c1"}'
    row = previewed(CALLS_ALONE, messages)
    assert [piece.text for piece in row.pieces if piece.loss] == [
        *(f"[CALLS] [{once}]</s>", " today</s>", f"[CALLS] [{once}, {other}]</s>", " quick</s>"),
    ]
    assert row.notices == ()


@pytest.mark.parametrize("said", [{"content": "how are you"}, {"thinking": "so so"}])
def test_calls_carry_loss_whole_where_what_is_said_beside_them_is_left_out(said: dict[str, str]) -> None:
    asks = turn("assistant", "", tool_calls=[call("send", to="Bob")]) | said
    messages = [turn("user", "hello"), asks, turn("tool", "sent"), turn("assistant", "today")]
    row = previewed(CALLS_ALONE, messages)
    once = '{"name": "send", "arguments": {"to": "Bob"}, "id": "c1"}'
    assert [piece.text for piece in row.pieces if piece.loss] == [f"[CALLS] [{once}]</s>", " today</s>"]
    kind = "content" if "content" in said else "reasoning"
    assert row.notices == (f"the chat template leaves out {kind} of a message by 'assistant', or changes it",)


def test_a_template_in_which_one_message_changes_others_gives_these_no_loss() -> None:
    # The first line names the tools that were called, so that no message can stand in for a call alone.
    names = (
        "{% for m in messages %}{% for call in m.tool_calls or [] %}{{ call.function.name }} {% endfor %}{% endfor %}\n"
    )
    messages = [turn("user", "hello"), turn("assistant", "", tool_calls=[call("send", to="Bob")])]
    once_more = [turn("user", "how are you"), turn("assistant", "today")]
    assert answers("{{ messages | length }}" + names + TOOLS, [*messages, *once_more]) == [
        '<call>send{"to": "Bob"}<|end|>',
        "today<|end|>",
    ]


def test_what_no_rendering_tells_sets_the_row_aside_with_the_reason() -> None:
    # Knows this very conversation.
    words = "".join(message["content"] for message in CHAT)
    template = (
        "{% if messages | map(attribute='content') | join != '"
        + words
        + "' %}{{ raise_exception('unknown') }}{% endif %}"
        "{{ messages | map(attribute='content') | join }}"
    )
    row = previewed(template, CHAT)
    assert row.rejected
    assert "differently up to message 1 than as a whole" in row.rejected
    assert "the chat template refuses the messages: unknown" in row.rejected


def test_a_chat_that_leaves_no_character_to_mark_turns_by_is_set_aside_alone() -> None:
    every = "".join(map(chr, range(0xE000, 0xF900)))
    chats = [
        Conversation(
            [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, texts, strict=True)]
        )
        for texts in (("a", every, "b", "c"), ("a", "b", "c", "d"))
    ]
    hostile, usual = encode_conversations(chats, make_tokenizer(chat_template=QUESTIONS_FIRST))
    assert isinstance(hostile, UnusableRowError)
    assert "every character that marks could be made of" in str(hostile)
    assert isinstance(usual, LabelledTokens)


@given(st.text("ab", max_size=9), st.text("ab", max_size=9))
def test_what_two_texts_have_in_common_is_the_longest_beginning_of_both(one: str, other: str) -> None:
    n = n_common(one, other)
    assert one[:n] == other[:n]
    assert n in (len(one), len(other)) or one[n] != other[n]


def test_many_conversations_are_rendered_as_each_of_them_alone() -> None:
    tokenizer = make_tokenizer(chat_template=THINKS_LAST)
    conversations = [
        Conversation.parse(
            json.dumps(
                [
                    {"role": role, "content": f"<think>{k}</think>{role} {k} {turn}" if role == "assistant" else f"{k}"}
                    for turn in range(k % 4 + 1)
                    for role in ("user", "assistant")
                ]
            )
        )
        for k in range(40)
    ]
    together = encode_conversations(conversations, tokenizer)
    for conversation, encoded in zip(conversations, together, strict=True):
        (alone,) = encode_conversations([conversation], tokenizer)
        assert isinstance(alone, LabelledTokens)
        assert isinstance(encoded, LabelledTokens)
        assert encoded.input_ids.tolist() == alone.input_ids.tolist()
        assert encoded.labels.tolist() == alone.labels.tolist()
