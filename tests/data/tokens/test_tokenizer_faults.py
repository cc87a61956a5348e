"""A tokenizer's regular expression that takes exponentially many steps on a text: that row alone is set aside."""

import json

import pyarrow as pa
import pytest
from tokenizers import Regex, pre_tokenizers

from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.data.tokens.rules import TokenRules
from lorif_assets.data.tokens.tokenization import tokenize
from lorif_assets.data.tokens.tokenizer_faults import encoded_apart
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from tests.data.conftest import make_tokenizer

ENDLESS = "x" * 100
CHAT = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


def rows_of(kind: str, text: str) -> dict[str, str]:
    if kind == "messages":
        chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": text}]
        return {"format": kind, "messages": json.dumps(chat)}
    return {"format": kind, "text": text} if kind == "text" else {"format": kind, "prompt": "hello", "completion": text}


@pytest.mark.parametrize("truncation", ["keep_start", "drop_early_turns"])
@pytest.mark.parametrize("kind", ["text", "prompt_completion", "messages"])
def test_the_other_rows_are_tokenized_as_they_would_be_without_it(kind: str, truncation: str) -> None:
    tokenizer = make_tokenizer(chat_template=CHAT)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"(x+x+)+y"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    texts = ["good day", ENDLESS, "a file", "ends"]
    rows = [{"query_id": str(k), "row": k, **rows_of(kind, text)} for k, text in enumerate(texts)]
    rules = TokenRules(truncation=truncation)  # type: ignore[arg-type]

    def tokenized(chosen: list[dict[str, object]]):  # type: ignore[no-untyped-def]
        table = pa.Table.from_pylist(chosen, schema=QUERY_EXAMPLES.columns)
        return tokenize(table, tokenizer, 64, 10_000, "query_id", rules)

    found = tokenized(rows)
    assert [example.example_id for example in found.examples] == ["0", "2", "3"]
    (rejected,) = found.rejected.to_pylist()
    assert rejected["example_id"] == "1"
    assert rejected["reason"].startswith("the tokenizer gives up on the text: ")
    alone = tokenized([row for row in rows if row["query_id"] != "1"])
    for one, other in zip(found.examples, alone.examples, strict=True):
        assert one.input_ids.tolist() == other.input_ids.tolist()
        assert one.labels.tolist() == other.labels.tolist()


class PanicException(BaseException):
    """As Rust's."""


def test_no_row_is_lost_and_other_errors_go_on() -> None:
    def encode(rows: object) -> list[int]:
        numbers = list(rows)  # type: ignore[call-overload]
        if set(numbers) & {2, 5}:
            raise PanicException("over")
        return [10 * number for number in numbers]

    found = encoded_apart(encode, range(7))
    assert [one if isinstance(one, int) else str(one) for one in found] == [
        *(0, 10, "the tokenizer gives up on the text: over", 30, 40, "the tokenizer gives up on the text: over", 60)
    ]
    assert isinstance(found[2], UnusableRowError)
    assert encoded_apart(encode, []) == []

    def interrupted(rows: object) -> list[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoded_apart(interrupted, [1, 2])
