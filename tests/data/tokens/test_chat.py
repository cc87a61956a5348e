import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizer

from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.content.labels import NO_LOSS, LabelledTokens
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.data.tokens.chat import encode_conversations
from lorif_assets.errors import CheckpointError
from tests.data.conftest import make_tokenizer

CONTENT = "{{ '<|' + m.role + '|>' }}{{ m.content }}<|end|>"
PROMPT = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
UNMARKED = "{% for m in messages %}" + CONTENT + "{% endfor %}" + PROMPT
MARKED = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
) + PROMPT
# As reasoning models' templates do: what the assistant thought stays in the last turn only.
REWRITING = UNMARKED.replace("{{ m.content }}", "{{ '(hm) ' if loop.last and m.role == 'assistant' }}{{ m.content }}")
TEMPLATES = {"marked": MARKED, "unmarked": UNMARKED}

CONVERSATION = [
    {"role": "system", "content": "how are you"},
    {"role": "user", "content": "hello world"},
    {"role": "assistant", "content": "the quick fox"},
    {"role": "user", "content": "hello fox"},
    {"role": "assistant", "content": "today"},
]
RENDERED = (
    "<|system|>how are you<|end|><|user|>hello world<|end|><|assistant|>the quick fox<|end|>"
    "<|user|>hello fox<|end|><|assistant|>today<|end|>"
)


def encode(template: str | None, *conversations: list[dict[str, str]]) -> list[LabelledTokens | UnusableRowError]:
    return encode_conversations(
        [Conversation(messages) for messages in conversations], make_tokenizer(chat_template=template)
    )


def labelled(encoded: LabelledTokens | UnusableRowError) -> LabelledTokens:
    assert isinstance(encoded, LabelledTokens), encoded
    return encoded


def reason(encoded: LabelledTokens | UnusableRowError) -> str:
    assert isinstance(encoded, UnusableRowError)
    return str(encoded)


def spoken(tokens: LabelledTokens) -> list[str]:
    """Text of each run of tokens with loss."""
    tokenizer = make_tokenizer()
    mask = tokens.labels != NO_LOSS
    runs = np.split(tokens.input_ids, np.flatnonzero(np.diff(mask.astype(int))) + 1)
    masks = np.split(mask, np.flatnonzero(np.diff(mask.astype(int))) + 1)
    return [tokenizer.decode(run) for run, carries_loss in zip(runs, masks, strict=True) if carries_loss[0]]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
class TestBothWays:
    def test_the_loss_is_on_every_assistant_turn_and_its_end(self, template: str) -> None:
        tokens = labelled(encode(template, CONVERSATION)[0])
        assert make_tokenizer().decode(tokens.input_ids) == RENDERED
        assert spoken(tokens) == ["the quick fox<|end|>", "today<|end|>"]

    def test_labels_are_the_tokens_own_ids(self, template: str) -> None:
        tokens = labelled(encode(template, CONVERSATION)[0])
        mask = tokens.labels != NO_LOSS
        np.testing.assert_array_equal(tokens.labels[mask], tokens.input_ids[mask])

    def test_no_special_token_is_written_twice(self, template: str) -> None:
        tokenizer = make_tokenizer("<s> $A", chat_template="{{ bos_token }}" + template)
        (tokens,) = encode_conversations([Conversation(CONVERSATION)], tokenizer)
        assert list(labelled(tokens).input_ids).count(tokenizer.bos_token_id) == 1

    def test_what_the_template_refuses_is_set_aside_and_the_rest_is_not(self, template: str) -> None:
        guarded = "{% for m in messages if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endfor %}" + template
        refused, accepted = encode(guarded, [*CONVERSATION, {"role": "tool", "content": "42"}], CONVERSATION)
        assert reason(refused) == "the chat template refuses the messages: no tools"
        assert spoken(labelled(accepted)) == ["the quick fox<|end|>", "today<|end|>"]

    def test_an_assistant_may_begin(self, template: str) -> None:
        assert spoken(labelled(encode(template, CONVERSATION[2:4])[0])) == ["the quick fox<|end|>"]


# As templates of models that see images have it: they go through a content's parts, and find letters in a text.
IN_PARTS = UNMARKED.replace(
    "{{ m.content }}",
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% else %}{{ '<image>' if part.type }}{% endif %}"
    "{% endfor %}",
)
IN_EITHER = UNMARKED.replace(
    "{{ m.content }}",
    "{% if m.content is string %}{{ m.content }}{% else %}<parts>{% for part in m.content if part.type == 'text' %}"
    "{{ part.text }}{% endfor %}{% endif %}",
)


@pytest.mark.parametrize("template", [IN_PARTS, IN_EITHER], ids=["parts alone", "text or parts"])
def test_content_is_given_as_text_and_in_parts_only_where_the_template_shows_no_other(template: str) -> None:
    (as_it_is,), (tokens,) = encode(UNMARKED, CONVERSATION), encode(template, CONVERSATION)
    np.testing.assert_array_equal(labelled(tokens).input_ids, labelled(as_it_is).input_ids)
    np.testing.assert_array_equal(labelled(tokens).labels, labelled(as_it_is).labels)


