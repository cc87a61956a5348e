"""Regular expressions of a tokenizer that take the square of a text's length: the row is set aside, and the others go on."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from tokenizers import Regex, normalizers, pre_tokenizers

from lorif_assets.data.tokens import tokenizer_trial
from lorif_assets.data.tokens.tokenization import tokenize
from lorif_assets.data.tokens.tokenizer_trial import LONG, overruns
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from tests.data.conftest import make_tokenizer

# From each character on, all that follows is gone through and back again: some 10^11 steps.
SQUARE = r"x*[^\sx]"
ENDLESS = "x" * 400_000


def tokenizer_with(expression: str) -> Any:
    tokenizer = make_tokenizer(chat_template="{% for message in messages %}{{ message.content }}{% endfor %}")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(expression), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[tokenizer_trial._Worker]:
    monkeypatch.setattr(tokenizer_trial, "SECONDS", 1)
    worker = tokenizer_trial._Worker()
    monkeypatch.setattr(tokenizer_trial, "_worker", worker)
    yield worker
    worker._end()


def rows_of(kind: str, texts: list[str]) -> list[dict[str, Any]]:
    contents = {
        "text": lambda text: {"text": text},
        "prompt_completion": lambda text: {"prompt": "hello", "completion": text},
        "messages": lambda text: {
            "messages": json.dumps([{"role": "user", "content": "hello"}, {"role": "assistant", "content": text}])
        },
    }
    return [{"query_id": str(k), "row": k, "format": kind, **contents[kind](text)} for k, text in enumerate(texts)]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("kind", ["text", "prompt_completion", "messages"])
def test_the_row_is_set_aside_and_the_others_are_tokenized(kind: str) -> None:
    rows = rows_of(kind, ["good day", ENDLESS, "word " * LONG, "ends"])
    table = pa.Table.from_pylist(rows, schema=QUERY_EXAMPLES.columns)
    found = tokenize(table, tokenizer_with(SQUARE), 64, 10_000, "query_id")
    assert [example.example_id for example in found.examples] == ["0", "2", "3"]
    (bad,) = found.rejected.to_pylist()
    assert bad["example_id"] == "1"
    assert bad["reason"].startswith("the tokenizer's regular expressions on 400,0")
    assert bad["reason"].endswith("characters: took more than 1 seconds of the processor")


@pytest.mark.usefixtures("worker")
def test_a_normalizer_is_tried_too() -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(SQUARE), "y")
    assert list(overruns([{"text": "a" * LONG}, {"text": ENDLESS}], tokenizer)) == [1]


def test_nothing_is_tried_without_expressions_or_on_short_texts(worker: tokenizer_trial._Worker) -> None:
    assert overruns([{"text": ENDLESS}], make_tokenizer()) == {}
    assert overruns([{"text": "x" * (LONG - 1)}, {"input_ids": [1]}], tokenizer_with(SQUARE)) == {}
    assert worker._process is None


def test_what_the_library_gives_up_on_is_left_to_it(worker: tokenizer_trial._Worker) -> None:
    assert overruns([{"text": ENDLESS}, {"text": "y" * LONG}], tokenizer_with(r"(x+x+)+y")) == {}
    assert worker._process is not None


@pytest.mark.usefixtures("worker")
def test_many_short_messages_are_one_long_text() -> None:
    turns = [{"role": role, "content": "x" * (LONG - 100)} for role in ("user", "assistant") * 200]
    rows = [{"messages": json.dumps(turns)}, {"messages": json.dumps(turns[:2])}]
    found = overruns(rows, tokenizer_with(SQUARE))
    assert list(found) == [0]


def test_a_stage_in_python_is_not_tried_and_the_other_one_is(worker: tokenizer_trial._Worker) -> None:
    class Words:
        def pre_tokenize(self, text: Any) -> None:
            text.split(lambda _, part: [part])

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Words())
    assert overruns([{"text": ENDLESS}], tokenizer) == {}
    assert worker._process is None
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(SQUARE), "y")
    assert list(overruns([{"text": ENDLESS}], tokenizer)) == [0]


def test_a_process_that_somebody_ended_costs_no_text(
    worker: tokenizer_trial._Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, processes = worker._started, list[int]()

    def killed_at_first() -> Any:
        connection = started()
        assert worker._process
        if not processes:
            worker._process.kill()
            worker._process.wait()
        processes.append(worker._process.pid)
        return connection

    monkeypatch.setattr(worker, "_started", killed_at_first)
    assert overruns([{"text": "y" * LONG}, {"text": "z" * LONG}], tokenizer_with(SQUARE)) == {}
    assert len(processes) == 2
