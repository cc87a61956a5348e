"""Questions asked at once have the form of a query set's rows."""

import pytest

from lorif_assets.config.sources import Columns
from lorif_assets.data.examples import normalise
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.questions import completion_question, conversation_question
from lorif_assets.errors import SourceError

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "you", "weight": 1}]


@pytest.mark.parametrize("row", [{"messages": CHAT}, {"messages": CHAT, "tools": [{"name": "f"}]}])
def test_a_conversation_is_read_as_a_row_of_a_file(row: dict[str, object]) -> None:
    (stored,) = normalise(RawShard("rows", tuple(row), ((0, row),)), Columns(), "s").examples.to_pylist()
    question = conversation_question(row, "here")
    assert question == {"format": "messages", "messages": stored["messages"]}
    if "tools" not in row:
        assert conversation_question(CHAT, "here") == question


def test_a_completion_without_a_prompt_is_text() -> None:
    assert completion_question("", "a") == {"format": "text", "text": "a"}
    assert completion_question("p", "a") == {"format": "prompt_completion", "prompt": "p", "completion": "a"}


@pytest.mark.parametrize("conversation", [[], CHAT[:1], 7, {"messages": CHAT, "tools": 7}])
def test_what_is_no_conversation_is_refused(conversation: object) -> None:
    with pytest.raises(SourceError, match=r"^here: .*Give a list of"):
        conversation_question(conversation, "here")


@pytest.mark.parametrize(("prompt", "completion", "wrong"), [(None, "a", "prompt"), ("", None, "completion")])
def test_a_question_that_is_no_text_is_refused(prompt, completion, wrong):
    with pytest.raises(SourceError, match=f"the {wrong} is a NoneType; expected a text"):
        completion_question(prompt, completion)