def test_a_template_of_parts_that_renders_earlier_turns_otherwise_still_tells_the_turns() -> None:
    template = IN_PARTS.replace("{% for part", "{{ '(hm) ' if loop.last and m.role == 'assistant' }}{% for part")
    (tokens,) = encode(template, CONVERSATION)
    assert spoken(labelled(tokens)) == ["the quick fox<|end|>", "(hm) today<|end|>"]


short_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
conversations = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": short_text}),
    min_size=1,
    max_size=5,
)


@given(conversations)
def test_both_ways_agree(conversation: list[dict[str, str]]) -> None:
    marked, unmarked = (labelled(encode(template, conversation)[0]) for template in (MARKED, UNMARKED))
    np.testing.assert_array_equal(marked.input_ids, unmarked.input_ids)
    np.testing.assert_array_equal(marked.labels, unmarked.labels)


@given(conversations)
def test_the_way_without_a_generation_prompt_agrees_with_both(conversation: list[dict[str, str]]) -> None:
    # Where nothing is said there is nothing to tell a turn by; its frame is then left without loss.
    filled = [{**message, "content": message["content"].strip() or "hm"} for message in conversation]
    prompted, never = (labelled(encode(template, filled)[0]) for template in (UNMARKED, UNMARKED.replace(PROMPT, "")))
    np.testing.assert_array_equal(prompted.input_ids, never.input_ids)
    np.testing.assert_array_equal(prompted.labels, never.labels)


def test_a_token_that_joins_prompt_and_answer_carries_loss() -> None:
    joined = "{% for m in messages %}{{ m.role }}:{{ ' ' }}{{ m.content }}{% endfor %}"
    template = joined + "{% if add_generation_prompt %}assistant:{{ ' ' }}{% endif %}"
    tokens = labelled(encode(template, [{"role": "assistant", "content": "world"}])[0])
    assert spoken(tokens) == [" world"]


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("answer", ["hello", " hello", "hello  ", "  hello  ", " "])
def test_white_space_that_offsets_leave_out_is_told_apart_too(answer: str, marked: bool) -> None:
    content = "{% generation %}{{ m.content }}{% endgeneration %}" if marked else "{{ m.content }}"
    turn = "{% if m.role == 'user' %}({{ m.content }}{{ ' ' }}{% else %}" + content + "{% endif %}"
    tokenizer = make_tokenizer(chat_template="{% for m in messages %}" + turn + "{% endfor %}", trim_offsets=True)
    conversation = [
        {"role": "user", "content": "fox"},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "how are you "},
        {"role": "assistant", "content": "\N{GRINNING FACE}"},
    ]
    (tokens,) = encode_conversations([Conversation(conversation)], tokenizer)
    first, second = spoken(labelled(tokens))
    assert first.strip(" ") == answer.strip(" ")
    assert second.strip(" ") == "\N{GRINNING FACE}"
    assert len(first) >= len(answer)


def test_a_template_that_rewrites_earlier_turns_does_not_hide_them() -> None:
    several_turns, one_turn = encode(REWRITING, CONVERSATION, CONVERSATION[:3])
    assert spoken(labelled(several_turns)) == ["the quick fox<|end|>", "(hm) today<|end|>"]
    assert spoken(labelled(one_turn)) == ["(hm) the quick fox<|end|>"]


def test_a_tokenizer_without_a_chat_template_is_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r"tokenizer 'TokenizersBackend' has no chat template.*chat_template\.jin"
    ):
        encode(None, CONVERSATION)


def test_of_several_chat_templates_the_default_is_used_and_for_tools_their_own() -> None:
    other = UNMARKED.replace("m.content", "m.content | upper")
    tokenizer = make_tokenizer(chat_template={"default": UNMARKED, "tool_use": other})
    chat = Conversation(CONVERSATION[1:3])
    plain, with_tools = encode_conversations([chat, Conversation(chat.messages, [{"name": "f"}])], tokenizer)
    assert spoken(labelled(plain)) == ["the quick fox<|end|>"]
    assert spoken(labelled(with_tools)) == ["THE QUICK FOX<|end|>"]


def test_a_single_chat_template_needs_no_name_to_be_used() -> None:
    tokens = encode_conversations([Conversation(CONVERSATION)], make_tokenizer(chat_template={"chatml": UNMARKED}))
    assert spoken(labelled(tokens[0])) == ["the quick fox<|end|>", "today<|end|>"]


def test_several_chat_templates_without_a_default_are_refused_by_name() -> None:
    tokenizer = make_tokenizer(chat_template={"rag": UNMARKED, "tool_use": UNMARKED})
    with pytest.raises(
        CheckpointError, match=r"has the chat templates rag, tool_use, and none named default\. Put the one"
    ):
        encode_conversations([Conversation(CONVERSATION)], tokenizer)
    (tokens,) = encode_conversations([Conversation(CONVERSATION, [{"name": "f"}])], tokenizer)
    assert spoken(labelled(tokens)) == ["the quick fox<|end|>", "today<|end|>"]


def test_a_tokenizer_that_is_not_fast_is_refused() -> None:
    class SlowTokenizer(PreTrainedTokenizer):
        vocab_size = 1

        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

    with pytest.raises(CheckpointError, match="tokenizer 'SlowTokenizer' is not a fast one"):
        encode_conversations([Conversation(CONVERSATION)], SlowTokenizer(chat_template=UNMARKED))
