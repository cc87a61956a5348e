"""A chat template is a program of a stranger's: it cannot run for ever, fill the memory, or look out of its sandbox."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lorif_assets.data.chats import template_worker
from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.chats.renderings import Rendering, rendered_apart
from lorif_assets.data.chats.templates import ChatTemplate
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.errors import CheckpointError

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]
PLAIN = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
TEXT = "user: hello\nassistant: good day\n"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"

ENDLESS = {
    "loops in loops": LOOPS,
    "one operation in C": "{{ 7 ** (9 ** 9) }}",
    "a hang on one row alone": "{% if messages[0].content == 'hello' %}" + LOOPS + "{% endif %}",
}
LARGE = {
    "a text times a number": "{{ 'a' * 10 ** 12 }}",
    "a text that doubles": "{% set n = namespace(s='ab') %}{% for i in range(70) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "a width of a format": "{{ '%3000000000d' % 1 }}",
    "a filter": "{{ 'a' | center(10 ** 12) }}",
    "a list": "{{ [0] * 10 ** 11 }}",
}
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ [''] | map(attribute='__class__') | list }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ lipsum.__globals__['os'].environ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ ('{0.__class__}',) | map('format', messages) | list }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.environ }}",
]


def template(source: str) -> ChatTemplate:
    return ChatTemplate("strange", source, {}, {})


def text(worker: template_worker._Worker) -> str:
    (answer,) = worker.answers({"request": {"messages": CHAT, "arguments": {"chat_template": PLAIN}}})
    assert isinstance(answer, dict)
    return str(answer["text"])


@pytest.fixture
def _one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_worker, "SECONDS", 1)
    monkeypatch.setattr(template_worker, "_workers", template_worker._Workers())


@pytest.mark.usefixtures("_one_second")
@pytest.mark.parametrize("kind", ENDLESS)
def test_what_does_not_end_sets_the_row_aside_and_the_next_one_is_rendered(kind: str) -> None:
    with pytest.raises(UnusableRowError, match="of tokenizer 'strange' took more than 1 seconds of the processor"):
        template(ENDLESS[kind]).text(CHAT)
    assert template(PLAIN).text(CHAT) == TEXT


@pytest.mark.usefixtures("_one_second")
def test_a_template_that_hangs_again_and_again_is_the_checkpoints_fault() -> None:
    for _ in range(template_worker.MOST_OVERRUNS):
        with pytest.raises(UnusableRowError):
            template(LOOPS).text(CHAT)
    with pytest.raises(
        CheckpointError, match=r"'strange' went beyond its limits on 3 conversations .*chat_template\.jinja"
    ):
        template(LOOPS).text(CHAT)
    assert template(PLAIN).text(CHAT) == TEXT, "another template was refused too"


@pytest.mark.usefixtures("_one_second")
def test_of_several_conversations_the_one_on_which_the_template_hangs_is_set_aside() -> None:
    hangs = "{% if messages[0].content == 'hang' %}" + LOOPS + "{% endif %}" + PLAIN
    conversations = [Conversation([{"role": "user", "content": word}, *CHAT[1:]]) for word in ("one", "hang", "two")]
    one, hung, two = rendered_apart(conversations, template(hangs), frozenset())
    assert isinstance(hung, UnusableRowError)
    assert "took more than 1 seconds of the processor" in str(hung)
    assert isinstance(one, Rendering)
    assert isinstance(two, Rendering)
    assert (one.text, two.text) == ("user: one\nassistant: good day\n", "user: two\nassistant: good day\n")


@pytest.mark.parametrize("kind", LARGE)
def test_what_fills_the_memory_sets_the_row_aside(kind: str) -> None:
    with pytest.raises(UnusableRowError, match=r"takes more than 1,024 MiB|MemoryError|OverflowError"):
        template(LARGE[kind]).text(CHAT)
    assert template(PLAIN).text(CHAT) == TEXT


def test_a_text_that_is_too_long_sets_the_row_aside() -> None:
    with pytest.raises(UnusableRowError, match="writes 20,000,000 characters, more than the 16,777,216 that it may"):
        template("{{ 'a' * 20000000 }}").text(CHAT)


def test_what_a_template_complains_of_is_cut() -> None:
    with pytest.raises(UnusableRowError, match="the chat template refuses the messages: nnn") as caught:
        template("{{ raise_exception('n' * 1000000) }}").text(CHAT)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("source", ESCAPES)
def test_the_sandbox_shows_nothing_of_python(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "sesame")
    try:
        text = template(source).text(CHAT)
    except UnusableRowError as reason:
        text = str(reason)
    for inside in ("<class", "<module", "<function", "subclasses'", "sesame", "root:", "environ({"):
        assert inside not in text


def test_the_process_that_renders_has_no_secret_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
    worker = template_worker._Worker()
    text(worker)
    assert worker._process
    assert b"sesame" not in Path(f"/proc/{worker._process.pid}/environ").read_bytes()
    worker._end()


def test_the_process_is_kept_from_row_to_row_and_replaced_when_it_dies() -> None:
    worker = template_worker._Worker()
    assert text(worker) == TEXT
    first = worker._process
    assert first
    assert text(worker) == TEXT
    assert worker._process is first
    first.kill()
    first.wait()
    assert text(worker) == TEXT
    worker._end()


def test_threads_get_their_own_answers() -> None:
    found: dict[str, str] = {}

    def render(word: str) -> None:
        for _ in range(20):
            found[word] = template(PLAIN).text([{"role": "user", "content": word}])

    threads = [threading.Thread(target=render, args=(word,)) for word in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {word: f"user: {word}\n" for word in ("one", "two", "three")}


def test_a_fork_starts_a_process_of_its_own() -> None:
    worker = template_worker._Worker()
    text(worker)
    first = worker._process
    worker.forget()
    assert text(worker) == TEXT
    assert first
    assert worker._process is not first
    assert first.wait(30) == 0
    worker._end()


def test_the_process_ends_with_the_one_that_started_it() -> None:
    worker = template_worker._Worker()
    text(worker)
    process, connection = worker._process, worker._connection
    assert process
    assert connection
    connection.close()
    assert process.wait(30) == 0


def test_draws_are_the_same_every_time() -> None:
    drawn = template("{{ range(100000) | random }}")
    assert len({drawn.text(CHAT) for _ in range(3)}) == 1


def test_a_process_that_somebody_ended_costs_no_conversation() -> None:
    worker = template_worker._Worker()
    text(worker)
    assert worker._process
    ender = threading.Timer(0.5, worker._process.kill)
    ender.start()
    slow = PLAIN + "{% for a in range(300) %}{% for b in range(3000) %}{% endfor %}{% endfor %}"
    (answer,) = worker.answers({"request": {"messages": CHAT, "arguments": {"chat_template": slow}}})
    ender.join()
    assert isinstance(answer, dict)
    worker._end(patience=0.0)


@pytest.mark.parametrize(
    "source", [LOOPS, PLAIN + "{% for a in range(3000) %}{% for b in range(999) %}{% endfor %}{% endfor %}"]
)
def test_who_interrupts_does_not_wait_for_what_is_being_rendered(source: str) -> None:
    conversations = [Conversation(CHAT)] * 64
    interrupt = threading.Timer(3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        rendered_apart(conversations, template(source), frozenset())
    interrupt.join()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("render")]
    assert template(PLAIN).text(CHAT) == TEXT


def test_arguments_of_a_row_that_have_names_of_the_questions_are_no_others() -> None:
    with_names = replace(template(PLAIN), arguments={"conversations": 3, "batch": 4, "request": 5})
    assert with_names.text(CHAT) == TEXT
    (found,) = rendered_apart([Conversation(CHAT, arguments={"conversations": 3})], template(PLAIN), frozenset())
    assert isinstance(found, Rendering)
    with pytest.raises(UnusableRowError, match="messages"):
        replace(template(PLAIN), arguments={"messages": []}).text(CHAT)


def test_a_turn_that_is_told_for_ever_sets_the_row_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_worker, "WHOLE_SECONDS", 2)
    monkeypatch.setattr(template_worker, "_workers", template_worker._Workers())
    # Each of its characters may begin the header that always stands behind an answer.
    footer = "{{ ' x' * 800000 }}"
    source = (
        "{% for m in messages %}<head>{{ m.role }}</head>{{ m.content }}<end>"
        "{% if m.role == 'assistant' and loop.last %}" + footer + "{% endif %}{% endfor %}<head>assistant</head>"
    )
    (found,) = rendered_apart([Conversation(CHAT)], template(source), frozenset({"<end>", "<head>", "</head>"}))
    assert isinstance(found, UnusableRowError)
    assert "took too long for all that was asked of it" in str(found)
