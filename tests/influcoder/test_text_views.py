"""What the encoder reads of each kind of content."""

import json
from typing import Any

import pytest

from lorif_assets.influcoder.text_views import INSTRUCTION, anchor_text, pool_text

_TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is two and two?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And three?"},
]
ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "text": ({"format": "text", "text": " A passage.\n"}, "A passage.", "A passage."),
    "prompt and completion": (
        {"format": "prompt_completion", "prompt": "Two and two is", "completion": " four."},
        "Two and two is\nfour.",
        "Q: Two and two is\nA: four.",
    ),
    "a completion alone": (
        {"format": "prompt_completion", "prompt": "", "completion": "Four."},
        "Four.",
        "Four.",
    ),
    "messages": (
        {"format": "messages", "messages": json.dumps(_TURNS)},
        "What is two and two?\nFour.",
        "Q: What is two and two?\nA: Four.",
    ),
    "token ids": ({"format": "input_ids", "input_ids": [3, 1]}, "3-1", "3-1"),
}


@pytest.mark.parametrize(("row", "pool", "anchor"), ROWS.values(), ids=ROWS)
def test_a_pool_text_is_the_content_and_an_anchor_has_the_instruction_in_front(
    row: dict[str, Any], pool: str, anchor: str
) -> None:
    def decode(ids: Any) -> str:
        return "-".join(map(str, ids))

    assert pool_text(row, decode) == pool
    assert anchor_text(row, decode) == f"Instruct: {INSTRUCTION}\nQuery: {anchor}"
