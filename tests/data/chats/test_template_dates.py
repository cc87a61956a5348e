"""Chat templates are rendered alike on every day, in every locale and at every draw."""

import random
from collections.abc import Sequence
from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.config.recipe_fields import TEMPLATE_DATE
from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.chats.renderings import DRAWS, WRITES_DATE
from lorif_assets.data.chats.templates import chat_template
from lorif_assets.data.content.labels import NO_LOSS, LabelledTokens
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.data.tokens.chat import encode_conversations
from tests.data.conftest import make_tokenizer

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]
TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# As Llama 3's templates do it.
DATED = """{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "<|system|>Today Date: " + date_string + "<|end|>" }}"""
DIRECTIVES = (
    "%a %A %b %B %c %C %d %D %e %f %F %g %G %h %H %I %j %k %l %m %M %p %P %r %R %S %T %u %U %V %w %W %x %X %y %Y %%"
)
UNPADDED = "%-d %-e %-H %-I %-j %-k %-l %-m %-M %-S %-U %-V %-W %-y"


def encoded(template: str, day: date = TEMPLATE_DATE, messages: Sequence[dict[str, str]] = CHAT) -> LabelledTokens:
    (tokens,) = encode_conversations([Conversation(messages)], make_tokenizer(chat_template=template), day)
    assert isinstance(tokens, LabelledTokens)
    return tokens


def text(template: str, day: date = TEMPLATE_DATE) -> str:
    return str(make_tokenizer().decode(encoded(template, day).input_ids))


def answer(tokens: LabelledTokens) -> str:
    return str(make_tokenizer().decode(tokens.labels[tokens.labels != NO_LOSS]))


def test_a_template_that_asks_for_today_is_told_the_date_of_the_recipe() -> None:
    said = "<|user|>hello<|end|><|assistant|>world<|end|>"
    assert text(DATED + TURNS) == f"<|system|>Today Date: 26 Jul 2024<|end|>{said}"
    assert text(DATED + TURNS, date(2025, 3, 1)) == f"<|system|>Today Date: 01 Mar 2025<|end|>{said}"


def test_that_it_asks_is_noticed_and_the_loss_is_where_it_was() -> None:
    tokens = encoded(DATED + TURNS)
    assert tokens.notices == (WRITES_DATE,)
    assert answer(tokens) == answer(encoded(TURNS)) == "world<|end|>"


def test_a_template_that_could_ask_and_does_not_is_not_noticed() -> None:
    tokens = encoded("{% if messages[0].role == 'system' %}{{ strftime_now('%Y') }}{% endif %}" + TURNS)
    assert tokens.notices == ()


@pytest.mark.parametrize(
    ("asking", "written"),
    [
        ("{% if strftime_now('%Y') | int > 2023 %}new{% endif %}", "new"),
        ("{% set now = strftime_now %}{{ now('%d') }}", "26"),
        ("{% macro head() %}{{ strftime_now('%-m/%-d/%y') }}{% endmacro %}{{ head() }}", "7/26/24"),
        ("{{ strftime_now(format='%B').upper() ~ '' }}", "JULY"),
        ("{{ strftime_now('100%% %Y').split(' ') | join('|') }}", "100%|2024"),
    ],
)
def test_templates_may_compute_with_the_date(asking: str, written: str) -> None:
    assert text(asking + TURNS).removesuffix("<|user|>hello<|end|><|assistant|>world<|end|>") == written
    assert encoded(asking + TURNS).notices == (WRITES_DATE,)


@pytest.mark.parametrize("beginning", ["\n", "  ", "  {% if true %}x{% endif %}\n", "\n\n{{- 'y' }}", "{#- z -#}\n"])
def test_white_space_at_the_beginning_of_a_template_is_what_it_is_without_a_date(beginning: str) -> None:
    unasked = "{% if false %}{{ strftime_now('%Y') }}{% endif %}"
    assert text(beginning + unasked + TURNS) == text(beginning + "{% if false %}{% endif %}" + TURNS)


@given(st.dates(min_value=date(1000, 1, 1)))
def test_every_directive_is_written_as_by_strftime(day: date) -> None:
    template = chat_template(make_tokenizer(chat_template=f"{{{{ strftime_now('{DIRECTIVES} {UNPADDED}') }}}}"), day)
    midnight = datetime.combine(day, datetime.min.time())
    assert template.text(CHAT) == midnight.strftime(f"{DIRECTIVES} {UNPADDED}")


def test_marked_turns_lie_where_they_are_behind_a_date() -> None:
    marked = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
    )
    assert answer(encoded(DATED + marked)) == "world"


def test_the_line_of_an_error_is_that_of_the_template() -> None:
    template = "{{ strftime_now('%Y') }}\n{{ messages[0].nothing.more }}"
    (reason,) = encode_conversations([Conversation(CHAT)], make_tokenizer(chat_template=template))
    assert isinstance(reason, UnusableRowError)
    assert "at its line 2" in str(reason)


class _DayOfNoLocale(date):
    """A day that cannot be asked for what a locale names otherwise."""

    def strftime(self, format: str) -> str:  # noqa: A002
        assert not set(format) & set("aAbBchpPrxX"), f"{format} is the locale's"
        return super().strftime(format)


def test_names_of_days_and_months_are_english_in_every_locale() -> None:
    day = _DayOfNoLocale(2024, 7, 26)
    assert "Friday 26 July" in text("{{ strftime_now('%A %d %B') }}" + TURNS, day)


@pytest.mark.parametrize("drawing", ["{{ range(10**4) | list | random }}", "{{ lipsum(n=1) }}"])
def test_draws_at_random_are_always_the_same_and_noticed(drawing: str) -> None:
    random.seed(1)
    before = random.getstate()
    one = encoded(drawing + TURNS)
    assert random.getstate() == before
    random.seed(2)
    assert one.input_ids.tolist() == encoded(drawing + TURNS).input_ids.tolist()
    assert DRAWS in one.notices
    assert answer(one) == "world<|end|>"
